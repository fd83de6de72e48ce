package explain

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// outside is addresses of no real network, to which mostly the default route leads: they
// are reserved for documentation and the like (RFC 5737, RFC 7600, RFC 3849, RFC 9637).
func outside(is4 bool) []netip.Addr {
	if is4 {
		return []netip.Addr{
			netip.AddrFrom4([4]byte{203, 0, 113, 1}),
			netip.AddrFrom4([4]byte{198, 51, 100, 1}),
			netip.AddrFrom4([4]byte{192, 0, 2, 1}),
			netip.AddrFrom4([4]byte{192, 0, 0, 8}),
		}
	}
	return []netip.Addr{netip.MustParseAddr("2001:db8:ffff::1"), netip.MustParseAddr("3fff:fff::1")}
}

// Outward returns how packets from a, an address of s, leave this host for the rest of
// the world, and what is wrong with that: they miss the gateway that the configuration
// names, or where that is not valid, leave by another link than the one that has a. It
// is false where there is no way, or where a is no address of this host.
func Outward(r Routing, h *host.Snapshot, s *dialer.Source, a, gateway netip.Addr) (Way, bool) {
	o, ok := lookOut(r, s, a)
	if !ok {
		return Way{}, false
	}
	o.host, o.gateway = h, gateway
	w, p := o.way(r)
	if w.Fault != nil {
		w.elsewhere = o.elsewhere(r, p)
	}
	return w, true
}

// Toward is Outward for one destination.
func Toward(r Routing, h *host.Snapshot, s *dialer.Source, a, gateway, dst netip.Addr) (Way, bool) {
	q := outwardQuery(s, a, dst)
	answer, err := r.Route(q)
	if err != nil {
		return Way{}, false
	}
	o := outlook{host: h, query: q, source: s, answer: answer, gateway: gateway}
	w, _ := o.way(r)
	return w, true
}

// Elsewhere returns a way to other destinations that is right, where that of w is not.
func (w *Way) Elsewhere() (host.RouteAnswer, bool) {
	if w.elsewhere == nil {
		return host.RouteAnswer{}, false
	}
	return *w.elsewhere, true
}

// way returns the way of o with its fault, and the policy that the cure comes from.
func (o *outlook) way(r Routing) (Way, *host.Policy) {
	w := Way{RouteAnswer: o.answer, to: o.query.Dst}
	if !o.wrong() {
		return w, nil
	}
	p, err := r.Policy()
	if err != nil {
		p = new(host.Policy) // it says how to cure it, and the fault is there all the same
	}
	w.Fault = o.fault(p)
	return w, p
}

// maxElsewhere bounds the routes that elsewhere asks about.
const maxElsewhere = 16

// elsewhere looks for a destination behind a gateway to which packets from the source go
// right: routes of their own lead to the networks of partners, say.
func (o *outlook) elsewhere(r Routing, p *host.Policy) *host.RouteAnswer {
	asked, owner := 0, o.owner().Name
	for _, x := range p.Routes {
		if x.Type != host.RouteUnicast || x.Link != owner || !x.Gateway.IsValid() || x.Dst.Bits() == 0 || x.Dst.Addr().Is4() != o.query.Src.Is4() {
			continue
		}
		if asked++; asked > maxElsewhere {
			break
		}
		other := *o
		other.query.Dst = x.Dst.Addr()
		if !x.Dst.IsSingleIP() {
			other.query.Dst = x.Dst.Addr().Next()
		}
		var err error
		if other.answer, err = r.Route(other.query); err == nil && !other.wrong() {
			return &other.answer
		}
	}
	return nil
}

// lookOut asks for the way to an outside address by a default route, or where none has
// one, for any way.
func lookOut(r Routing, s *dialer.Source, a netip.Addr) (o outlook, ok bool) {
	for _, dst := range outside(a.Is4()) {
		q := outwardQuery(s, a, dst)
		answer, err := r.Route(q)
		switch {
		case errors.Is(err, host.ErrForeign):
			return outlook{}, false
		case err != nil || answer.Type != host.RouteUnicast:
			continue
		}
		byDefault := answer.Route.Dst.IsValid() && answer.Route.Dst.Bits() == 0
		if !ok || byDefault {
			o, ok = outlook{query: q, source: s, answer: answer}, true
		}
		if byDefault {
			break
		}
	}
	return o, ok
}

func outwardQuery(s *dialer.Source, a, dst netip.Addr) host.RouteQuery {
	return host.RouteQuery{Dst: dst, Src: a, Link: s.Device, Mark: s.Mark, Protocol: unix.IPPROTO_TCP}
}
