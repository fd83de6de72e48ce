package config

import (
	"net/netip"
	"time"
)

// DNS says whom names are asked of.
type DNS struct {
	Servers []netip.AddrPort // none: those of resolv.conf
	Timeout time.Duration    // of one query to one server; zero: what resolv.conf says, or 3 s
	Cache   int              // answers that are remembered; zero: none
}

// system is the word for the servers of resolv.conf.
const system = "system"

func (d *decoder) dns(n *node) {
	if n != nil {
		d.mark(n, "dns", "")
	}
	k := d.keys(n, dnsTable)
	c := &d.config.DNS
	c.Servers = d.nameservers(k["servers"])
	c.Timeout = d.duration(k["timeout"], 100*time.Millisecond, 0)
	if v, ok := d.integer(k["cache"], 0, 1e7); ok {
		c.Cache = int(v)
	}
}

// nameservers reads a list of addresses, with or without a port; the word system alone
// is none.
func (d *decoder) nameservers(n *node) []netip.AddrPort {
	var servers []netip.AddrPort
	elements := d.strings(n)
	for _, e := range elements {
		if e.text != system {
			servers = d.nameserver(servers, e)
		} else if len(elements) > 1 {
			d.fault(e, `write the addresses alone, or "system" alone`, "servers: %q stands beside addresses", system)
		}
	}
	return servers
}

// nameserver adds one server.
func (d *decoder) nameserver(servers []netip.AddrPort, n *node) []netip.AddrPort {
	s, err := netip.ParseAddrPort(n.text)
	if a, err2 := netip.ParseAddr(n.text); err2 == nil {
		s, err = netip.AddrPortFrom(a, 53), nil
	}
	a := s.Addr().Unmap()
	if err != nil || s.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
		d.fault(n, `write "203.0.113.53", "203.0.113.53:53", "2001:db8::53" or "[2001:db8::53]:53"`,
			"servers: %q is not the address of a name server", n.text)
		return servers
	}
	return append(servers, netip.AddrPortFrom(a, s.Port()))
}
