package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/server"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	fix, yes, undo bool
	print          string
}

func (a *app) doctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "test whether flows can leave from each source, and cure what is in the way",
		Long: `doctor tests for each source whether its addresses are on this host, whether packets
from them leave by the link that has them, and whether replies come back; and beside
that ports, limits, name servers and who else has the ports of the listeners. It sends
nothing. Each cure is a list of commands that can be copied.

--fix asks about each cure, runs its commands and tests again. What it did is
remembered until the next boot: --undo takes it back, and --print writes it, and what
is still to be cured, as the configuration of what sets up the network at boot.
It ends with 1 when a test fails.`,
		Example: "  srcproxy doctor -c config.toml\n  srcproxy doctor -c config.toml --print netplan",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), &o) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.fix, "fix", false, "ask about each cure, run it, and test again")
	flags.BoolVar(&o.yes, "yes", false, "with --fix: do not ask")
	flags.BoolVar(&o.undo, "undo", false, "take back what --fix did")
	flags.StringVar(&o.print, "print", "", "write the cures for `WHAT`: "+strings.Join(explain.Persisters(), ", "))
	if err := cmd.RegisterFlagCompletionFunc("print", cobra.FixedCompletions(explain.Persisters(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag stands one line above
	}
	cmd.MarkFlagsMutuallyExclusive("fix", "undo", "print")
	return cmd
}

func (a *app) doctor(ctx context.Context, o *doctorOptions) error {
	switch {
	case o.yes && !o.fix:
		return usagef("--yes is for --fix")
	case o.print != "" && !slices.Contains(explain.Persisters(), o.print):
		return usagef("--print %s: there are %s", o.print, strings.Join(explain.Persisters(), ", "))
	case o.undo:
		return a.undo()
	}
	cfg, err := a.load()
	if err != nil {
		return err
	}
	d, err := a.examine(ctx, cfg)
	if err != nil {
		return err
	}
	if o.print != "" {
		return a.persist(o.print, d)
	}
	if o.fix {
		if d, err = a.fix(ctx, cfg, d, o.yes); err != nil {
			return err
		}
	}
	if a.json {
		err = a.printJSON(d)
	} else {
		err = a.print(d.Text(a.style()))
	}
	if err == nil && d.Failed() {
		return errFound
	}
	return err
}

// examine makes the diagnosis of this host.
func (a *app) examine(ctx context.Context, cfg *config.Config) (*explain.Diagnosis, error) {
	snapshot, err := host.Read()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	facts, err := host.ReadFacts()
	if err != nil {
		fmt.Fprintf(a.stderr, "srcproxy: some tests are left out: %v\n", err)
	}
	doctor := explain.Doctor{
		Config:        cfg,
		Host:          snapshot,
		Facts:         facts,
		Routing:       explain.Kernel{},
		Setting:       host.Setting,
		Holder:        host.PortHolder,
		Service:       a.servicePID(ctx, cfg),
		ReceiveBuffer: server.ReceiveBuffer,
	}
	d, err := doctor.Examine()
	if err != nil {
		return nil, err
	}
	d.Add("users", "", userErrors(cfg))
	if len(cfg.Attach) > 0 {
		d.Add("attach", "the rules can be put on "+attachNames(cfg), attachFindings(cfg))
	}
	d.Add("attach", "", attachedTwice(cfg))
	return d, nil
}

// answerTime is how long a service that has stopped is waited for.
const answerTime = 3 * time.Second

// servicePID returns the process that serves the very file of cfg, 0 where none says so. A
// service that has read it when it said something else is asked, too: a reload keeps
// its ports.
func (a *app) servicePID(ctx context.Context, cfg *config.Config) int {
	c, err := a.client()
	if err != nil {
		return 0
	}
	if cfg.Path != "" {
		if c.Config, err = filepath.Abs(cfg.Path); err != nil {
			return 0
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil || cfg.Path == "" && st.Config != "" {
		return 0
	}
	return st.PID
}

func attachNames(cfg *config.Config) string {
	var names []string
	for i := range cfg.Attach {
		names = append(names, cfg.Attach[i].Name())
	}
	return strings.Join(names, ", ")
}

// persist prints what was done and what is still to be done, for the next boot.
func (a *app) persist(kind string, d *explain.Diagnosis) error {
	list, err := recall()
	if err != nil {
		return err
	}
	for _, t := range d.Tests {
		list = append(list, t.Cure...)
	}
	snapshot, err := host.Read()
	if err != nil {
		return fmt.Errorf("read the addresses of this host: %w", err)
	}
	text, err := explain.Persist(kind, list, snapshot)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Kind string `json:"kind"`
			Text string `json:"text"`
		}{kind, text})
	}
	return a.print(text)
}

// attachedTwice tells of programs that two sets of rules are for: those of two [[attach]],
// or of one and of what an earlier srcproxy left there.
func attachedTwice(cfg *config.Config) []explain.Finding {
	var found []explain.Finding
	add := func(text string, cure ...string) {
		found = append(found, explain.Finding{Severity: explain.Warning, Text: text, Cure: cure})
	}
	names := make(map[string]string) // by path
	if tree, err := cgroup.Mounted(); err == nil {
		for i := range cfg.Attach {
			if path, err := tree.Find(placeOf(tree, &cfg.Attach[i])); err == nil && path != "" {
				names[path] = cfg.Attach[i].Name()
			}
		}
	}
	for inner, name := range names {
		for outer, other := range names {
			if strings.HasPrefix(inner, outer+"/") {
				add(fmt.Sprintf("%s is inside of %s: what runs there is ruled by both", name, other))
			}
		}
	}
	pinned, err := attach.Names(attach.Pins())
	if err != nil {
		return found // it is not for this user to see
	}
	for _, name := range pinned {
		if !slices.ContainsFunc(cfg.Attach, func(x config.Attach) bool { return x.Name() == name }) {
			add(fmt.Sprintf("rules are on %s, for which the configuration has no [[attach]]", name), "srcproxy detach "+name)
		}
	}
	slices.SortFunc(found, func(a, b explain.Finding) int { return strings.Compare(a.Text, b.Text) })
	return found
}
