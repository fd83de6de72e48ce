package host

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Policy is the routing of this host at one moment: the routes of all tables and the
// rules that choose among these. It never changes.
type Policy struct {
	Routes []TableRoute // by family, then in the kernel's order
	Rules  []PolicyRule // by family, then by priority
}

// ReadPolicy returns what the host has now. Routers have many routes: read it when
// somebody asks, not at each change.
func ReadPolicy() (*Policy, error) {
	links, err := linkNames()
	if err != nil {
		return nil, err
	}
	p := &Policy{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := links.routes(family)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		rules, err := rules(family)
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		p.Routes = append(p.Routes, routes...)
		p.Rules = append(p.Rules, rules...)
	}
	return p, nil
}

// routes returns the routes of one family, without those that are a cache.
func (l linkTable) routes(family uint8) ([]TableRoute, error) {
	messages, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	if err != nil {
		return nil, err
	}
	list := make([]TableRoute, 0, len(messages))
	for _, m := range messages {
		if len(m) >= unix.SizeofRtMsg && binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
			continue
		}
		if r, ok := l.parseRoute(m); ok {
			list = append(list, r)
		}
	}
	return list, nil
}

// A PolicyRule is a rule of ip-rule(8): it sends flows that it matches to a table.
type PolicyRule struct {
	Is4      bool
	Priority uint32
	Action   uint8 // unix.FR_ACT_TO_TBL, FR_ACT_UNREACHABLE ...
	Table    Table
	Not      bool // it matches what does not fulfil the conditions

	Src, Dst           netip.Prefix // not valid: any
	Mark, Mask         uint32       // Mask 0: any
	InLink, OutLink    string
	UIDs               *[2]uint32 // from, to
	Protocol           uint8
	SrcPorts, DstPorts [2]uint16 // both zero: any

	VRF        bool // only for sockets that are bound to a VRF, whose table it is
	Suppresses bool // routes of the table that are too wide, or by some links, do not count
	Other      bool // it has a condition that is not among those above: on the TOS, a flow label
}

func rules(family uint8) ([]PolicyRule, error) {
	messages, err := dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	if err != nil {
		return nil, err
	}
	list := make([]PolicyRule, 0, len(messages))
	for _, m := range messages {
		if r, ok := parseRule(m); ok {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b PolicyRule) int { return int(int64(a.Priority) - int64(b.Priority)) })
	return list, nil
}

// parseRule reads the body of a rule message:
//
//	struct fib_rule_hdr { u8 family, dst_len, src_len, tos, table, res1, res2, action; u32 flags; };
func parseRule(b []byte) (PolicyRule, bool) {
	if len(b) < unix.SizeofRtMsg {
		return PolicyRule{}, false
	}
	const (
		invert    = 2       // FIB_RULE_INVERT
		findSaddr = 0x10000 // FIB_RULE_FIND_SADDR: looks for the source that a program would get
	)
	flags := binary.NativeEndian.Uint32(b[8:])
	r := PolicyRule{
		Is4:    b[0] == unix.AF_INET,
		Table:  Table(b[4]),
		Action: b[7],
		Not:    flags&invert != 0,
		Other:  b[3] != 0 || flags&findSaddr != 0,
	}
	for kind, v := range attributes(b[unix.SizeofRtMsg:]) {
		r.attribute(kind, v, int(b[1]), int(b[2]))
	}
	return r, true
}

// The attributes of a rule (linux/fib_rules.h).
const (
	fraDst       = 1
	fraSrc       = 2
	fraIifName   = 3
	fraGoto      = 4
	fraPriority  = 6
	fraMark      = 10
	fraFlow      = 11
	fraIfGroup   = 13
	fraPrefixLen = 14
	fraTable     = 15
	fraMask      = 16
	fraOifName   = 17
	fraPad       = 18
	fraL3mdev    = 19
	fraUIDRange  = 20
	fraMaker     = 21
	fraProtocol  = 22
	fraSrcPorts  = 23
	fraDstPorts  = 24
	frActToTable = 1
)

