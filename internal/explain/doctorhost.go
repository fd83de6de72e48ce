package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
)

// ports tests whether each source has the local ports that it is to have.
func (x *examination) ports() {
	lo, hi := x.Facts.PortLo, x.Facts.PortHi
	if lo == 0 {
		return
	}
	start := len(x.Tests)
	for _, s := range x.Config.AllSources() {
		if s.Ports.IsZero() || lo <= s.Ports.Lo && s.Ports.Hi <= hi {
			x.portsReach(s, lo, hi)
			continue
		}
		wider := [2]uint16{min(lo, s.Ports.Lo), max(hi, s.Ports.Hi)}
		cure := changeSetting("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", lo, hi), fmt.Sprintf("%d %d", wider[0], wider[1]))
		x.add(Failing, s.Name, []Command{cure}, "its ports %v are not all in net.ipv4.ip_local_port_range, %d-%d: dials from it fail", s.Ports, lo, hi)
		lo, hi = wider[0], wider[1] // as it is after that
	}
	if len(x.Tests) == start {
		x.add(Fine, "ports", nil, "%d ports per source and destination, limits stay below it", int(hi)-int(lo)+1)
	}
}

// portsReach compares the limit of a source with the ports that it has.
func (x *examination) portsReach(s *dialer.Source, lo, hi uint16) {
	if !s.Ports.IsZero() {
		lo, hi = s.Ports.Lo, s.Ports.Hi
	}
	limit, n := x.Config.Options(s.Name).Limit.Connections, int(hi)-int(lo)+1
	if limit == 0 {
		limit = x.Config.Limits.PerSource.Connections
	}
	if limit > n && sourceHasOneAddress(s) {
		x.add(Doubt, s.Name, nil, "its limit of %d connections is above the %d ports that it has to one destination", limit, n)
	}
}

// sourceHasOneAddress reports whether all flows of a family share the ports.
func sourceHasOneAddress(s *dialer.Source) bool { return !s.Prefix.IsValid() && !s.First.IsValid() }

// limits tests the limits and rights of this process.
func (x *examination) limits() {
	enough := fmt.Sprintf("%d descriptors are enough for %d connections", x.Facts.Files, max(x.Facts.Files-otherFiles, 0)/2)
	x.check("limits", enough, (*checker).descriptors, (*checker).bounds, func(c *checker) {
		for _, s := range x.Config.AllSources() {
			c.reached(x.Config.Options(s.Name).Limit.Connections, place{"source", s.Name}, fmt.Sprintf("source %q: limit", s.Name))
		}
	})
	x.check("rights", "", (*checker).privilegedPorts, (*checker).probes, func(c *checker) {
		for _, s := range x.Config.AllSources() {
			c.way(s, place{"source", s.Name})
		}
	})
}

// names tests who is asked for names.
func (x *examination) names() {
	table, err := x.Config.Table()
	if err != nil {
		x.add(Failing, "rules", nil, "%v", err)
		return
	}
	fine := "queries leave from the sources that the rules choose"
	if !slices.ContainsFunc(x.Config.Listen, resolves) {
		fine = "nobody has to resolve any"
	}
	x.check("names", fine, func(c *checker) { c.nameservers(table) })
}

// maxHolders bounds the ports that others are asked for.
const maxHolders = 256

// listeners tests whether others have the ports that are to be listened on, or that
// forwards send from.
func (x *examination) listeners() {
	start, n := len(x.Tests), 0
	for i := range x.Config.Listen {
		l := &x.Config.Listen[i]
		network := "tcp"
		if l.Kind == config.UDP {
			network = "udp"
		}
		for a := range l.Endpoints() {
			if n++; n <= maxHolders {
				x.held(l.Name, network, a)
			}
		}
		for _, a := range fixedPorts(l) {
			x.held(l.Name, network, a)
		}
	}
	if len(x.Tests) == start && n > 0 {
		x.add(Fine, "listeners", nil, "no other program has their ports")
	}
}

// fixedPorts returns where a forward sends from, where that is one port.
func fixedPorts(l *config.Listener) []netip.AddrPort {
	if l.Kind != config.UDP || l.SourcePort == 0 || l.Use == nil || l.Use.Source == nil {
		return nil // a TCP port has one connection for each target, and is free for others
	}
	var out []netip.AddrPort
	for _, a := range l.Use.Source.Addrs {
		out = append(out, netip.AddrPortFrom(a, l.SourcePort))
	}
	return out
}

// held tests whether another program has a port. The service of this configuration may.
func (x *examination) held(listener, network string, a netip.AddrPort) {
	if !a.Addr().IsUnspecified() && !x.Host.Local(a.Addr()) {
		x.absent(listener, []Command{x.checker.bring(a.Addr())}, "%v is on no interface of this host; it is listened on once it is there", a.Addr())
		return
	}
	h, taken := x.Holder(network, a)
	switch {
	case !taken || x.Service != 0 && h.Is(x.Service):
	case h.PID == 0, x.Service == 0 && h.Command == "srcproxy": // that may have no socket to be asked by
		x.add(Doubt, listener, nil, "%s port %v is held by %v; unless that serves this file, it cannot be opened", network, a, h)
	default:
		x.add(Failing, listener, nil, "%s port %v is held by %v", network, a, h)
	}
}

// buffers tests whether the sockets of UDP forwards get the memory that they ask for.
func (x *examination) buffers() {
	const name = "net.core.rmem_max"
	most := x.number(name)
	if most == 0 || !slices.ContainsFunc(x.Config.Listen, func(l config.Listener) bool { return l.Kind == config.UDP }) {
		return // in a namespace it may not be readable
	}
	if most >= x.ReceiveBuffer {
		x.add(Fine, "buffers", nil, "UDP forwards get the %d bytes that they ask for", x.ReceiveBuffer)
		return
	}
	cure := changeSetting(name, strconv.Itoa(most), strconv.Itoa(x.ReceiveBuffer))
	x.add(Doubt, "buffers", []Command{cure}, "the kernel lends a UDP forward %d bytes for datagrams that wait, and not the %d that it asks for (unless it has CAP_NET_ADMIN): bursts are lost", most, x.ReceiveBuffer)
}

// nonlocal tests whether the kernel plane may use IPv6 addresses that are local only by a
// route: hooks have no IPV6_FREEBIND.
func (x *examination) nonlocal() {
	const name = "net.ipv6.ip_nonlocal_bind"
	if len(x.Config.Attach) == 0 || x.number(name) != 0 {
		return
	}
	var cure []Command
	for _, s := range x.Config.AllSources() {
		i := slices.IndexFunc(s.Addrs, func(a netip.Addr) bool { return a.Is6() && x.Host.ByRoute(a) })
		if i < 0 || !x.attached(s) {
			continue
		}
		if cure == nil {
			cure = []Command{changeSetting(name, "0", "1")}
		}
		x.add(Failing, s.Name, cure, "%v is on no interface, and local by a route alone: attached programs cannot connect from it while net.ipv6.ip_nonlocal_bind is 0", s.Addrs[i])
	}
}

// attached reports whether attached programs may use s.
func (x *examination) attached(s *dialer.Source) bool {
	return slices.ContainsFunc(x.Config.Attach, func(a config.Attach) bool { return a.ByRules() || uses(*a.Use, s) })
}
