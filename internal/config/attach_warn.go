package config

import (
	"fmt"
	"slices"

	"github.com/srcproxy/srcproxy/dialer"
)

func byRules(a Attach) bool { return a.ByRules() }

// Patterns returns the patterns of names that stand in rules, sorted: "*.a.example".
func (c *Config) Patterns() []string {
	return slices.DeleteFunc(c.Names(), func(s string) bool { return s[0] != '*' && s[0] != '.' })
}

// Names returns the names that stand in rules, sorted, and the patterns of names.
func (c *Config) Names() []string {
	var out []string
	for i := range c.Rules {
		for _, m := range slices.Concat(c.Rules[i].To, matches(c.Rules[i].Map)) {
			if isName(m) {
				out = append(out, m.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Ignored returns what pools and sources that the programs of a may leave by ask for, and
// hooks do not do although nothing goes a wrong way for that.
func (c *Config) Ignored(a *Attach) []string {
	var out []string
	for _, u := range c.usesOf(a) {
		if u.Pool != nil && u.Pool.Retry {
			out = append(out, fmt.Sprintf("pool %q: retry does nothing there: when the source that was picked has no free port, the connect fails", u.Pool.Name))
		}
		for _, s := range sourcesOf(u) {
			if c.Options(s.Name).Limit != (Bound{}) || c.Limits.PerSource != (Bound{}) {
				out = append(out, fmt.Sprintf("source %q: its limits do not count there: the kernel plane counts no flows", s.Name))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// usesOf returns what may decide for the programs of a.
func (c *Config) usesOf(a *Attach) []dialer.Use {
	if !a.ByRules() {
		return []dialer.Use{*a.Use}
	}
	uses := []dialer.Use{c.Default}
	for i := range c.Rules {
		r := &c.Rules[i]
		if len(r.Client)+len(r.User)+len(r.Listener) > 0 || len(r.Service) > 0 && !slices.Contains(r.Service, a.Service) {
			continue
		}
		uses = append(uses, r.Use)
		for _, u := range r.Map {
			uses = append(uses, u)
		}
	}
	return uses
}

// attachments warns of what the rules say and the kernel does not know: it sees
// addresses and ports, and no names, clients, users or listeners.
func (w *warner) attachments() {
	for j := range w.c.Rules {
		r := &w.c.Rules[j]
		for _, s := range r.Service {
			w.ruleService(s, ruleName(r, j))
		}
		if len(r.Client)+len(r.User)+len(r.Listener) == 0 {
			w.ruleNames(r, ruleName(r, j))
		}
	}
}

// ruleService warns of a service that has no rules, or other ones.
func (w *warner) ruleService(service, rule string) {
	var known []string
	for _, a := range w.c.Attach {
		if a.Service != "" {
			known = append(known, a.Service)
		}
	}
	i := slices.IndexFunc(w.c.Attach, func(a Attach) bool { return a.Service == service })
	switch {
	case i < 0 && len(known) == 0:
		w.add("rule", rule, "write [[attach]] with service = \""+service+"\"", "no [[attach]] is for the service %q", service)
	case i < 0:
		w.add("rule", rule, didYouMean(service, known, "known services:"), "no [[attach]] is for the service %q", service)
	case !w.c.Attach[i].ByRules():
		w.add("rule", rule, "remove its use, or the rule", "the [[attach]] of %s has a use of its own and skips the rules", service)
	}
}

// ruleNames warns of a rule whose targets are names.
func (w *warner) ruleNames(r *dialer.Rule, name string) {
	names := slices.DeleteFunc(slices.Concat(r.To, matches(r.Map)), func(m dialer.Match) bool { return !isName(m) })
	if len(names) == 0 {
		return
	}
	unresolved := func(a Attach) bool { return a.ByRules() && !a.Resolve }
	if i := slices.IndexFunc(w.c.Attach, unresolved); i >= 0 {
		w.add("attach", w.c.Attach[i].Name(), `write names = "resolve", or name addresses in the rule`,
			"the kernel sees addresses only: the names of rule %q do not match here", name)
	}
}

func matches(m map[dialer.Match]dialer.Use) []dialer.Match {
	out := make([]dialer.Match, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
