// Package host knows the addresses of this host: which are local, on which link they
// are, and when that changes; and which way packets take, from which address the
// kernel alone would send them, and why. It reads that by rtnetlink(7) and needs no
// privilege.
//
// Local is what the kernel takes for local: the local routes of the routing table
// "local" (255). They cover 127.0.0.0/8, each address of an interface, and prefixes
// that an operator made local by "ip route add local PREFIX dev lo" (AnyIP). IPv6
// addresses that are still tentative, or were found to be taken, are not usable and
// so not local (RFC 4862 section 5.4; bind(2) answers EADDRNOTAVAIL).
package host

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// An Address is one address of an interface.
type Address struct {
	Addr   netip.Addr   `json:"addr"`   // without a zone
	Prefix netip.Prefix `json:"prefix"` // the subnet it was given with, masked
	Link   string       `json:"link"`   // the interface's name
	Flags  Flags        `json:"flags"`
	Scope  uint8        `json:"-"` // how far it is valid: unix.RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST
}

// Flags are the IFA_F_ bits of an address (linux/if_addr.h).
type Flags uint32

// The flags that decide whether, and how gladly, an address is used.
const (
	Secondary  Flags = unix.IFA_F_SECONDARY // IPv6 calls the same bit temporary (RFC 8981)
	Optimistic Flags = unix.IFA_F_OPTIMISTIC
	DADFailed  Flags = unix.IFA_F_DADFAILED
	Deprecated Flags = unix.IFA_F_DEPRECATED
	Tentative  Flags = unix.IFA_F_TENTATIVE
	Permanent  Flags = unix.IFA_F_PERMANENT
)

var flagNames = [...]struct {
	flag Flags
	name string
}{
	{Secondary, "secondary"},
	{Optimistic, "optimistic"},
	{DADFailed, "dadfailed"},
	{Deprecated, "deprecated"},
	{Tentative, "tentative"},
	{Permanent, "permanent"},
}

// String returns the names of the flags, as ip(8) writes them, with spaces between.
func (f Flags) String() string {
	var names []string
	for _, n := range flagNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " ")
}

// MarshalText returns String.
func (f Flags) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Usable reports whether a socket can be bound to the address: it is neither waiting
// for duplicate address detection (unless optimistic, RFC 4429) nor lost it.
func (f Flags) Usable() bool {
	return f&DADFailed == 0 && f&(Tentative|Optimistic) != Tentative
}

// A Link is a network interface.
type Link struct {
	Index    int    `json:"index"`
	Name     string `json:"name"`
	Up       bool   `json:"up"`       // IFF_UP: it was switched on
	Running  bool   `json:"running"`  // IFF_RUNNING: and has a carrier
	Loopback bool   `json:"loopback"` // IFF_LOOPBACK
	Kind     string `json:"kind"`     // "device", "veth", "dummy", "bridge" ... (IFLA_INFO_KIND)
}

// Carries reports whether packets can leave by the link. Addresses on others, the
// loopback and dummies, are meant to be used on all links.
func (l Link) Carries() bool { return !l.Loopback && l.Kind != "dummy" }