func (r *PolicyRule) attribute(kind uint16, v []byte, dstBits, srcBits int) {
	switch kind {
	case fraDst:
		r.Dst = netip.PrefixFrom(addrOf(v), dstBits).Masked()
	case fraSrc:
		r.Src = netip.PrefixFrom(addrOf(v), srcBits).Masked()
	case fraIifName:
		r.InLink = strings.TrimRight(string(v), "\x00")
	case fraOifName:
		r.OutLink = strings.TrimRight(string(v), "\x00")
	case fraPriority:
		r.Priority = uint32Of(v)
	case fraMark:
		r.Mark = uint32Of(v)
	case fraMask:
		r.Mask = uint32Of(v)
	case fraTable:
		r.Table = Table(uint32Of(v))
	case fraUIDRange:
		if len(v) == 8 {
			r.UIDs = &[2]uint32{uint32Of(v[:4]), uint32Of(v[4:])}
		}
	case fraProtocol:
		if len(v) == 1 {
			r.Protocol = v[0]
		}
	case fraSrcPorts:
		r.SrcPorts = portsOf(v)
	case fraDstPorts:
		r.DstPorts = portsOf(v)
	case fraL3mdev:
		r.VRF = len(v) == 1 && v[0] != 0
	case fraIfGroup, fraPrefixLen:
		r.Suppresses = r.Suppresses || uint32Of(v) != ^uint32(0)
	case fraGoto, fraFlow, fraPad, fraMaker: // no conditions
	default:
		r.Other = true
	}
}

// portsOf reads struct fib_rule_port_range { u16 start, end; }.
func portsOf(v []byte) [2]uint16 {
	if len(v) != 4 {
		return [2]uint16{}
	}
	return [2]uint16{binary.NativeEndian.Uint16(v), binary.NativeEndian.Uint16(v[2:])}
}

// Selects reports whether the rule matches what the query asks about. UIDs of the
// query must be set for rules that have them.
func (r *PolicyRule) Selects(q RouteQuery) bool {
	return r.Is4 == q.Dst.Is4() && r.matches(q) != r.Not
}

func (r *PolicyRule) matches(q RouteQuery) bool {
	switch {
	case r.InLink != "" && r.InLink != "lo", // our own packets have no other
		r.OutLink != "" && r.OutLink != q.Link,
		r.Dst.Bits() > 0 && !r.Dst.Contains(q.Dst),
		r.Src.Bits() > 0 && !r.Src.Contains(q.Src),
		(r.Mark^q.Mark)&r.Mask != 0,
		r.UIDs != nil && (q.UID == nil || *q.UID < r.UIDs[0] || r.UIDs[1] < *q.UID),
		r.Protocol != 0 && r.Protocol != q.Protocol:
		return false
	}
	return inPorts(r.SrcPorts, q.SrcPort) && inPorts(r.DstPorts, q.DstPort)
}

func inPorts(r [2]uint16, p uint16) bool { return r == [2]uint16{} || r[0] <= p && p <= r[1] }

// RuleFor returns the rule that sends the query to table t, where t is not one that
// every host has: the first that matches and names it.
func (p *Policy) RuleFor(q RouteQuery, t Table) (PolicyRule, bool) {
	i := slices.IndexFunc(p.Rules, func(r PolicyRule) bool {
		return r.Action == frActToTable && r.Table == t && r.Selects(q)
	})
	if i < 0 || t == TableLocal || t == TableMain || t == TableDefault {
		return PolicyRule{}, false
	}
	return p.Rules[i], true
}

// String returns the rule as ip-rule(8) writes it: "1000: from all fwmark 0x1 lookup 102".
func (r PolicyRule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", r.Priority)
	if r.Not {
		b.WriteString(" not")
	}
	b.WriteString(" from " + prefixOrAll(r.Src))
	if r.Dst.IsValid() {
		b.WriteString(" to " + prefixOrAll(r.Dst))
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x", r.Mark)
		if r.Mask != ^uint32(0) {
			fmt.Fprintf(&b, "/%#x", r.Mask)
		}
	}
	if r.InLink != "" {
		b.WriteString(" iif " + r.InLink)
	}
	if r.OutLink != "" {
		b.WriteString(" oif " + r.OutLink)
	}
	if r.UIDs != nil {
		fmt.Fprintf(&b, " uidrange %d-%d", r.UIDs[0], r.UIDs[1])
	}
	if r.Protocol != 0 {
		b.WriteString(" ipproto " + protocolName(r.Protocol))
	}
	writePorts(&b, " sport ", r.SrcPorts)
	writePorts(&b, " dport ", r.DstPorts)
	if r.Action == frActToTable {
		b.WriteString(" lookup " + r.Table.String())
	}
	return b.String()
}

func prefixOrAll(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "all"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func protocolName(p uint8) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	}
	return fmt.Sprint(p)
}

func writePorts(b *strings.Builder, word string, r [2]uint16) {
	switch {
	case r == [2]uint16{}:
	case r[0] == r[1]:
		fmt.Fprintf(b, "%s%d", word, r[0])
	default:
		fmt.Fprintf(b, "%s%d-%d", word, r[0], r[1])
	}
}
