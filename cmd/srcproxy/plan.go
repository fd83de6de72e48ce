package main

import (
	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
)

func (a *app) planCommand() *cobra.Command {
	var nft bool
	cmd := &cobra.Command{
		Use:   "plan --nft",
		Short: "print what the kernel alone would need to do what the rules say",
		Long: `plan prints the nearest equivalent of the rules that works without srcproxy, for what
the programs of this host send: --nft as a file for nft. It changes nothing.

Comments list and count what the kernel cannot express: names, users, clients,
listeners, pools other than round-robin and random.`,
		Example: "  srcproxy plan --nft -c config.toml > srcproxy.nft",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !nft {
				return usagef("which plan? There is --nft")
			}
			return a.plan(func(cfg *config.Config) (*explain.Plan, error) { return explain.PlanNFT(cfg), nil })
		},
	}
	cmd.Flags().BoolVar(&nft, "nft", false, "a file for nft -f: source NAT")
	return cmd
}

// plan makes a plan of the configuration and prints it.
func (a *app) plan(make func(*config.Config) (*explain.Plan, error)) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	p, err := make(cfg)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(p)
	}
	return a.print(p.Text)
}
