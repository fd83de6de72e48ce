package dialer

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"github.com/srcproxy/srcproxy/internal/rendezvous"
	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// hash adds the property k of f to h.
func (k Key) hash(h uint64, f *Flow) uint64 {
	switch k {
	case ByUser:
		return rendezvous.String(h, f.User)
	case BySession:
		return rendezvous.String(h, f.Session)
	case ByListener:
		return rendezvous.String(h, f.Listener)
	case ByDestination:
		return rendezvous.Addr(h, f.Dst.Addr())
	case ByHost:
		if f.Name != "" {
			return rendezvous.String(h, ruleset.CanonicalName(f.Name))
		}
		return rendezvous.Addr(h, f.Dst.Addr())
	}
	return rendezvous.Addr(h, f.Client.Addr())
}

// sessionHash picks the address inside a prefix or range where no pool says how: the
// same for all connections of a session, else another for each.
func sessionHash(f *Flow) uint64 {
	if f.Session == "" {
		return rand.Uint64()
	}
	return rendezvous.Mix(rendezvous.String(rendezvous.String(rendezvous.Seed, f.User), f.Session))
}

// hostIn returns the address of p whose host bits h gives. In IPv6 the host bits are
// never all zero: that is the subnet-router anycast address (RFC 4291 section 2.6.1).
func hostIn(p netip.Prefix, h uint64) netip.Addr {
	p = p.Masked()
	hi, lo := h, rendezvous.Mix(h+1)
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

// size returns how many addresses there are from first to last, at most 2^64 - 1.
func size(first, last netip.Addr) uint64 {
	a, b := first.As16(), last.As16()
	lo, borrow := bits.Sub64(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(a[8:]), 0)
	hi, _ := bits.Sub64(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(a[:8]), borrow)
	if hi > 0 || lo == ^uint64(0) {
		return ^uint64(0)
	}
	return lo + 1
}

// within returns the address between first and last that h picks. A range that is longer
// than size can tell is picked from its first addresses.
func within(first, last netip.Addr, h uint64) netip.Addr {
	a := first.As16()
	aHi, aLo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	lo, carry := bits.Add64(aLo, h%size(first, last), 0)
	binary.BigEndian.PutUint64(a[8:], lo)
	binary.BigEndian.PutUint64(a[:8], aHi+carry)
	if first.Is4() {
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}
