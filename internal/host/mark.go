package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Marks tells which source the kernel takes for sockets that have a mark (SO_MARK) and no
// address. It is the routing of one moment: read it anew after each change.
type Marks struct {
	policy *Policy
	links  linkTable
}

// ReadMarks reads the routing of the calling thread's network namespace.
func ReadMarks() (*Marks, error) {
	p, err := ReadPolicy()
	if err != nil {
		return nil, err
	}
	links, err := linkNames()
	if err != nil {
		return nil, err
	}
	return &Marks{policy: p, links: links}, nil
}

// Policy returns the routing that was read.
func (m *Marks) Policy() *Policy { return m.policy }

// A MarkQuery asks to which destinations a socket with Mark gets Src. Within has the
// destinations that matter: those whose longest prefix there is true.
type MarkQuery struct {
	Mark   uint32
	Src    netip.Addr
	Within map[netip.Prefix]bool
}

// A MarkAnswer tells it for each address: Leads of the longest of its prefixes. An
// address that has none is no destination that leads to the source.
type MarkAnswer struct {
	Leads map[netip.Prefix]bool

	// Faults are the destinations that do not, but for those that are near: they never do.
	Faults []MarkFault

	// Whole says that Leads has destinations, and Faults none.
	Whole bool
}

// A MarkFault is a part of the world to which a mark does not lead to its source.
type MarkFault struct {
	Dst netip.Prefix // the addresses of it that are in no longer prefix of the rules, routes and policy
	Err error
}

func (f *MarkFault) Error() string { return fmt.Sprintf("towards %v %v", f.Dst, f.Err) }

// Unwrap returns the reason.
func (f *MarkFault) Unwrap() error { return f.Err }

var (
	errNear      = errors.New("is this host, one of its links or a group")
	errUnasked   = errors.New("no rule of ours has it")
	errTooMany   = fmt.Errorf("there are more than %d routes and prefixes to look at", maxMarkCells)
	errTOS       = errors.New("a route depends on the TOS of packets")
	errMultipath = errors.New("the route has several next hops, and no src for all of them")
	errNoSrc     = errors.New("the route has no src, so that the address depends on the destination")
)

// maxMarkCells bounds the parts that the kernel is asked about for one source.
const maxMarkCells = 16384

// nearRanges are the destinations for which the kernel has ways of its own to a source.
var nearRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/32"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Leads answers q. The addresses that share all prefixes of q, of the routes and of the
// rules that can be met with the mark are one part, for which the kernel decides alike:
// it is asked about one of them. What could differ inside of a part is a fault: a rule
// that asks more than mark and destination (the user, ports ...) and comes before the
// one that decides, a TOS, next hops with sources of their own.
func (m *Marks) Leads(q MarkQuery) MarkAnswer {
	s := survey{Marks: m, query: q, tables: make(map[Table]bool)}
	s.consult()
	s.collectTOS()
	parts := s.parts()
	asked := 0
	for i := range parts {
		if parts[i].used && parts[i].sample.IsValid() {
			asked++
		}
	}
	out := MarkAnswer{Leads: make(map[netip.Prefix]bool), Whole: true}
	for i := range parts {
		p := &parts[i]
		switch {
		case !p.used:
			p.fault = errUnasked
		case !p.sample.IsValid() || p.near:
			p.fault = errNear
		case asked > maxMarkCells:
			p.fault = errTooMany
		default:
			p.fault = s.judge(p.sample)
		}
		out.add(parts, i)
	}
	out.Whole = out.Whole && len(out.Leads) > 0
	return out
}

// add takes the answer for a part. What is as it is around it need not be said.
func (a *MarkAnswer) add(parts []markPart, i int) {
	p := &parts[i]
	leads := p.fault == nil
	if around := p.parent >= 0 && parts[p.parent].fault == nil; leads != around {
		a.Leads[p.prefix] = leads
	}
	if leads || errors.Is(p.fault, errNear) || errors.Is(p.fault, errUnasked) {
		return
	}
	a.Whole = false
	a.Faults = append(a.Faults, MarkFault{p.prefix, p.fault})
}

// survey is one query under way.
type survey struct {
	*Marks
	query  MarkQuery
	rules  []PolicyRule   // that can be met
	tables map[Table]bool // that these name
	tos    []netip.Prefix // of their routes for a TOS
}

