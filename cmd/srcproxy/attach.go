package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/server"
)

// attachOptions is the command line of attach.
type attachOptions struct {
	use      []string
	override bool
}

func (a *app) attachCommand() *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach [SERVICE | CGROUP]...",
		Short: "put the rules on a service or control group that is there",
		Long: `attach puts the rules into the kernel for the programs of a service of systemd
(asterisk.service) or of a control group (/some.slice), and leaves them there until
detach. Without arguments it does so for each [[attach]] of the configuration.

A service gets a slice of its own, which outlives it, and attach prints what moves it
there. Until then the rules are on its own control group, which ends with it.

Nobody looks after the rules then: sources that vanish are not withdrawn, groups that
come later are not followed, rules by name do not match, wildcard_port does nothing,
and no decision is logged. For that write [[attach]], and run srcproxy serve.`,
		Example: "  srcproxy attach --use 198.51.100.30 asterisk.service\n  srcproxy attach -c config.toml /machine.slice",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(_ *cobra.Command, args []string) error { return a.attach(&o, args) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.use, "use", nil, useUsage)
	flags.BoolVar(&o.override, "override", false, "also where a program has bound an address itself")
	return cmd
}

func (a *app) attach(o *attachOptions, args []string) error {
	cfg, err := a.configFor(o.use)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		only := *cfg
		only.Attach = nil
		for _, s := range args {
			one, err := attachTo(s, o.override)
			if err != nil {
				return err
			}
			only.Attach = append(only.Attach, one)
		}
		cfg = &only
	}
	if len(cfg.Attach) == 0 {
		return usagef("to what? The configuration has no [[attach]]")
	}
	list, err := server.Attach(cfg)
	if err != nil {
		return err
	}
	if a.json {
		fmt.Fprint(a.stderr, withoutService(cfg))
		return a.printJSON(list)
	}
	return a.print(attachText(list) + withoutService(cfg))
}

// withoutService tells what does not work of cfg while no service looks after its rules.
func withoutService(cfg *config.Config) string {
	var b strings.Builder
	if names := cfg.Names(); len(names) > 0 && slices.ContainsFunc(cfg.Attach, func(x config.Attach) bool { return x.ByRules() }) {
		fmt.Fprintf(&b, "Rules by name do not match there, since nobody asks for addresses: %s\n", some(names))
	}
	if slices.ContainsFunc(cfg.Attach, func(x config.Attach) bool { return x.Mark }) {
		b.WriteString("wildcard_port does nothing there, since nobody follows the routes: the connect of a socket that holds a port is refused\n")
	}
	if b.Len() > 0 {
		b.WriteString("    For that write [[attach]], and run srcproxy serve.\n")
	}
	return b.String()
}

// some is a list of which not too many are named.
func some(names []string) string {
	const most = 5
	if n := len(names) - most; n > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}

// attachTo reads an argument.
func attachTo(s string, override bool) (config.Attach, error) {
	out := config.Attach{Override: override}
	switch {
	case strings.HasPrefix(s, "/"):
		out.Cgroup = s
	case config.IsService(s):
		out.Service = s
	default:
		return out, usagef("%q is neither a service (NAME.service) nor the path of a control group from the root (/NAME)", s)
	}
	return out, nil
}

// attachText tells what is attached where, and what moves services into their slices.
func attachText(list []attach.Status) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%s: the rules hold in %s\n", s.Name, strings.Join(s.Cgroups, " and "))
		if strings.HasPrefix(s.Name, "/") || s.Outside == "" && installed(s.Name) {
			continue
		}
		b.WriteString("    Its own slice outlives it, so that its first packet is ruled. This moves it there:\n")
		for _, c := range cgroup.DropInCommands(s.Name) {
			b.WriteString("      " + c + "\n")
		}
	}
	return b.String()
}

// installed reports whether the drop-in of a service is there.
func installed(unit string) bool {
	path, want := cgroup.DropIn(unit)
	got, err := os.ReadFile(path)
	return err == nil && string(got) == want
}

func (a *app) detachCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "detach [SERVICE | CGROUP]...",
		Short: "take rules off that attach, or a service that was killed, has left",
		Long: `detach takes the rules off services and control groups, whether attach put them there
or a srcproxy serve, running or killed. One that runs puts its own back when it
reloads.`,
		Example: "  srcproxy detach asterisk.service\n  srcproxy detach --all",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(_ *cobra.Command, args []string) error { return a.detach(all, args) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "take off all there are")
	return cmd
}

func (a *app) detach(all bool, args []string) error {
	switch {
	case all && len(args) > 0:
		return usagef("--all is all of them; leave %s out, or --all", strings.Join(args, " and "))
	case !all && len(args) == 0:
		return usagef("from what? --all is all there are")
	}
	tree, err := cgroup.Mounted()
	if err != nil {
		return err
	}
	names, err := attach.Names(attach.Pins())
	if err != nil {
		return err
	}
	if all {
		args = names
	}
	detached := []string{} // [] in JSON
	var errs []error
	for _, name := range args {
		if err := detachOne(tree, name, names); err != nil {
			errs = append(errs, err)
			continue
		}
		detached = append(detached, name)
	}
	return errors.Join(a.printDetached(detached), errors.Join(errs...))
}

func detachOne(tree *cgroup.Tree, name string, names []string) error {
	err := attach.Detach(tree, attach.Pins(), name)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case len(names) == 0:
		return fmt.Errorf("nothing is attached to %s, and to nothing else", name)
	}
	slices.Sort(names)
	return fmt.Errorf("nothing is attached to %s; there are %s", name, strings.Join(names, ", "))
}

func (a *app) printDetached(names []string) error {
	if a.json {
		return a.printJSON(names)
	}
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s: detached\n", name)
	}
	return a.print(b.String())
}
