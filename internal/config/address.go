package config

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// looksLikeAddress reports whether s is meant as an address, well written or not.
func looksLikeAddress(s string) bool {
	return strings.Contains(s, ":") || strings.Contains(s, ".") && strings.Trim(s, "0123456789.") == ""
}

// address returns an address in its one spelling: unmapped, and without a zone.
func (d *decoder) address(n *node, s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		d.fault(n, addressHint(s), "%s: %q is not an address", n.spec.name, s)
	case a.Zone() != "":
		d.fault(n, "write "+strconv.Quote(a.WithZone("").String()), "%s: an address here has no zone", n.spec.name)
	default:
		return a.Unmap(), true
	}
	return netip.Addr{}, false
}

func addressHint(s string) string {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		return "write " + strconv.Quote(strings.TrimSuffix(inner, "]"))
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return "no port stands here: write " + strconv.Quote(ap.Addr().String())
	}
	if strings.Contains(s, ",") {
		return `write a list: ["...", "..."]`
	}
	if strings.Trim(s, "0123456789.") == "" {
		return "an IPv4 address is four numbers from 0 to 255 without leading zeros"
	}
	return `write an address: "198.51.100.10", "2001:db8::10"`
}

// prefix returns a prefix, or an address as a prefix that holds only it. IPv4-mapped
// ones are unmapped.
func (d *decoder) prefix(n *node, s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") {
		a, ok := d.address(n, s)
		return netip.PrefixFrom(a, a.BitLen()), ok
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		d.fault(n, prefixHint(s), "%s: %q is not a prefix", n.spec.name, s)
		return p, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		d.fault(n, "write "+strconv.Quote(m.String())+" for the network, or "+strconv.Quote(p.Addr().String())+" for the address",
			"%s: %q has bits beyond its length", n.spec.name, s)
		return p, false
	}
	return p, true
}

func prefixHint(s string) string {
	addr, mask, _ := strings.Cut(s, "/")
	m, err := netip.ParseAddr(mask)
	if a, err2 := netip.ParseAddr(addr); err == nil && err2 == nil && m.Is4() && a.Is4() {
		b := m.As4()
		bits := 0
		for _, v := range b {
			for ; v&0x80 != 0; v <<= 1 {
				bits++
			}
		}
		if p, err := a.Prefix(bits); err == nil {
			return "write " + strconv.Quote(p.String())
		}
	}
	return `a prefix is an address, a slash and a length: "192.0.2.0/24", "2001:db8::/32"`
}

func (d *decoder) prefixes(n *node) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range d.strings(n) {
		if p, ok := d.prefix(e, e.text); ok {
			out = append(out, p)
		}
	}
	return out
}

// portRange reads a port as an integer or a string, or "lo-hi".
func (d *decoder) portRange(n *node) (dialer.PortRange, bool) {
	if n == nil {
		return dialer.PortRange{}, false
	}
	if n.kind == integerKind {
		p, ok := d.integer(n, 1, 65535)
		return dialer.PortRange{Lo: uint16(p), Hi: uint16(p)}, ok
	}
	s, ok := d.text(n)
	if !ok {
		return dialer.PortRange{}, false
	}
	from, to, found := strings.Cut(s, "-")
	if !found {
		to = from
	}
	lo, ok1 := parsePort(from)
	hi, ok2 := parsePort(to)
	switch {
	case !ok1 || !ok2:
		d.fault(n, portHint(s), "%s: %q is no port and no range of ports", n.spec.name, s)
	case lo > hi:
		d.fault(n, "write "+strconv.Quote(to+"-"+from), "%s: %q is reversed", n.spec.name, s)
	default:
		return dialer.PortRange{Lo: lo, Hi: hi}, true
	}
	return dialer.PortRange{}, false
}

func portHint(s string) string {
	if strings.ContainsAny(s, ", ") {
		return `write a list: [25, 465, "587-588"]`
	}
	if strings.ContainsAny(s, ":") {
		return "write " + strconv.Quote(strings.ReplaceAll(s, ":", "-"))
	}
	return `ports are numbers from 1 to 65535: 25, or "587-588"`
}

// parsePort reads a port between 1 and 65535.
func parsePort(s string) (uint16, bool) {
	p, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
	return uint16(p), err == nil && p > 0
}

func (d *decoder) portRanges(n *node) []dialer.PortRange {
	var out []dialer.PortRange
	for _, e := range d.elements(n, integerKind, textKind) {
		if r, ok := d.portRange(e); ok {
			out = append(out, r)
		}
	}
	return out
}

// port reads a single port; zero stands for one that is not there or wrong.
func (d *decoder) port(n *node) uint16 {
	p, _ := d.integer(n, 1, 65535)
	return uint16(p)
}
