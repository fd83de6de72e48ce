package host

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A candidate is an address that an IPv6 flow could leave from. Points are what the
// rules say of it, more being better; the first rule in which two differ decides.
type candidate struct {
	Address
	points [len(rules6)]int
}

// rules6 are the rules of ipv6_get_saddr_eval in their order, without that for mobile
// nodes.
var rules6 = [...]struct {
	cause Cause
	value func(*chooser6, Address) int
}{
	{ByOwn, func(c *chooser6, a Address) int { return point(a.Addr == c.dst) }},
	{ByScope, (*chooser6).scope},
	{ByAge, func(_ *chooser6, a Address) int {
		return point(a.Flags&(Deprecated|Optimistic) == 0 || a.Addr.IsLoopback())
	}},
	{ByLink, func(c *chooser6, a Address) int { return point(a.Link == c.link) }},
	{ByLabel, func(c *chooser6, a Address) int {
		return point(c.labels.of(a.Addr, c.host.linkIndex(a.Link)) == c.label)
	}},
	{ByPrivacy, func(c *chooser6, a Address) int {
		return point((a.Flags&Secondary != 0) == (c.sysctl(a.Link, "use_tempaddr") >= 2))
	}},
	{ByORCHID, func(c *chooser6, a Address) int { return point(orchid.Contains(a.Addr) == orchid.Contains(c.dst)) }},
	{ByMatch, func(c *chooser6, a Address) int { return min(common(a.Addr, c.dst), a.Prefix.Bits()) }},
	{ByAge, func(_ *chooser6, a Address) int { return point(a.Flags&Optimistic == 0) }},
}

// orchid is the prefix of overlay identifiers that the kernel knows (RFC 4843).
var orchid = netip.MustParsePrefix("2001:10::/28")

func point(b bool) int {
	if b {
		return 1
	}
	return 0
}

// common returns the number of leading bits that two IPv6 addresses share.
func common(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return i*8 + bits.LeadingZeros8(d)
		}
	}
	return 128
}

// chooser6 is a chooser with what RFC 6724 asks for.
type chooser6 struct {
	*chooser
	link   string // the outgoing one
	labels labelTable
	label  uint32         // of the destination
	values map[string]int // of sysctls, by their path
}

// choose6 is what ip6_route_get_saddr does.
func (c *chooser) choose6() (netip.Addr, Cause, string) {
	r := c.way.Route
	if r.Src.IsValid() {
		return r.Src, ByRoute, fmt.Sprintf("the src of the route %v", r)
	}
	link := r.Link
	if c.way.Assumed {
		link = c.way.Link
	}
	labels, err := readLabels()
	if err != nil {
		return netip.Addr{}, ByKernel, ""
	}
	d := &chooser6{chooser: c, link: link, labels: labels, values: make(map[string]int)}
	d.label = labels.of(c.dst, c.host.linkIndex(link))
	list := d.candidates()
	if len(list) == 0 {
		return netip.Addr{}, ByKernel, ""
	}
	best := d.best(list)
	if best.Addr == c.dst {
		return best.Addr, ByOwn, "the destination itself, as it is on this host"
	}
	rest := slices.DeleteFunc(slices.Clone(list), func(x candidate) bool { return x.Address == best.Address })
	if len(rest) == 0 {
		return best.Addr, ByOnly, fmt.Sprintf("the only IPv6 address that %s can use", d.users())
	}
	cause, text := d.reason(best, d.best(rest))
	return best.Addr, cause, text
}

// users names what the candidates are for.
func (c *chooser6) users() string {
	if c.onlyOfLink() {
		return c.link
	}
	return "this host"
}

// onlyOfLink reports whether just the addresses of the outgoing link may be taken.
func (c *chooser6) onlyOfLink() bool {
	return c.dst.IsMulticast() || scopeOf(c.dst) <= scopeLink || c.sysctl(c.link, "use_oif_addrs_only") != 0
}

// candidates are the addresses that could be taken, with their points.
func (c *chooser6) candidates() []candidate {
	var list []candidate
	only := c.onlyOfLink()
	for _, a := range c.host.addrs {
		if a.Addr.Is4() || !a.Flags.Usable() || only && a.Link != c.link {
			continue
		}
		x := candidate{Address: a}
		for i, r := range rules6 {
			x.points[i] = r.value(c, a)
		}
		list = append(list, x)
	}
	return list
}

// best returns the candidate with the most points; of equals the first, which on a link
// is the newest (ipv6_link_dev_addr).
func (c *chooser6) best(list []candidate) candidate {
	return slices.MaxFunc(list, func(a, b candidate) int { return slices.Compare(a.points[:], b.points[:]) })
}

