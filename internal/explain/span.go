package explain

import (
	"math/bits"
	"net/netip"
	"slices"
)

// span is a run of addresses with one target.
type span struct {
	lo, hi netip.Addr
	to     target
}

// String returns a prefix where the span is one, an address where it is that, else
// "lo-hi", as nft reads them.
func (s span) String() string {
	if s.lo == s.hi {
		return s.lo.String()
	}
	if p, ok := s.prefix(); ok {
		return p.String()
	}
	return s.lo.String() + "-" + s.hi.String()
}

// prefix returns the prefix that has just the addresses of s.
func (s span) prefix() (netip.Prefix, bool) {
	p := netip.PrefixFrom(s.lo, commonBits(s.lo, s.hi))
	return p, p.Masked().Addr() == s.lo && lastOf(p) == s.hi
}

// commonBits returns the number of leading bits that two addresses of a family share.
func commonBits(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return i*8 + bits.LeadingZeros8(d)
		}
	}
	return a.BitLen()
}

// lastOf returns the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch full := p.Bits() - i*8; {
		case full <= 0:
			b[i] = 0xff
		case full < 8:
			b[i] |= 0xff >> full
		}
	}
	a, _ := netip.AddrFromSlice(b) // of 4 or 16 bytes
	return a
}

// flatten returns the destinations of one family as spans that do not overlap, in
// ascending order: where prefixes overlap, the longest decides. Neighbours with the same
// target are one span. The list is sorted as comparePrefixes does.
func flatten(list []dest, is4 bool) []span {
	var f flattener
	for _, d := range list {
		if d.prefix.Addr().Is4() == is4 {
			f.open(d)
		}
	}
	for len(f.around) > 0 {
		f.closeLast()
	}
	return f.out
}

// flattener goes through prefixes from the lowest address to the highest.
type flattener struct {
	around []dest     // the prefixes in which it is, each in the one before
	next   netip.Addr // the first address that is not in out yet; not valid: there is none
	out    []span
}

// open enters d, after what d is not in was left.
func (f *flattener) open(d dest) {
	for len(f.around) > 0 && !f.around[len(f.around)-1].prefix.Contains(d.prefix.Addr()) {
		f.closeLast()
	}
	if n := len(f.around); n > 0 && f.next.IsValid() && f.next.Less(d.prefix.Addr()) {
		f.add(f.next, d.prefix.Addr().Prev(), f.around[n-1].to)
	}
	f.around = append(f.around, d)
	f.next = d.prefix.Addr()
}

// closeLast leaves the innermost prefix.
func (f *flattener) closeLast() {
	d := f.around[len(f.around)-1]
	f.around = slices.Delete(f.around, len(f.around)-1, len(f.around))
	last := lastOf(d.prefix)
	if f.next.IsValid() && !last.Less(f.next) {
		f.add(f.next, last, d.to)
	}
	f.next = last.Next()
}

func (f *flattener) add(lo, hi netip.Addr, to target) {
	if n := len(f.out); n > 0 && f.out[n-1].to == to && f.out[n-1].hi.Next() == lo {
		f.out[n-1].hi = hi
		return
	}
	f.out = append(f.out, span{lo, hi, to})
}

// prefixes returns the fewest prefixes that have just the addresses of s.
func (s span) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for lo := s.lo; lo.IsValid() && !s.hi.Less(lo); {
		p := netip.PrefixFrom(lo, lo.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(lo, p.Bits()-1)
			if wider.Masked().Addr() != lo || s.hi.Less(lastOf(wider)) {
				break
			}
			p = wider
		}
		out = append(out, p)
		lo = lastOf(p).Next()
	}
	return out
}
