package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// maxEndpoints bounds the sockets of one listener.
const maxEndpoints = 10_000

// listenAddrs reads where l listens.
func (d *decoder) listenAddrs(n *node, l *Listener, taken []endpoint) []endpoint {
	for _, e := range d.strings(n) {
		a, r, ok := d.listenAddr(e, l.Kind)
		if !ok {
			continue
		}
		of := r
		if r.Lo == r.Hi {
			of = dialer.PortRange{}
		}
		switch {
		case len(l.Addrs) == 0:
			l.Ports = of
		case of != l.Ports:
			d.fault(e, "write a [[listen]] of its own for each range", "%s: the addresses of a listener have one range of ports; %s is another than that of %s",
				n.spec.name, r, l.defaultName())
			continue
		}
		l.Addrs = append(l.Addrs, netip.AddrPortFrom(a, r.Lo))
		taken = d.occupy(taken, endpoint{l.Kind == UDP, a, r, e})
	}
	if sockets := len(l.Addrs) * (int(l.Ports.Hi) - int(l.Ports.Lo) + 1); sockets > maxEndpoints {
		d.fault(n, "listen on fewer ports, or fewer addresses", "%s: each address and port is a socket; these are %d, and %d are allowed", n.spec.name, sockets, maxEndpoints)
	}
	return taken
}

// listenAddr reads an address to listen on, and its ports.
func (d *decoder) listenAddr(n *node, k Kind) (netip.Addr, dialer.PortRange, bool) {
	fail := func(hint string) (netip.Addr, dialer.PortRange, bool) {
		d.fault(n, hint, "%s: %q is no address to listen on", n.spec.name, n.text)
		return netip.Addr{}, dialer.PortRange{}, false
	}
	host, port, err := net.SplitHostPort(n.text)
	if err != nil {
		return fail(listenHint(n.text))
	}
	r, hint := listenPorts(port, k)
	if hint != "" {
		return fail(hint)
	}
	if host == "" {
		return netip.IPv6Unspecified(), r, true
	}
	a, err := netip.ParseAddr(host)
	switch {
	case host == "*":
		return fail(fmt.Sprintf("write %q for all addresses", ":"+port))
	case host == "localhost":
		return fail(fmt.Sprintf(`write an address: ["127.0.0.1:%s", "[::1]:%s"]`, port, port))
	case err != nil:
		return fail("write an address of this host; names are not resolved here")
	case a.IsMulticast():
		return fail("no flow has a multicast address at its end")
	}
	return a.Unmap(), r, true
}

// listenPorts reads a port, where 0 is any, or for a udp forward a range. If it cannot,
// it says what to do.
func listenPorts(s string, k Kind) (r dialer.PortRange, hint string) {
	if p, err := strconv.ParseUint(s, 10, 16); err == nil {
		return dialer.PortRange{Lo: uint16(p), Hi: uint16(p)}, ""
	}
	from, to, ok := strings.Cut(s, "-")
	lo, ok1 := parsePort(from)
	hi, ok2 := parsePort(to)
	switch {
	case k != UDP:
		return r, "a port is one number up to 65535; for several write a list"
	case !ok || !ok1 || !ok2:
		return r, `ports are numbers up to 65535: "127.0.0.1:5060", "127.0.0.1:10000-10099"`
	case lo > hi:
		return r, fmt.Sprintf("the lower port stands first: %s-%s", to, from)
	}
	return dialer.PortRange{Lo: lo, Hi: hi}, ""
}

func listenHint(s string) string {
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		a, err := netip.ParseAddr(s[:i])
		if _, ok := parsePort(s[i+1:]); ok && err == nil && a.Is6() {
			return fmt.Sprintf("put IPv6 addresses in brackets: \"[%s]%s\"", s[:i], s[i:])
		}
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return fmt.Sprintf("add the port: %q", net.JoinHostPort(a.String(), "1080"))
	}
	if _, ok := parsePort(s); ok {
		return fmt.Sprintf("write %q, or %q for all addresses", "127.0.0.1:"+s, ":"+s)
	}
	return `write "127.0.0.1:1080", "[2001:db8::1]:1080", or ":1080" for all addresses`
}
