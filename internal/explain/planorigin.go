package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// origin is where flows to a destination leave from.
type origin struct {
	addr    netip.Addr // not valid where they are refused, or the kernel chooses
	link    string     // the one that they belong to; empty: any
	gateway netip.Addr // the one that the configuration names
}

func (r *routePlan) origin(k *kernelRule, d dest) origin {
	is4 := d.prefix.Addr().Is4()
	u := d.to.use
	in := func(format string, args ...any) {
		r.gap(k, true, "%s: %s", u, fmt.Sprintf(format, args...))
	}
	switch {
	case u.Same:
		r.gap(k, false, "same is the address that a client connected to; there is none, and such flows are refused")
	case u.Pool != nil:
		return r.firstOf(u.Pool, is4, in)
	case u.Source != nil:
		if d.to.port != 0 {
			in("the local port is the program's own, not %d", d.to.port)
		}
		return r.originOf(u.Source, is4, in)
	}
	return origin{}
}

// firstOf returns the first member that routes can have, and says which others they lack.
// A route has one src for all its next hops, so that it cannot lead by several sources.
func (r *routePlan) firstOf(p *dialer.Pool, is4 bool, in func(string, ...any)) (first origin) {
	taken := ""
	var others []string
	for _, m := range p.Of {
		switch {
		case m.Source.Interface == "" && !sourceOf(m.Source, is4).IsValid():
		case taken == "":
			if first = r.originOf(m.Source, is4, in); first.addr.IsValid() {
				taken = m.Source.Name
			}
		default:
			others = append(others, m.Source.Name)
		}
	}
	if taken == "" {
		in("none of its members has an %s address that routes can have, so its flows are refused", familyName(is4))
	} else if others != nil {
		in("a route has one source: for %s always %s, and never %s", familyName(is4), taken, strings.Join(others, ", "))
	}
	return first
}

func familyName(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}

func (r *routePlan) originOf(s *dialer.Source, is4 bool, in func(string, ...any)) origin {
	o := origin{addr: r.addressOf(s, is4, in), link: s.Device, gateway: r.cfg.Options(s.Name).Gateway(is4)}
	if owner, ok := r.host.OwnerLink(o.addr); ok && owner.Carries() && o.link == "" {
		o.link = owner.Name
	}
	if s.Mark != 0 {
		in("packets have no mark, which other rules of ip-rule(8) may ask for")
	}
	return o
}

// addressOf returns the address of the family that routes can have, and says what they
// cannot. The kernel takes no src that is not here.
func (r *routePlan) addressOf(s *dialer.Source, is4 bool, in func(string, ...any)) netip.Addr {
	if !s.Ports.IsZero() {
		in("the local ports are the kernel's own, not %v", s.Ports)
	}
	a := sourceOf(s, is4)
	switch {
	case s.Interface != "":
		a = r.host.LinkAddr(s.Interface, is4)
		in("always the address that %s has now, %v", s.Interface, a)
	case !a.IsValid():
	case s.Prefix.IsValid() || s.First.IsValid():
		if a = r.firstHere(s, is4); a.IsValid() {
			in("always %v", a)
		} else {
			in("none of its addresses is on an interface, so its flows are refused")
		}
	case !r.canBeSrc(a):
		in("%v is not on an interface, so its flows are refused", a)
		return netip.Addr{}
	}
	return a
}

// firstHere returns the first address out of a prefix or range that can be the src of
// a route.
func (r *routePlan) firstHere(s *dialer.Source, is4 bool) netip.Addr {
	var best netip.Addr
	for _, x := range r.host.Addresses() {
		inRange := s.First.IsValid() && s.First.Compare(x.Addr) <= 0 && x.Addr.Compare(s.Last) <= 0
		if x.Addr.Is4() == is4 && (inRange || s.Prefix.Contains(x.Addr)) && r.canBeSrc(x.Addr) && (!best.IsValid() || x.Addr.Less(best)) {
			best = x.Addr
		}
	}
	return best
}

// canBeSrc reports whether the kernel takes a as the src of a route: an IPv6 address has
// to be on an interface, an IPv4 one just local (ipv6_chk_addr, fib_valid_prefsrc).
func (r *routePlan) canBeSrc(a netip.Addr) bool {
	if !r.host.Local(a) {
		return false
	}
	return a.Is4() || slices.ContainsFunc(r.host.Addresses(), func(x host.Address) bool { return x.Addr == a })
}
