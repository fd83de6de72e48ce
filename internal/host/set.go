package host

import (
	"net/netip"
	"slices"
)

// set is a set of addresses, held as prefixes. It never changes once built.
type set struct {
	single map[netip.Addr]struct{}
	wide   map[netip.Prefix]struct{}
	bits4  []int // the lengths that occur in wide, ascending
	bits6  []int
}

// newSet returns the set of the addresses in prefixes.
func newSet(prefixes []netip.Prefix) set {
	s := set{single: make(map[netip.Addr]struct{}, len(prefixes)), wide: make(map[netip.Prefix]struct{})}
	for _, p := range prefixes {
		if p.IsSingleIP() {
			s.single[p.Addr()] = struct{}{}
			continue
		}
		s.wide[p.Masked()] = struct{}{}
		bits := &s.bits6
		if p.Addr().Is4() {
			bits = &s.bits4
		}
		if i, found := slices.BinarySearch(*bits, p.Bits()); !found {
			*bits = slices.Insert(*bits, i, p.Bits())
		}
	}
	return s
}

// contains reports whether a, which has no zone and is not mapped, is in s.
func (s *set) contains(a netip.Addr) bool {
	if _, ok := s.single[a]; ok {
		return true
	}
	return a.IsValid() && s.widest(a, a.BitLen())
}

// covers reports whether one prefix of s contains all of p, which is masked.
func (s *set) covers(p netip.Prefix) bool {
	if p.IsSingleIP() {
		return s.contains(p.Addr())
	}
	return s.widest(p.Addr(), p.Bits())
}

// widest reports whether s has a prefix of a, among those of at most this many bits.
func (s *set) widest(a netip.Addr, most int) bool {
	lengths := s.bits6
	if a.Is4() {
		lengths = s.bits4
	}
	for _, bits := range lengths {
		if bits > most {
			return false
		}
		p, err := a.Prefix(bits)
		if err != nil {
			return false
		}
		if _, ok := s.wide[p]; ok {
			return true
		}
	}
	return false
}
