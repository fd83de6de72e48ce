package main

import (
	"fmt"
	"strings"

	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/server"
)

// attachFindings returns what the kernel plane cannot do of the configuration, and what
// is in its way on this host.
func attachFindings(cfg *config.Config) []explain.Finding {
	if len(cfg.Attach) == 0 {
		return nil
	}
	var found []explain.Finding
	for i := range cfg.Attach {
		found = append(found, ruleFindings(cfg, i)...)
	}
	tree, err := cgroup.Mounted()
	if err != nil {
		return append(found, explain.Finding{Severity: explain.Warning, Position: cfg.Path, Text: err.Error()})
	}
	for i := range cfg.Attach {
		found = append(found, placeFindings(cfg, tree, &cfg.Attach[i])...)
		found = append(found, patternFindings(cfg, &cfg.Attach[i])...)
		found = append(found, ignoredFindings(cfg, &cfg.Attach[i])...)
		found = append(found, markFindings(cfg, &cfg.Attach[i])...)
	}
	return append(found, rightsFindings(cfg)...)
}

// ruleFindings tells what hooks cannot do of the rules for an [[attach]].
func ruleFindings(cfg *config.Config, i int) []explain.Finding {
	one := *cfg
	one.Attach = cfg.Attach[i : i+1]
	_, err := server.Entries(&one)
	if err == nil {
		return nil
	}
	name := cfg.Attach[i].Name()
	found := explain.FromError(err)
	for j := range found {
		f := &found[j]
		f.Position = cfg.Position("attach", name)
		f.Text = fmt.Sprintf("attach %s: %s", name, strings.TrimPrefix(f.Text, fmt.Sprintf("attach %s: ", name)))
		f.Hint = "give the [[attach]] a use of its own, or the rule a condition that does not hold there: service, or listener"
	}
	return found
}

// rightsFindings tells what this process may not do for any [[attach]].
func rightsFindings(cfg *config.Config) []explain.Finding {
	at := cfg.Position("attach", cfg.Attach[0].Name())
	var found []explain.Finding
	for _, err := range []error{cgroupbpf.Privileges(), attach.OnBPF(attach.Pins())} {
		if err != nil {
			found = append(found, explain.Finding{Severity: explain.Warning, Position: at, Text: err.Error()})
		}
	}
	return found
}

// patternFindings tells which names do not match for a although it resolves names.
func patternFindings(cfg *config.Config, a *config.Attach) []explain.Finding {
	patterns := cfg.Patterns()
	if !a.Resolve || len(patterns) == 0 {
		return nil
	}
	return []explain.Finding{{
		Severity: explain.Note,
		Position: cfg.Position("attach", a.Name()),
		Text:     fmt.Sprintf("attach %s: a pattern has no addresses that could be asked for, so these do not match there: %s", a.Name(), strings.Join(patterns, ", ")),
	}}
}

// ignoredFindings tells what of pools and sources does not count for a.
func ignoredFindings(cfg *config.Config, a *config.Attach) []explain.Finding {
	var found []explain.Finding
	for _, text := range cfg.Ignored(a) {
		found = append(found, explain.Finding{
			Severity: explain.Note,
			Position: cfg.Position("attach", a.Name()),
			Text:     fmt.Sprintf("attach %s: %s", a.Name(), text),
		})
	}
	return found
}

// markFindings tells which marks do not lead to their sources.
func markFindings(cfg *config.Config, a *config.Attach) []explain.Finding {
	found, err := server.MarkFindings(cfg, a)
	if err != nil {
		found = append(found, explain.Finding{Severity: explain.Warning, Position: cfg.Position("attach", a.Name()), Text: err.Error()})
	}
	return found
}

// placeOf returns where the rules of a are to hold.
func placeOf(tree *cgroup.Tree, a *config.Attach) cgroup.Place {
	if a.Service == "" {
		return cgroup.Place{Path: tree.Path(a.Cgroup)}
	}
	return cgroup.Place{Unit: a.Service}
}

// placeFindings tells where the rules of a are to hold, and what a service lacks for it.
func placeFindings(cfg *config.Config, tree *cgroup.Tree, a *config.Attach) []explain.Finding {
	f := explain.Finding{Severity: explain.Note, Position: cfg.Position("attach", a.Name())}
	path, err := tree.Find(placeOf(tree, a))
	switch {
	case err != nil:
		f.Severity, f.Text = explain.Warning, err.Error()
	case path == "":
		f.Text = fmt.Sprintf("%s is not there now; the rules hold as soon as it is", a.Name())
	}
	var found []explain.Finding
	if f.Text != "" {
		found = append(found, f)
	}
	if a.Service != "" && !installed(a.Service) {
		found = append(found, explain.Finding{
			Severity: explain.Warning,
			Position: f.Position,
			Text:     fmt.Sprintf("%s is started outside of its slice: after a restart its first packets may not be ruled", a.Service),
			Hint:     "this moves it there, as root:",
			Cure:     cgroup.DropInCommands(a.Service),
		})
	}
	return found
}
