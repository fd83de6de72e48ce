package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// Warnings returns what the file allows and its author may not have meant, in the
// order of the file. It looks at nothing but the file.
func (c *Config) Warnings() []Warning {
	w := warner{c: c, budget: 1 << 20}
	w.families()
	w.listeners()
	w.same()
	w.rules()
	w.attachments()
	w.shadowed()
	w.unused()
	slices.SortStableFunc(w.out, func(a, b Warning) int { return cmp.Compare(a.order, b.order) })
	return w.out
}

type warner struct {
	c      *Config
	out    []Warning
	budget int // of comparisons left for shadowed
}

// add warns at the place of what kind and name say.
func (w *warner) add(kind, name, hint, format string, args ...any) {
	n := w.c.marks[mark{kind, name}]
	if n == nil {
		return
	}
	e := n.file.place(n.keyAt)
	e.Message, e.Hint = fmt.Sprintf(format, args...), hint
	w.out = append(w.out, Warning(*e))
}

// families warns of a default, and of rules, that refuse a family.
func (w *warner) families() {
	for _, is4 := range []bool{true, false} {
		if u := w.c.Default; u != (dialer.Use{}) && !has(u, is4) {
			w.add("default", "", fmt.Sprintf("give %q an %s address, or leave it so if those flows shall fail", u, family(is4)),
				"the default %q has no %s address: %[2]s destinations that no rule names are refused", u, family(is4))
		}
	}
	for i := range w.c.Rules {
		w.ruleFamilies(i)
	}
}

func (w *warner) ruleFamilies(i int) {
	r := &w.c.Rules[i]
	uses := r.Map
	if r.Map == nil {
		uses = make(map[dialer.Match]dialer.Use, len(r.To))
		for _, m := range r.To {
			uses[m] = r.Use
		}
	}
	var refused []string
	for m, u := range uses {
		if p := m.Prefix(); p.IsValid() && u != (dialer.Use{}) && !has(u, p.Addr().Is4()) {
			refused = append(refused, fmt.Sprintf("%s from %s", p, u))
		}
	}
	if len(refused) > 0 {
		slices.Sort(refused)
		w.add("rule", ruleName(r, i), `name a source of that family, or say "deny"`,
			"the rule refuses flows for want of an address of their family: to %s", enumerate(refused))
	}
}

func ruleName(r *dialer.Rule, i int) string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("rule %d", i+1)
}

func (w *warner) listeners() {
	if len(w.c.Listen)+len(w.c.Attach) == 0 {
		w.add("default", "", `write [[listen]] with mixed = "127.0.0.1:1080"`, "there is no [[listen]], so nothing is served")
	}
	w.senders()
	for i := range w.c.Listen {
		l := &w.c.Listen[i]
		if at := slices.IndexFunc(l.Addrs, public); l.Kind.IsForward() && at >= 0 && len(l.Allow) == 0 {
			w.add("listener", l.Name, `write allow = ["PREFIX OF THE CLIENTS"]`,
				"everybody who reaches %s can use the forward to %s", l.Addrs[at], l.To)
		}
		if l.Kind == TCP && l.SourcePort != 0 {
			w.add("listener", l.Name, "leave source_port out unless the server asks for it",
				"with a fixed source_port %s can hold one connection at a time", l.To)
		}
		if l.Open && !slices.ContainsFunc(l.Addrs, public) {
			w.add("listener", l.Name, "remove the line", "open does nothing on loopback addresses")
		}
	}
}

// senders warns of forwards that have one fixed sender and one target: answers tell
// nothing of which of them they are for.
func (w *warner) senders() {
	for i := range w.c.Listen {
		l := &w.c.Listen[i]
		if len(l.sourcePorts()) == 0 || l.Use == nil {
			continue
		}
		if l.SourcePort != 0 && !l.Ports.IsZero() && l.To.Port != 0 {
			w.add("listener", l.Name, `write source_port = "same", or leave the port of to out`,
				"only one of the ports %s can have a client: all of them send from port %d to %s", l.Ports, l.SourcePort, l.To)
		}
		for j := range i {
			if o := &w.c.Listen[j]; l.clashes(o) {
				w.add("listener", l.Name, "give one of them another source_port, or let one listener have both addresses",
					"port %s of %s towards %s is also that of listener %q: only one of them can have a client", l.sourcePorts()[0], l.Use, l.To, o.Name)
				break
			}
		}
	}
}

