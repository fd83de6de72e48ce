package explain

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

// How many rules that do not decide are listed before and after the one that does.
const (
	maxAbove = 10
	maxBelow = 3
)

// walk returns the way of f through the rules.
func (e *Explainer) walk(f dialer.Flow) Walk {
	switch {
	case e.Own != nil:
		return Walk{Steps: []Step{e.own()}}
	case e.Attach != nil && !e.Attach.ByRules():
		return Walk{Steps: []Step{e.attached()}}
	}
	var w Walk
	var last int
	matched := false
	for i, r := range e.Dialer.Table.Walk(f) {
		last = i + 1
		if matched = r.Matched; !matched && len(w.Steps) == maxAbove {
			w.Above++
			w.Steps = append(w.Steps[:0], w.Steps[1:]...)
		}
		w.Steps = append(w.Steps, step(i, r))
	}
	for i := range w.Steps { // of those left only: each takes a look at the whole file
		w.Steps[i].Position = e.Config.Position("rule", w.Steps[i].Rule)
	}
	if !matched && f.Dst.Addr().IsValid() {
		w.Steps = append(w.Steps, e.otherwise())
	}
	if !matched {
		return w
	}
	w.Steps[len(w.Steps)-1].Use = e.use(f, last-1)
	rules := e.Config.Rules
	for i := last; i < len(rules); i++ {
		if len(rules)-last > maxBelow+1 && i-last == maxBelow {
			w.Below = len(rules) - i
			break
		}
		s := Step{Number: i + 1, Rule: ruleName(rules[i].Name, i), Verdict: NotReached}
		s.Position = e.Config.Position("rule", s.Rule)
		w.Steps = append(w.Steps, s)
	}
	return w
}

func step(i int, r dialer.Reason) Step {
	s := Step{Number: i + 1, Rule: r.Rule, Verdict: NoMatch, Reason: r.Text}
	if r.Matched {
		s.Verdict = Matches
	}
	return s
}

// use is what rule i, which decides about f, says. In a map that is what the key says.
func (e *Explainer) use(f dialer.Flow, i int) string {
	if r := &e.Config.Rules[i]; r.Map == nil {
		return r.Use.String()
	}
	d := e.Dialer.Table.Lookup(f)
	if errors.Is(d.Err, dialer.ErrDenied) {
		// The key may be a name, and its address denied by another rule.
		f.Dst = netip.AddrPortFrom(netip.Addr{}, f.Dst.Port())
		if named := e.Dialer.Table.Lookup(f); named.Index == i {
			d = named
		}
	}
	return d.Use.String()
}

// own is the one step of a forward that does not ask the rules.
func (e *Explainer) own() Step {
	s := Step{Rule: e.Own.Name, Verdict: Matches, Reason: "a forward's own use comes before the rules"}
	s.Position = e.Config.Position("listener", e.Own.Name)
	if e.Own.Use != nil {
		s.Use = e.Own.Use.String()
	}
	return s
}

func (e *Explainer) otherwise() Step {
	return Step{
		Rule:     "default",
		Verdict:  Matches,
		Reason:   "no rule does",
		Use:      e.Config.Default.String(),
		Position: e.Config.Position("default", ""),
	}
}

func ruleName(name string, i int) string {
	if name != "" {
		return name
	}
	return fmt.Sprintf("rule %d", i+1)
}
