package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

func (a *app) planCommand() *cobra.Command {
	var nft, iproute, networkd bool
	cmd := &cobra.Command{
		Use:   "plan --nft | --iproute | --networkd",
		Short: "print what the kernel alone would need to do what the rules say",
		Long: `plan prints the nearest equivalent of the rules that works without srcproxy, for what
the programs of this host send: --nft as source NAT in a file for nft, --iproute as
routing tables and rules in commands of ip, --networkd as the same in sections for
systemd-networkd. It changes nothing.

Comments list and count what the kernel cannot express: names, users, clients,
listeners, and of pools all but round-robin and random, which only nft knows.`,
		Example: "  srcproxy plan --nft -c config.toml > srcproxy.nft",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch [3]bool{nft, iproute, networkd} {
			case [3]bool{true, false, false}:
				return a.plan(explain.PlanNFT)
			case [3]bool{false, true, false}:
				return a.routePlan(explain.PlanIPRoute)
			case [3]bool{false, false, true}:
				return a.routePlan(explain.PlanNetworkd)
			}
			return usagef("which plan? One of --nft, --iproute and --networkd")
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&nft, "nft", false, "a file for nft -f: source NAT")
	flags.BoolVar(&iproute, "iproute", false, "commands of ip: routing tables and rules")
	flags.BoolVar(&networkd, "networkd", false, "sections for systemd-networkd: routing tables and rules")
	return cmd
}

// plan makes a plan of the configuration and prints it.
func (a *app) plan(of func(*config.Config) *explain.Plan) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	p := of(cfg)
	if a.json {
		return a.printJSON(p)
	}
	return a.print(p.Text)
}

// routePlan is plan for what depends on the routes of this host.
func (a *app) routePlan(of func(*config.Config, *host.Snapshot, *host.Policy) *explain.Plan) error {
	snapshot, err := host.Read()
	if err != nil {
		return fmt.Errorf("read the addresses of this host: %w", err)
	}
	policy, err := host.ReadPolicy()
	if err != nil {
		return fmt.Errorf("read the routes of this host: %w", err)
	}
	return a.plan(func(cfg *config.Config) *explain.Plan { return of(cfg, snapshot, policy) })
}
