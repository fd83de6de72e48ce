package dialer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/internal/rendezvous"
)

// check reports what is wrong with s.
func (s *Source) check() error {
	kinds := 0
	for _, set := range []bool{len(s.Addrs) > 0, s.Prefix.IsValid(), s.First.IsValid() || s.Last.IsValid(), s.Interface != ""} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("source %q: want one of addresses, a prefix, a range and an interface", s.Name)
	}
	if len(s.Addrs) > 2 || len(s.Addrs) == 2 && s.Addrs[0].Is4() == s.Addrs[1].Is4() {
		return fmt.Errorf("source %q: more than one address of a family", s.Name)
	}
	if slices.ContainsFunc(s.Addrs, unfit) || s.Prefix.IsValid() && unfit(s.Prefix.Addr()) {
		return fmt.Errorf("source %q: want plain addresses, no zone and no IPv4-mapped IPv6", s.Name)
	}
	if s.First.IsValid() || s.Last.IsValid() {
		if unfit(s.First) || unfit(s.Last) || s.First.Is4() != s.Last.Is4() || s.Last.Less(s.First) {
			return fmt.Errorf("source %q: %v-%v is no range", s.Name, s.First, s.Last)
		}
	}
	if len(s.Device) > maxDevice || strings.ContainsAny(s.Device, "/ \t\n\x00") {
		return fmt.Errorf("source %q: %q cannot name a device", s.Name, s.Device)
	}
	if s.Ports.Lo > s.Ports.Hi {
		return fmt.Errorf("source %q: ports %v: the first is above the last", s.Name, s.Ports)
	}
	return nil
}

// maxDevice is how long the name of a link can be: IFNAMSIZ of the kernel's
// include/uapi/linux/if.h, without the end of the string.
const maxDevice = 15

func unfit(a netip.Addr) bool { return !a.IsValid() || a.Zone() != "" || a.Is4In6() }

// has reports whether s has an address of the family, or may have one.
func (s *Source) has(is4 bool) bool {
	switch {
	case s.Prefix.IsValid():
		return s.Prefix.Addr().Is4() == is4
	case s.First.IsValid():
		return s.First.Is4() == is4
	case s.Interface != "":
		return true
	}
	return s.fixed(is4).IsValid()
}

// fixed returns the address of the family among Addrs.
func (s *Source) fixed(is4 bool) netip.Addr {
	for _, a := range s.Addrs {
		if a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

// addr returns the address of the family that h, a hash or a random number, picks out of s.
func (s *Source) addr(is4 bool, h uint64) netip.Addr {
	switch {
	case s.Prefix.IsValid():
		return hostIn(s.Prefix, h)
	case s.First.IsValid():
		return within(s.First, s.Last, h)
	}
	return s.fixed(is4)
}

// Hash stands for s in sticky pools: it is that of its name, so that s keeps its keys
// when its address changes, and where it has none that of its addresses.
func (s *Source) Hash() uint64 {
	if s.Name != "" {
		return rendezvous.String(rendezvous.Seed, s.Name)
	}
	h := rendezvous.Uint(rendezvous.String(rendezvous.Seed, s.Interface), uint64(s.Prefix.Bits()))
	for _, a := range append([]netip.Addr{s.Prefix.Addr(), s.First, s.Last}, s.Addrs...) {
		h = rendezvous.Addr(h, a)
	}
	return h
}

// sameSource stands in decisions for what Use.Same leaves from. It has no address of
// its own.
var sameSource = &Source{Name: "same"}

// sameByRoute is sameSource for an IPv6 address that is on no interface.
var sameByRoute = &Source{Name: "same", FreeBind: true}

// needsSocket reports whether flows from s need a socket of their own: its options
// would count for all datagrams of a shared one.
func (s *Source) needsSocket() bool { return s.freeBind() || s.Device != "" || s.Mark != 0 }

// freeBind reports whether sockets need IP_FREEBIND for the addresses of s.
func (s *Source) freeBind() bool { return s.FreeBind || s.Prefix.IsValid() }