func (s *survey) is4() bool { return s.query.Src.Is4() }

// consult finds the rules that a socket with the mark can meet, up to one that surely
// ends the search.
func (s *survey) consult() {
	for _, r := range s.policy.Rules {
		met := r.meets(s.query.Mark)
		if r.Is4 != s.is4() || met == never {
			continue
		}
		s.rules = append(s.rules, r)
		if r.Action != frActToTable {
			continue
		}
		s.tables[r.Table] = true
		if met == always && r.Dst.Bits() <= 0 && !r.Suppresses && s.hasDefault(r.Table) {
			return
		}
	}
}

// collectTOS finds the routes that are for packets with a TOS: of many routes they are few.
func (s *survey) collectTOS() {
	for _, r := range s.policy.Routes {
		if s.tables[r.Table] && r.TOS != 0 {
			s.tos = append(s.tos, r.Dst)
		}
	}
}

func (s *survey) hasDefault(t Table) bool {
	return slices.ContainsFunc(s.policy.Routes, func(r TableRoute) bool {
		return r.Table == t && r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == s.is4() && r.TOS == 0 && r.Type != RouteThrow
	})
}

// met says whether a rule of the policy is met by a socket of which the mark and the
// destination are known: it has no address, and is bound to no link.
type met int

const (
	never   met = iota
	perhaps     // it asks for more than is known
	always      // to the destinations that it names
)

func (r *PolicyRule) meets(mark uint32) met {
	known := r.UIDs == nil && r.Protocol == 0 && r.SrcPorts == [2]uint16{} && r.DstPorts == [2]uint16{} && !r.Other
	is := !r.VRF && (r.InLink == "" || r.InLink == "lo") && r.OutLink == "" && r.Src.Bits() <= 0 &&
		(r.Mark^mark)&r.Mask == 0
	switch {
	case r.Not && (!known || r.Dst.Bits() > 0):
		return perhaps
	case is == r.Not:
		return never
	case !known:
		return perhaps
	}
	return always
}

// ByMark reports whether the rule sends sockets with this mark to a table, wherever they
// go, and asks for nothing else.
func (r *PolicyRule) ByMark(mark uint32) bool {
	return r.Mask != 0 && !r.Not && r.Action == frActToTable && r.Dst.Bits() <= 0 && r.meets(mark) == always
}

// judge tells why a socket with the mark does not get the source towards d.
func (s *survey) judge(d netip.Addr) error {
	q := RouteQuery{Dst: d, Mark: s.query.Mark}
	way, err := s.links.ask(q, 0)
	if err != nil {
		return routeError(q, err)
	}
	if way.Type != RouteUnicast {
		return errNear // or a broadcast of one of the links
	}
	route, err := s.links.ask(q, unix.RTM_F_FIB_MATCH)
	if err != nil {
		return err
	}
	switch {
	case way.Src != s.query.Src:
		return fmt.Errorf("the kernel takes %v (table %v)", way.Src, way.Table)
	case !s.tables[way.Table]:
		return fmt.Errorf("table %v decides although another comes before", way.Table)
	case route.Src == s.query.Src && (s.is4() || route.Hops <= 1):
	case route.Hops > 1 || route.Link == "":
		return errMultipath
	case !s.is4():
		return errNoSrc
	}
	return s.certain(d, way.Table)
}

// certain tells what could make another table or route decide about d.
func (s *survey) certain(d netip.Addr, t Table) error {
	last := -1
	for i, r := range s.rules {
		if r.Action == frActToTable && r.Table == t && r.meets(s.query.Mark) == always && (r.Dst.Bits() <= 0 || r.Dst.Contains(d)) {
			last = i
		}
	}
	for i, r := range s.rules {
		if (last < 0 || i < last) && r.meets(s.query.Mark) == perhaps && (r.Not || r.Dst.Bits() <= 0 || r.Dst.Contains(d)) {
			return fmt.Errorf("the rule %q comes before, and asks for more than mark and destination", r)
		}
	}
	if slices.ContainsFunc(s.tos, func(p netip.Prefix) bool { return p.Contains(d) }) {
		return errTOS
	}
	return nil
}