// clashes reports whether l and o have a sender and a target in common, and nothing
// that tells their answers apart.
func (l *Listener) clashes(o *Listener) bool {
	if o.Use == nil || l.Use.Source != o.Use.Source || l.Kind != o.Kind || l.To.Name != o.To.Name || l.To.Addr != o.To.Addr {
		return false
	}
	if l.Share != "" && l.Share == o.Share {
		return false
	}
	return meet(l.sourcePorts(), o.sourcePorts()) && meet(l.targetPorts(), o.targetPorts())
}

func meet(a, b []dialer.PortRange) bool {
	return slices.ContainsFunc(a, func(x dialer.PortRange) bool {
		return slices.ContainsFunc(b, func(y dialer.PortRange) bool { return x.Lo <= y.Hi && y.Lo <= x.Hi })
	})
}

// rules warns of conditions that no flow can meet.
func (w *warner) rules() {
	for i := range w.c.Rules {
		r := &w.c.Rules[i]
		name := ruleName(r, i)
		if len(r.LocalPort) > 0 && !slices.ContainsFunc(w.c.Attach, byRules) {
			w.add("rule", name, "remove the rule, or leave local_port out",
				"the rule never matches: proxies and forwards know no local_port")
		}
		if len(r.User) > 0 && !slices.ContainsFunc(r.User, w.hasUser) {
			w.add("rule", name, "add it with: srcproxy passwd NAME", "the rule never matches: no users file of a listener has %s", quoted(r.User))
		}
		w.ruleListeners(r, name)
		if r.SourcePort != 0 && r.Protocol != "udp" {
			w.add("rule", name, `add protocol = "udp", or leave source_port out`,
				"with a fixed source_port TCP can hold one connection to each destination at a time")
		}
	}
}

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, s := range words {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, " or ")
}

// hasUser reports whether a users file has a line for the name.
func (w *warner) hasUser(name string) bool {
	for i := range w.c.Listen {
		for line := range bytes.Lines(w.c.Listen[i].Users) {
			if user, _, ok := bytes.Cut(line, []byte(":")); ok && string(user) == name {
				return true
			}
		}
	}
	return false
}

// ruleListeners warns of listeners that a rule names and that do not exist, or that
// skip the rules.
func (w *warner) ruleListeners(r *dialer.Rule, name string) {
	var known []string
	for i := range w.c.Listen {
		known = append(known, w.c.Listen[i].Name)
	}
	for _, s := range r.Listener {
		i := slices.Index(known, s)
		switch {
		case i < 0:
			w.add("rule", name, didYouMean(s, known, "known listeners:"), "no listener is named %q", s)
		case w.c.Listen[i].Use != nil:
			w.add("rule", name, "remove its use, or the rule", "listener %q has a use of its own and skips the rules", s)
		}
	}
}

// unused warns of sources and pools that nothing names.
func (w *warner) unused() {
	used := map[any]bool{}
	note := func(u dialer.Use) { used[u.Source], used[u.Pool] = true, true }
	note(w.c.Default)
	for i := range w.c.Rules {
		note(w.c.Rules[i].Use)
		for _, u := range w.c.Rules[i].Map {
			note(u)
		}
	}
	for i := range w.c.Listen {
		if u := w.c.Listen[i].Use; u != nil {
			note(*u)
		}
	}
	for i := range w.c.Attach {
		if u := w.c.Attach[i].Use; u != nil {
			note(*u)
		}
	}
	for _, p := range w.c.Pools {
		if !used[p] {
			w.add("pool", p.Name, "use it, or remove it", "nothing uses the pool %q", p.Name)
		}
		for _, m := range p.Of {
			used[m.Source] = true
		}
	}
	for _, s := range w.c.Sources {
		if !used[s] {
			w.add("source", s.Name, "use it, or remove it", "nothing uses the source %q", s.Name)
		}
	}
}
