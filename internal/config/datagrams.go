package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Filter is whose datagrams reach a client of UDP ASSOCIATE, in the words of RFC 4787
// section 5.
type Filter uint8

// The filters.
const (
	FilterAddress        Filter = iota // of the addresses that the client has sent to
	FilterAddressAndPort               // of the addresses and ports that it has sent to
	FilterNone                         // of everybody
)

// String returns the word that stands in the file.
func (f Filter) String() string {
	if names := filterWords(); int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("unknown(%d)", uint8(f))
}

func filterWords() []string { return []string{"address", "address-and-port", "none"} }

// socks reads the keys of a proxy that speaks SOCKS.
func (d *decoder) socks(k map[string]*node, l *Listener) {
	l.RelayPorts, _ = d.portRange(k["relay_ports"])
	l.Advertise = d.advertise(k["advertise"])
	f, _ := d.word(k["filter"], filterWords()...)
	l.Filter = Filter(max(f, 0))
	l.Bind = d.boolean(k["bind"], true)
}

// advertise reads the address that clients are told.
func (d *decoder) advertise(n *node) netip.Addr {
	s, ok := d.text(n)
	if !ok {
		return netip.Addr{}
	}
	a, ok := d.address(n, s)
	if ok && (a.IsUnspecified() || a.IsMulticast()) {
		d.fault(n, "write the address that the clients reach; left out, they are told the one they connected to", "advertise: nobody can send to %s", a)
		return netip.Addr{}
	}
	return a
}

// share reads what lets many clients of a udp forward have one fixed port.
func (d *decoder) share(k map[string]*node, l *Listener) {
	n := k["share"]
	if _, ok := d.word(n, "sip"); ok {
		l.Share = "sip"
	}
	if n == nil {
		for _, name := range []string{"inbound", "inbound_from"} {
			if c := k[name]; c != nil {
				d.faultKey(c, `add share = "sip", or remove the line`, "%s does nothing without share: who a call is for, only SIP tells", name)
			}
		}
		return
	}
	switch ports := l.sourcePorts(); {
	case len(ports) == 0 && k["source_port"] == nil:
		d.faultKey(n, "add source_port = 5060", "share needs a source_port: the one that the clients share")
	case len(ports) > 1 || len(ports) == 1 && ports[0].Lo != ports[0].Hi:
		d.fault(k["source_port"], "write the one port that the clients share", `source_port: "same" is several ports, and share is of one`)
	}
	l.Inbound = d.inbound(k["inbound"], l)
	l.InboundFrom = d.inboundFrom(k["inbound_from"], l)
}

// inbound reads who takes the requests that no client waits for.
func (d *decoder) inbound(n *node, l *Listener) netip.AddrPort {
	s, ok := d.text(n)
	if !ok {
		return netip.AddrPort{}
	}
	to, err := netip.ParseAddrPort(s)
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	reached := func(a netip.AddrPort) bool {
		return a.Addr() == netip.IPv6Unspecified() || a.Addr().Is4() == to.Addr().Is4()
	}
	switch {
	case err != nil:
		d.fault(n, inboundHint(s), "inbound: %q is no address with port", s)
	case to.Port() == 0 || to.Addr().IsUnspecified() || to.Addr().IsMulticast():
		d.fault(n, "write address and port of the telephone system", "inbound: nobody can be called at %s", to)
	case l.listensAt(to.Addr(), to.Port()):
		d.fault(n, "write address and port of the telephone system", "inbound: %s is this listener itself", to)
	case len(l.Addrs) > 0 && !slices.ContainsFunc(l.Addrs, reached):
		d.fault(n, fmt.Sprintf("let the listener have an %s address too", family(to.Addr().Is4())),
			"inbound: %s cannot be reached from %s, which has no %s address", to, l.Addrs[0], family(to.Addr().Is4()))
	default:
		return to
	}
	return netip.AddrPort{}
}

func inboundHint(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return fmt.Sprintf("add the port: %q", net.JoinHostPort(a.String(), "5060"))
	}
	if p, ok := parsePort(s); ok {
		return fmt.Sprintf("add the address: \"127.0.0.1:%d\"", p)
	}
	return `write "127.0.0.1:5080" or "[::1]:5080"; names are not resolved here`
}

// inboundFrom reads who may send requests. What the source has no address for cannot
// arrive.
func (d *decoder) inboundFrom(n *node, l *Listener) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range d.strings(n) {
		p, ok := d.prefix(e, e.text)
		if ok && l.Use != nil && !has(*l.Use, p.Addr().Is4()) {
			d.fault(e, "remove it, or name a source that has one", "inbound_from: %q has no %s address, so nothing arrives from %s", l.Use, family(p.Addr().Is4()), p)
			continue
		}
		if ok {
			out = append(out, p)
		}
	}
	return out
}

// dscp reads a code point, as a number or by its name.
func (d *decoder) dscp(n *node) uint8 {
	if n == nil || n.kind != textKind {
		v, _ := d.integer(n, 0, 63)
		return uint8(v)
	}
	names := codePoints()
	for _, c := range names {
		if c.name == n.text {
			return c.value
		}
	}
	var words []string
	for _, c := range names {
		words = append(words, c.name)
	}
	hint := `write "ef", "cs0" to "cs7", "af11" to "af43", or a number from 0 to 63`
	if _, err := strconv.Atoi(n.text); err == nil {
		hint = "write it without quotes: " + n.text
	} else if w := suggest(n.text, words); w != "" {
		hint = fmt.Sprintf("did you mean %q?", w)
	}
	d.fault(n, hint, "dscp: %q is not known", n.text)
	return 0
}

type codePoint struct {
	name  string
	value uint8
}

// codePoints returns the names that IANA has for code points: RFC 2474 (cs), 2597
// (af), 3246 (ef), 5865 (va) and 8622 (le).
func codePoints() []codePoint {
	out := []codePoint{{"ef", 46}, {"va", 44}, {"le", 1}}
	for class := range uint8(8) {
		out = append(out, codePoint{fmt.Sprintf("cs%d", class), class << 3})
	}
	for class := uint8(1); class <= 4; class++ {
		for drop := uint8(1); drop <= 3; drop++ {
			out = append(out, codePoint{fmt.Sprintf("af%d%d", class, drop), class<<3 | drop<<1})
		}
	}
	return out
}
