package config

import (
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

// endpoint is an address with ports that a listener occupies, or that a forward sends
// from.
type endpoint struct {
	udp   bool
	addr  netip.Addr
	ports dialer.PortRange
	node  *node
}

// String returns address:port, or address:lo-hi.
func (e endpoint) String() string {
	s := netip.AddrPortFrom(e.addr, e.ports.Lo).String()
	if e.ports.Hi > e.ports.Lo {
		s += fmt.Sprintf("-%d", e.ports.Hi)
	}
	return s
}

// meets reports whether both have a protocol and a port in common. Port 0 is a free
// one, and so never in common.
func (e endpoint) meets(o endpoint) bool {
	return e.udp == o.udp && e.ports.Lo != 0 && e.ports.Lo <= o.ports.Hi && o.ports.Lo <= e.ports.Hi
}

// occupy adds an address to those in use, and reports one that another listener has:
// the kernel would refuse the second of them.
func (d *decoder) occupy(taken []endpoint, e endpoint) []endpoint {
	for _, t := range taken {
		if t.meets(e) && overlap(t.addr, e.addr) {
			d.fault(e.node, "choose another port, or remove one of the two",
				"%s: %s is taken by %s in line %d", e.node.spec.name, e, t, t.node.file.line(t.node.at))
			return taken
		}
	}
	return append(taken, e)
}

// sender reports a fixed sender that cannot be bound since a listener has its
// address. For UDP the wildcard address is no hindrance.
func (d *decoder) sender(s endpoint, taken []endpoint) bool {
	for _, t := range taken {
		if !t.meets(s) || !overlap(t.addr, s.addr) || t.udp && t.addr != s.addr {
			continue
		}
		d.fault(s.node, "let it listen on another address, such as 127.0.0.1, or on another port",
			"source_port: %s is where the listener in line %d listens, and so no sender", s, t.node.file.line(t.node.at))
		return true
	}
	return false
}

// overlap reports whether sockets on one port cannot have a and b.
func overlap(a, b netip.Addr) bool {
	v6 := netip.IPv6Unspecified()
	v4 := netip.IPv4Unspecified()
	return a == b || a == v6 || b == v6 || a == v4 && b.Is4() || b == v4 && a.Is4()
}