// reason says why a is better than b, the best of the rest.
func (c *chooser6) reason(a, b candidate) (Cause, string) {
	for i, r := range rules6 {
		if a.points[i] == b.points[i] {
			continue
		}
		switch r.cause {
		case ByScope:
			return r.cause, "the only address with the scope for the destination (RFC 6724 rule 2)"
		case ByAge:
			return r.cause, fmt.Sprintf("not deprecated; %v is (RFC 6724 rule 3)", b.Addr)
		case ByLink:
			return r.cause, fmt.Sprintf("an address of %s, the outgoing link; %v is on %s (RFC 6724 rule 5)", a.Link, b.Addr, b.Link)
		case ByLabel:
			return r.cause, fmt.Sprintf("with the label of the destination, %d; %v has another (RFC 6724 rule 6)", c.label, b.Addr)
		case ByPrivacy:
			return r.cause, fmt.Sprintf("%s; %v is not (RFC 6724 rule 7)", temporary(a.Flags), b.Addr)
		case ByORCHID:
			return r.cause, fmt.Sprintf("an ORCHID or none, as the destination; %v is otherwise (RFC 7343)", b.Addr)
		}
		return r.cause, fmt.Sprintf("with %d leading bits of the destination; %v has %d (RFC 6724 rule 8)", a.points[i], b.Addr, b.points[i])
	}
	if a.Link == b.Link {
		return ByNewest, fmt.Sprintf("the newest of the addresses of %s that are equal", a.Link)
	}
	return ByOtherLink, fmt.Sprintf("an address of %s, which comes before %s with an equal one", a.Link, b.Link)
}

func temporary(f Flags) string {
	if f&Secondary != 0 {
		return "temporary"
	}
	return "not temporary"
}

// Scopes of IPv6 (RFC 4291 section 2.7, RFC 6724 section 3.1).
const (
	scopeLink   = 2
	scopeSite   = 5
	scopeGlobal = 14
)

// scopeOf returns the scope of an address as a source or destination.
func scopeOf(a netip.Addr) int {
	b := a.As16()
	switch {
	case a.IsMulticast():
		return int(b[1] & 15)
	case a.IsLinkLocalUnicast(), a.IsLoopback():
		return scopeLink
	case b[0] == 0xfe && b[1]&0xc0 == 0xc0:
		return scopeSite
	}
	return scopeGlobal
}

// scope prefers the smallest scope that reaches the destination, then the largest.
func (c *chooser6) scope(a Address) int {
	const below = 128
	s := scopeOf(a.Addr)
	if s >= scopeOf(c.dst) {
		return -s
	}
	return s - below
}

// sysctl reads a number below net.ipv6.conf.LINK; what cannot be read is 0.
func (c *chooser6) sysctl(link, name string) int {
	path := "/proc/sys/net/ipv6/conf/" + link + "/" + name
	n, known := c.values[path]
	if !known {
		_ = scanFile(path, &n) // 0 where there is no such thing
		c.values[path] = n
	}
	return n
}

// labelTable is the policy table of ip-addrlabel(8), the longest prefix first.
type labelTable []addrLabel

type addrLabel struct {
	prefix netip.Prefix
	link   int // 0: any
	label  uint32
}

// of returns the label of an address that is on a link, or is reached by it.
func (t labelTable) of(a netip.Addr, link int) uint32 {
	for _, l := range t {
		if (l.link == 0 || l.link == link) && l.prefix.Contains(a) {
			return l.label
		}
	}
	return ^uint32(0) // IPV6_ADDR_LABEL_DEFAULT
}

// ifAddrLabelMsg asks for labels:
//
//	struct ifaddrlblmsg { u8 family, reserved, prefixlen, flags; u32 index, seq; };
type ifAddrLabelMsg [12]byte

// Len and Serialize make it a part of a netlink request.
func (m *ifAddrLabelMsg) Len() int          { return len(m) }
func (m *ifAddrLabelMsg) Serialize() []byte { return m[:] }

var _ nl.NetlinkRequestData = (*ifAddrLabelMsg)(nil)

// readLabels returns the labels of the calling thread's network namespace.
func readLabels() (labelTable, error) {
	messages, err := dump(unix.RTM_GETADDRLABEL, unix.RTM_NEWADDRLABEL, &ifAddrLabelMsg{unix.AF_INET6})
	if err != nil {
		return nil, fmt.Errorf("list address labels: %w", err)
	}
	var t labelTable
	for _, m := range messages {
		if l, ok := parseLabel(m); ok {
			t = append(t, l)
		}
	}
	slices.SortStableFunc(t, func(a, b addrLabel) int { return b.prefix.Bits() - a.prefix.Bits() })
	return t, nil
}

func parseLabel(b []byte) (addrLabel, bool) {
	const address, label = 1, 2 // IFAL_
	if len(b) < len(ifAddrLabelMsg{}) {
		return addrLabel{}, false
	}
	l := addrLabel{link: int(uint32Of(b[4:8]))}
	for kind, v := range attributes(b[len(ifAddrLabelMsg{}):]) {
		switch kind {
		case address:
			l.prefix = netip.PrefixFrom(addrOf(v), int(b[2]))
		case label:
			l.label = uint32Of(v)
		}
	}
	return l, l.prefix.IsValid()
}
