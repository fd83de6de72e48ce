package host

import (
	"net/netip"
	"slices"
)

// markPart is the addresses of prefix that are in no longer one of a survey.
type markPart struct {
	prefix netip.Prefix
	parent int        // the part around it; -1: none
	used   bool       // its addresses are asked about
	near   bool       // the kernel has ways of its own there
	sample netip.Addr // one of the addresses; not valid when there is none
	fault  error
}

// parts returns the parts, each after the one around it.
func (s *survey) parts() []markPart {
	list := s.prefixes()
	out := make([]markPart, len(list))
	inside := make([][]int, len(list))
	var around []int
	for i, p := range list {
		for len(around) > 0 && !list[around[len(around)-1]].Contains(p.Addr()) {
			around = around[:len(around)-1]
		}
		out[i] = markPart{prefix: p, parent: -1}
		if n := len(around); n > 0 {
			up := around[n-1]
			out[i].parent, out[i].used, out[i].near = up, out[up].used, out[up].near
			inside[up] = append(inside[up], i)
		}
		if used, ok := s.query.Within[p]; ok {
			out[i].used = used
		}
		out[i].near = out[i].near || slices.Contains(nearRanges, p)
		around = append(around, i)
	}
	for i := range out {
		out[i].sample = sampleOf(list, i, inside[i])
	}
	return out
}

// prefixes returns all that tell addresses apart, of the family, in ascending order and
// wider ones first.
func (s *survey) prefixes() []netip.Prefix {
	var all []netip.Prefix
	add := func(p netip.Prefix) {
		if p.IsValid() && p.Addr().Is4() == s.is4() {
			all = append(all, p.Masked())
		}
	}
	for p := range s.query.Within {
		add(p)
	}
	for _, p := range nearRanges {
		add(p)
	}
	for _, r := range s.rules {
		add(r.Dst)
	}
	for _, r := range s.policy.Routes {
		if s.tables[r.Table] {
			add(r.Dst)
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(all)
}

// sampleOf returns the first address of list[i] that is in none of those inside of it,
// which are in ascending order.
func sampleOf(list []netip.Prefix, i int, inside []int) netip.Addr {
	a := list[i].Addr()
	for _, j := range inside {
		if a.Less(list[j].Addr()) {
			return a
		}
		if a = lastOf(list[j]).Next(); !a.IsValid() {
			return a
		}
	}
	if !list[i].Contains(a) {
		return netip.Addr{}
	}
	return a
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if n := p.Bits() - 8*i; n < 8 {
			b[i] |= 0xff >> max(n, 0)
		}
	}
	a, _ := netip.AddrFromSlice(b) // it has the size of an address
	return a
}
