// Package rendezvous is the hash by which sticky pools pick a member: FNV-1a (RFC 9923) with a finalizer, and the weighted
// rendezvous of members on top of it. It is not hash/maphash, since a key has to find the same member after a restart; and
// it has no floating point, since the hooks of internal/cgroupbpf compute the same in the kernel (c/judge.h there).
package rendezvous

import (
	"math/bits"
	"net/netip"
)

// Seed is the hash of nothing, to which the parts of a key are added.
const Seed uint64 = 0xcbf29ce484222325

const prime uint64 = 0x100000001b3

// String adds s to h.
func String(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return (h ^ 0xff) * prime // ends the string: "ab","c" and "a","bc" differ
}

// Uint adds v to h.
func Uint(h, v uint64) uint64 {
	for range 8 {
		h = (h ^ v&0xff) * prime
		v >>= 8
	}
	return h
}

// Addr adds a to h; its zone does not count, and IPv4 is the same as when it is mapped.
func Addr(h uint64, a netip.Addr) uint64 {
	b := a.As16()
	for _, c := range b {
		h = (h ^ uint64(c)) * prime
	}
	return h
}

// Mix spreads every bit of h over all bits (the finalizer of SplitMix64).
func Mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Cost is that of a member for a key: h is the hash of both, and the member with the least cost wins, the first of equals.
// It is -log2 of a uniform hash, divided by the weight, which is above zero and below 2^32: each member wins as often as its
// weight says, and one that falls out moves only its own keys (Schindelhauer and Schomaker, "Weighted Distributed Hash
// Tables", 2005). The unit is 2^-52.
func Cost(h, weight uint64) uint64 {
	x := Mix(h) | 1
	zeros := bits.LeadingZeros64(x)
	x <<= zeros
	low, high := log2[x>>55&0xff], log2[x>>55&0xff+1]
	low += (high - low) * (x >> 23 & 0xffffffff) >> 32
	return (uint64(zeros+1)<<32 - low) << 20 / weight
}

// Log2 returns the table that Cost interpolates: log2(1 + i/256), in units of 2^-32.
func Log2() [257]uint64 { return log2 }

var log2 = log2Table()

// log2Table squares its way to each bit, in integers: the same on every processor.
func log2Table() (table [257]uint64) {
	for i := range uint64(256) {
		m := (256 + i) << 23 // from 1 to 2, in units of 2^-31
		for range 32 {
			m = m * m >> 31
			bit := m >> 32
			table[i] = table[i]<<1 | bit
			m >>= bit
		}
	}
	table[256] = 1 << 32
	return table
}
