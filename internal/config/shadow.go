package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// shadowed warns of rules that never match since an earlier one takes all their
// flows. It gives up on files so large that the comparison would take seconds.
func (w *warner) shadowed() {
	names := false // whether a rule before decides by name
	var before []condition
	for j := range w.c.Rules {
		b := condition{&w.c.Rules[j], slices.Collect(maps.Keys(w.c.Rules[j].Map))}
		if i := w.shadow(before, b, names); i >= 0 {
			first := ruleName(before[i].Rule, i)
			w.add("rule", ruleName(b.Rule, j), "move it up, above that one, or remove it",
				"the rule never matches: %q in line %d takes all its flows", first, w.line(first))
		}
		names = names || slices.ContainsFunc(b.To, isName) || slices.ContainsFunc(b.keys, isName)
		before = append(before, b)
	}
}

// condition is a rule with the keys of its map.
type condition struct {
	*dialer.Rule
	keys []dialer.Match
}

// shadow returns the first rule before b that takes all its flows, or -1.
func (w *warner) shadow(before []condition, b condition, names bool) int {
	for i, a := range before {
		w.budget--
		if w.budget < 0 {
			break
		}
		if w.covers(a, b) && (a.targeted() || !names || !b.deniesPrefix()) {
			return i
		}
	}
	return -1
}

func isName(m dialer.Match) bool { return !m.Prefix().IsValid() }

func (w *warner) line(rule string) int {
	n := w.c.marks[mark{"rule", rule}]
	return n.file.line(n.keyAt)
}

// targeted reports whether a rule has a condition on the destination.
func (c condition) targeted() bool { return len(c.To) > 0 || c.Map != nil }

// deniesPrefix reports whether c denies by address. Such a rule is asked once more
// about flows that a name decided, so that no rule without a destination hides it.
func (c condition) deniesPrefix() bool {
	denies := func(m dialer.Match, u dialer.Use) bool { return !isName(m) && u == (dialer.Use{}) }
	for m, u := range c.Map {
		if denies(m, u) {
			return true
		}
	}
	return c.Map == nil && slices.ContainsFunc(c.To, func(m dialer.Match) bool { return denies(m, c.Use) })
}

// covers reports whether a matches each flow that b matches. It may miss some that
// do, and never finds one that does not.
func (w *warner) covers(a, b condition) bool {
	return (a.Protocol == "" || a.Protocol == b.Protocol) &&
		coversAll(w, a.User, b.User, func(x, y string) bool { return x == y }) &&
		coversAll(w, a.Listener, b.Listener, func(x, y string) bool { return x == y }) &&
		coversAll(w, a.Service, b.Service, func(x, y string) bool { return x == y }) &&
		coversAll(w, a.Ports, b.Ports, coversPorts) &&
		coversAll(w, a.LocalPort, b.LocalPort, coversPorts) &&
		coversAll(w, a.Client, b.Client, coversPrefix) &&
		w.coversTo(a.To, b) &&
		w.coversTo(a.keys, b)
}

// coversTo reports whether the destinations a hold for each flow of b.
func (w *warner) coversTo(a []dialer.Match, b condition) bool {
	return coversAll(w, a, b.To, coversTarget) || coversAll(w, a, b.keys, coversTarget)
}

// coversAll reports whether the condition a, a list, holds where b does. An empty
// list holds always.
func coversAll[E any](w *warner, a, b []E, covers func(a, b E) bool) bool {
	if len(a) == 0 {
		return true
	}
	for _, y := range b {
		w.budget -= len(a)
		if w.budget < 0 || !slices.ContainsFunc(a, func(x E) bool { return covers(x, y) }) {
			return false
		}
	}
	return len(b) > 0
}

func coversPorts(a, b dialer.PortRange) bool { return a.Lo <= b.Lo && b.Hi <= a.Hi }

func coversPrefix(a, b netip.Prefix) bool {
	return a.Bits() <= b.Bits() && a.Contains(b.Addr())
}

func coversTarget(a, b dialer.Match) bool {
	if a.Prefix().IsValid() || b.Prefix().IsValid() {
		return a.Prefix().IsValid() && b.Prefix().IsValid() && coversPrefix(a.Prefix(), b.Prefix())
	}
	if a == b {
		return true
	}
	x, y := a.String(), b.String()
	switch {
	case strings.HasPrefix(x, "*."): // what y names must lie below: it ends in x's name, and is not x's name itself
		return strings.HasSuffix(y, x[1:]) && y != x[1:]
	case strings.HasPrefix(x, "."):
		return y == x[1:] || strings.HasSuffix(y, x)
	}
	return false
}
