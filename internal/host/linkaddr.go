package host

import (
	"net/netip"
	"slices"
)

// linkFamily is one family of one link.
type linkFamily struct {
	link string
	is4  bool
}

// LinkAddr returns the address that somebody who follows a link (DHCP, PPP, SLAAC)
// should send from: of its global addresses of the family the first, in the kernel's
// order, that is usable and neither secondary, temporary (RFC 8981) nor deprecated (RFC
// 4862 section 5.5.4); among those a global one before a unique local one (RFC 4193).
// It is the zero Addr where the link has none, or is not there. It does not allocate.
func (s *Snapshot) LinkAddr(link string, is4 bool) netip.Addr {
	return s.following[linkFamily{link, is4}]
}

// following returns the address that LinkAddr gives for each link.
func following(addrs []Address, local *set) map[linkFamily]netip.Addr {
	out := make(map[linkFamily]netip.Addr)
	for _, a := range addrs {
		if !a.global() || !local.contains(a.Addr) {
			continue
		}
		k := linkFamily{a.Link, a.Addr.Is4()}
		if best, ok := out[k]; !ok || isUniqueLocal(best) && !isUniqueLocal(a.Addr) {
			out[k] = a.Addr
		}
	}
	return out
}

// global reports whether a can be followed.
func (a *Address) global() bool {
	return a.Addr.IsGlobalUnicast() && a.Flags&(Secondary|Deprecated) == 0 && a.Flags.Usable()
}

func isUniqueLocal(a netip.Addr) bool { return a.Is6() && a.IsPrivate() }

// HasLink reports whether there is a link of that name.
func (s *Snapshot) HasLink(name string) bool {
	return slices.ContainsFunc(s.links, func(l Link) bool { return l.Name == name })
}
