package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/hostname"
)

// Target is where a forward goes: a name or an address, and a port.
type Target struct {
	Name string     // in lower case; empty when Addr is set
	Addr netip.Addr // not valid when Name is set
	Port uint16     // 0: the port that the client asked; udp forwards alone
}

// String returns host:port, with IPv6 addresses in brackets, or the host alone when
// the target keeps the port.
func (t Target) String() string {
	switch {
	case t.Name != "" && t.Port == 0:
		return t.Name
	case t.Name != "":
		return net.JoinHostPort(t.Name, strconv.Itoa(int(t.Port)))
	case t.Port == 0:
		return t.Addr.String()
	}
	return netip.AddrPortFrom(t.Addr, t.Port).String()
}

// At returns where a forward sends what a client sends to the port asked, and from
// which port: 0 is a free one.
func (l *Listener) At(asked uint16) (to Target, sourcePort uint16) {
	to, sourcePort = l.To, l.SourcePort
	if to.Port == 0 {
		to.Port = asked
	}
	if l.SamePort {
		sourcePort = asked
	}
	return to, sourcePort
}

// sourcePorts returns the ports that a forward sends from; none when they are free.
func (l *Listener) sourcePorts() []dialer.PortRange {
	var out []dialer.PortRange
	switch {
	case l.SourcePort != 0:
		out = append(out, dialer.PortRange{Lo: l.SourcePort, Hi: l.SourcePort})
	case l.SamePort:
		out = l.askedPorts()
	}
	return out
}

// askedPorts returns the ports that clients can ask.
func (l *Listener) askedPorts() []dialer.PortRange {
	var out []dialer.PortRange
	for i := range l.Addrs {
		if r := l.portsAt(i); !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// targetPorts returns the ports that a forward sends to.
func (l *Listener) targetPorts() []dialer.PortRange {
	if l.To.Port == 0 {
		return l.askedPorts()
	}
	return []dialer.PortRange{{Lo: l.To.Port, Hi: l.To.Port}}
}

// listensAt reports whether l has the address, and of a target without a port any port
// of it.
func (l *Listener) listensAt(a netip.Addr, port uint16) bool {
	for i := range l.Addrs {
		if l.Addrs[i].Addr() == a && (port == 0 || l.portsAt(i).Contains(port)) {
			return true
		}
	}
	return false
}

// anyPort reports whether the kernel chooses the port of one of the addresses.
func (l *Listener) anyPort() bool {
	return slices.ContainsFunc(l.Addrs, func(a netip.AddrPort) bool { return a.Port() == 0 })
}

// forward reads the keys of a forward.
func (d *decoder) forward(n *node, k map[string]*node, l *Listener) {
	if k["to"] == nil {
		d.faultKey(n, `write to = "HOST:PORT"`, "the %s forward does not say where to", l.Kind)
	} else {
		l.To, _ = d.target(k["to"], l)
	}
	if l.To.Addr.IsValid() && l.listensAt(l.To.Addr, l.To.Port) {
		d.fault(k["to"], "write the address of the server", "to: %s is this listener itself", l.To)
	}
	d.sourcePort(k["source_port"], l)
	if use := k["use"]; use != nil {
		d.forwardUse(use, k, l)
	} else if len(l.sourcePorts()) > 0 {
		d.faultKey(k["source_port"], `add use = "NAME", or write source_port in a rule`, "source_port needs a use: the address that has the port")
	}
	if l.Kind == UDP {
		d.share(k, l)
	}
}

// sourcePort reads a fixed port, or "same".
func (d *decoder) sourcePort(n *node, l *Listener) {
	switch {
	case n == nil || n.kind != textKind || n.text != "same":
		l.SourcePort = d.port(n)
	case l.Kind != UDP:
		d.fault(n, "write the port as an integer", `source_port: "same" is for udp forwards; this is %s`, l.Kind)
	case l.anyPort():
		d.fault(n, "listen on a port of your choice", `source_port: "same" is not known before a client asks, since this listener takes any port`)
	default:
		l.SamePort = true
	}
}

// forwardUse reads the use of a forward.
func (d *decoder) forwardUse(n *node, k map[string]*node, l *Listener) {
	u, ok := d.use(n)
	switch {
	case !ok:
		return
	case u == (dialer.Use{}):
		d.fault(n, "remove the listener", "use: a forward that refuses everything is no use")
		return
	case u.Source != nil && u.Source.Interface == "" && len(addrsOf(u.Source)) == 0:
		return // in error
	case l.To.Addr.IsValid() && !has(u, l.To.Addr.Is4()):
		d.fault(n, "name a source that has one", "use: %q has no %s address, and the target %s is one", u, family(l.To.Addr.Is4()), l.To.Addr)
	}
	l.Use = &u
	for _, r := range l.sourcePorts() {
		d.fixedPort(k["source_port"], n, u, r)
		if u.Source == nil {
			continue
		}
		for _, a := range u.Source.Addrs {
			d.senders = append(d.senders, endpoint{l.Kind == UDP, a, r, k["source_port"]})
		}
	}
}

// target reads host and port of a forward; a udp forward may leave the port out.
func (d *decoder) target(n *node, l *Listener) (Target, bool) {
	s, ok := d.text(n)
	if !ok {
		return Target{}, false
	}
	host, port, ok := d.hostPort(n, s, l)
	if !ok {
		return Target{}, false
	}
	addr, name, err := hostname.Parse(host)
	if err != nil {
		d.fault(n, "", "to: %v", err)
		return Target{}, false
	}
	return Target{Name: name, Addr: addr, Port: port}, true
}

// hostPort divides a target. The port is 0 where the target keeps the port.
func (d *decoder) hostPort(n *node, s string, l *Listener) (string, uint16, bool) {
	if host, alone := hostAlone(s); alone && l.Kind == UDP {
		if l.anyPort() {
			d.fault(n, targetHint(s), "to: %q has no port, and this listener takes any", s)
			return "", 0, false
		}
		return host, 0, true
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		d.fault(n, targetHint(s), "to: %q is not host:port", s)
		return "", 0, false
	}
	p, ok := parsePort(port)
	if !ok {
		d.fault(n, "write a number from 1 to 65535", "to: %q is no port", port)
	}
	return host, p, ok
}

// hostAlone returns the host of a target that has no port, without the brackets that an
// IPv6 address may have.
func hostAlone(s string) (string, bool) {
	host := s
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	if a, err := netip.ParseAddr(host); err == nil && (host == s || a.Is6()) {
		return host, true
	}
	return s, !strings.Contains(s, ":")
}

func targetHint(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Is6() {
		return fmt.Sprintf("add the port: \"[%s]:PORT\"", a)
	}
	if strings.Count(s, ":") > 1 {
		return `put IPv6 addresses in brackets: "[2001:db8::1]:25"`
	}
	return fmt.Sprintf("add the port: %q", s+":PORT")
}
