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
	w := Way{RouteAnswer: o.answer}
	if !o.wrong() {
		return w, true
	}
	p, err := r.Policy()
	if err != nil {
		p = new(host.Policy) // it says how to cure it, and the fault is there all the same
	}
	w.Fault = o.fault(p)
	return w, true
}

// lookOut asks for the way to an outside address by a default route, or where none has
// one, for any way.
func lookOut(r Routing, s *dialer.Source, a netip.Addr) (o outlook, ok bool) {
	for _, dst := range outside(a.Is4()) {
		q := host.RouteQuery{Dst: dst, Src: a, Link: s.Device, Mark: s.Mark, Protocol: unix.IPPROTO_TCP}
		answer, err := r.Route(q)
		switch {
		case errors.Is(err, host.ErrForeign):
			return outlook{}, false
		case err != nil || answer.Type != host.RouteUnicast:
			continue
		}
		byDefault := answer.Route.Dst.IsValid() && answer.Route.Dst.Bits() == 0
		if !ok || byDefault {
			o, ok = outlook{query: q, answer: answer}, true
		}
		if byDefault {
			break
		}
	}
	return o, ok
}
