package dialer

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// The hash is FNV-1a (RFC 9923) with a finalizer, and not hash/maphash: a sticky key
// has to find the same source after a restart, and on the kernel plane.
const (
	hashSeed  uint64 = 0xcbf29ce484222325
	hashPrime uint64 = 0x100000001b3
)

func hashString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * hashPrime
	}
	return (h ^ 0xff) * hashPrime // ends the string: "ab","c" and "a","bc" differ
}

func hashUint(h, v uint64) uint64 {
	for range 8 {
		h = (h ^ v&0xff) * hashPrime
		v >>= 8
	}
	return h
}

func hashAddr(h uint64, a netip.Addr) uint64 {
	b := a.As16()
	for _, c := range b {
		h = (h ^ uint64(c)) * hashPrime
	}
	return h
}

// mix spreads every bit of h over all bits (the finalizer of SplitMix64).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// hash adds the property k of f to h.
func (k Key) hash(h uint64, f *Flow) uint64 {
	switch k {
	case ByUser:
		return hashString(h, f.User)
	case BySession:
		return hashString(h, f.Session)
	case ByListener:
		return hashString(h, f.Listener)
	case ByDestination:
		return hashAddr(h, f.Dst.Addr())
	case ByHost:
		if f.Name != "" {
			return hashString(h, ruleset.CanonicalName(f.Name))
		}
		return hashAddr(h, f.Dst.Addr())
	}
	return hashAddr(h, f.Client.Addr())
}

// sessionHash picks the address inside a prefix or range where no pool says how: the
// same for all connections of a session, else another for each.
func sessionHash(f *Flow) uint64 {
	if f.Session == "" {
		return rand.Uint64()
	}
	return mix(hashString(hashString(hashSeed, f.User), f.Session))
}

// hostIn returns the address of p whose host bits h gives. In IPv6 the host bits are
// never all zero: that is the subnet-router anycast address (RFC 4291 section 2.6.1).
func hostIn(p netip.Prefix, h uint64) netip.Addr {
	p = p.Masked()
	hi, lo := h, mix(h+1)
	if p.Addr().Is4() {
		a := p.Addr().As4()
		host := uint32(lo) & (1<<(32-p.Bits()) - 1)
		return netip.AddrFrom4(put32(binary.BigEndian.Uint32(a[:]) | host))
	}
	b := p.Addr().As16()
	maskHi, maskLo := hostMask(p.Bits())
	if p.Bits() < 128 && hi&maskHi == 0 && lo&maskLo == 0 {
		lo = 1
	}
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])|hi&maskHi)
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])|lo&maskLo)
	return netip.AddrFrom16(b)
}

// hostMask returns the two halves of the mask of the host bits.
func hostMask(prefixBits int) (hi, lo uint64) {
	return ^uint64(0) >> prefixBits, ^uint64(0) >> max(prefixBits-64, 0)
}

func put32(v uint32) (b [4]byte) {
	binary.BigEndian.PutUint32(b[:], v)
	return b
}

// within returns the address between first and last that h picks.
func within(first, last netip.Addr, h uint64) netip.Addr {
	a, b := first.As16(), last.As16()
	aHi, aLo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	bHi, bLo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	spanLo, borrow := bits.Sub64(bLo, aLo, 0)
	spanHi, _ := bits.Sub64(bHi, aHi, borrow)
	offset := h
	if spanHi == 0 && spanLo < ^uint64(0) {
		offset = h % (spanLo + 1)
	} // a longer range is picked from its first 2^64 addresses
	lo, carry := bits.Add64(aLo, offset, 0)
	binary.BigEndian.PutUint64(a[8:], lo)
	binary.BigEndian.PutUint64(a[:8], aHi+carry)
	if first.Is4() {
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}
