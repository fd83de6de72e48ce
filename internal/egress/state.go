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
	text   string     // its addresses as the configuration has them, or its link
	addr   netip.Addr // the one that it has now; not valid when it is a prefix, a range, or a link without one

	state  Condition
	reason error // nil while up
	here   bool  // it has an address
	since  time.Time
	seen   bool  // it has been up
	probe  error // what the last probe found
	way    Way
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
	if src.Interface != "" {
		for _, is4 := range []bool{true, false} {
			out = append(out, &state{place: place{src.Name, is4}, source: src, text: src.Interface})
		}
	}
	for _, a := range src.Addrs {
		x := one(a, a.String())
		x.addr = a
		out = append(out, x)
	}
	return out
}

// has reports whether a is an address of x.
func (x *state) has(a netip.Addr) bool {
	switch src := x.source; {
	case src.Prefix.IsValid():
		return src.Prefix.Contains(a)
	case src.First.IsValid():
		return within(src, a)
	}
	return x.addr == a
}

func within(src *dialer.Source, a netip.Addr) bool {
	return src.First.Is4() == a.Is4() && src.First.Compare(a) <= 0 && a.Compare(src.Last) <= 0
}

// judge brings x up to date, and reports whether that is worth telling.
func (x *state) judge(now *host.Snapshot, at time.Time) bool {
	moved := x.follow(now)
	c, reason := x.condition(now)
	x.reason = reason
	x.seen = x.seen || c == Up
	first := x.since.IsZero()
	if c == x.state && !first && !moved {
		return false
	}
	x.state, x.since = c, at
	return !first || c != Up
}

// follow takes the address that the link of x has now, and reports whether that is
// another one. What a probe found counts for the one before.
func (x *state) follow(now *host.Snapshot) (moved bool) {
	if x.source.Interface == "" {
		return false
	}
	a := now.LinkAddr(x.source.Interface, x.is4)
	if a == x.addr || !a.IsValid() { // gone: probe and name of the last one still tell something
		return false
	}
	x.addr, x.probe = a, nil
	return true
}

// condition returns what x is in now, and why.
func (x *state) condition(now *host.Snapshot) (Condition, error) {
	c, absence := x.absence(now)
	x.here = absence == nil
	switch {
	case !x.here:
		return c, absence
	case x.way.Fault != nil && !x.way.Partly:
		return Broken, x.way.Fault
	case x.probe != nil:
		return Down, x.probe
	}
	return Up, nil
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
	if src.Interface != "" && now.LinkAddr(src.Interface, x.is4) != x.addr || !x.addr.IsValid() {
		return x.away(), fmt.Errorf("%s %w", src.Interface, linkAbsence(now, src.Interface, x.is4))
	}
	if now.Local(x.addr) {
		return Up, nil
	}
	return x.away(), fmt.Errorf("%v %w", x.addr, whereabouts(now, x.addr))
}

// away is the condition of a source without an address.
func (x *state) away() Condition {
	if x.seen {
		return Down
	}
	return Waiting
}

// hides reports whether x is a family that its link never had, with y the other family
// of the same source. One of the two is shown in any case.
func (x *state) hides(y *state) bool {
	return x.source.Interface != "" && !x.seen && y.source == x.source && y.is4 != x.is4 && (y.seen || y.is4)
}

// where is the address of x in words.
func (x *state) where() string {
	if x.addr.IsValid() {
		return x.addr.String()
	}
	return x.text
}

func (x *state) status() Status {
	s := Status{Name: x.name, Addr: x.where(), Interface: x.source.Interface, Egress: x.way.Text, State: x.state, Since: x.since}
	if x.reason != nil {
		s.Reason = x.reason.Error()
	}
	return s
}
