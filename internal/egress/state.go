package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// state is what is known of one place. Sources.mu guards it.
type state struct {
	place
	source *dialer.Source
	text   string // its address, prefix or range

	state  Condition
	reason error // nil while up
	since  time.Time
	seen   bool  // it has been up
	probe  error // what the last probe found
}

// statesOf returns a state for each family of src, not judged yet.
func statesOf(src *dialer.Source) []*state {
	one := func(a netip.Addr, text string) *state {
		return &state{place: place{src.Name, a.Is4()}, source: src, text: text}
	}
	switch {
	case src.Prefix.IsValid():
		return []*state{one(src.Prefix.Addr(), src.Prefix.Masked().String())}
	case src.First.IsValid():
		return []*state{one(src.First, fmt.Sprintf("%v-%v", src.First, src.Last))}
	}
	var out []*state
	for _, a := range src.Addrs {
		out = append(out, one(a, a.String()))
	}
	return out
}

// addr returns the one address of x; the zero Addr when it is a prefix or a range.
func (x *state) addr() netip.Addr {
	for _, a := range x.source.Addrs {
		if a.Is4() == x.is4 {
			return a
		}
	}
	return netip.Addr{}
}

// has reports whether a is an address of x.
func (x *state) has(a netip.Addr) bool {
	switch src := x.source; {
	case src.Prefix.IsValid():
		return src.Prefix.Contains(a)
	case src.First.IsValid():
		return within(src, a)
	}
	return x.addr() == a
}

func within(src *dialer.Source, a netip.Addr) bool {
	return src.First.Is4() == a.Is4() && src.First.Compare(a) <= 0 && a.Compare(src.Last) <= 0
}

// judge brings x up to date, and reports whether that is worth telling.
func (x *state) judge(now *host.Snapshot, at time.Time) bool {
	c, reason := x.condition(now)
	x.reason = reason
	x.seen = x.seen || c == Up
	first := x.since.IsZero()
	if c == x.state && !first {
		return false
	}
	x.state, x.since = c, at
	return !first || c != Up
}

func (x *state) condition(now *host.Snapshot) (Condition, error) {
	c, reason := x.absence(now)
	if reason == nil && x.probe != nil {
		return Down, x.probe
	}
	return c, reason
}

// absence tells whether x has an address that can be used, and if not why.
func (x *state) absence(now *host.Snapshot) (Condition, error) {
	src := x.source
	switch {
	case src.FreeBind:
		return Up, nil
	case src.Prefix.IsValid():
		if now.Covers(src.Prefix) {
			return Up, nil
		}
		return Broken, fmt.Errorf("%v has no local route, so that answers do not arrive (%s)", src.Prefix.Masked(), addLocalRoute(src.Prefix))
	case src.First.IsValid():
		if now.Local(src.First) || slices.ContainsFunc(now.Addresses(), func(a host.Address) bool { return within(src, a.Addr) && now.Local(a.Addr) }) {
			return Up, nil
		}
		return x.away(), fmt.Errorf("no address of %s is on this host", x.text)
	}
	a := x.addr()
	if now.Local(a) {
		return Up, nil
	}
	return x.away(), fmt.Errorf("%v %w", a, whereabouts(now, a))
}

// away is the condition of a source without an address.
func (x *state) away() Condition {
	if x.seen {
		return Down
	}
	return Waiting
}

// refusal returns what keeps x from being used although its address may be here.
func (x *state) refusal() error {
	if x.state == Up {
		return nil
	}
	return x.probe
}

func (x *state) status() Status {
	s := Status{Name: x.name, Addr: x.text, State: x.state, Since: x.since}
	if x.reason != nil {
		s.Reason = x.reason.Error()
	}
	return s
}
