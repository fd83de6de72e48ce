package config

import (
	"net/netip"
	"slices"

	"github.com/srcproxy/srcproxy/dialer"
)

// same warns where use = "same" refuses every client: of those that have connected to
// loopback, and of a forward to the other family.
func (w *warner) same() {
	const hint = "listen on the addresses that clients are to leave by"
	for i := range w.c.Listen {
		l := &w.c.Listen[i]
		switch {
		case l.Use == nil || !l.Use.Same:
		case !slices.ContainsFunc(l.Addrs, public):
			w.add("listener", l.Name, hint, `use = "same" refuses all clients: they connect to loopback, which is no address to leave by`)
		case l.To.Addr.IsValid() && !slices.ContainsFunc(l.Addrs, func(a netip.AddrPort) bool { return reaches(a.Addr(), l.To.Addr) }):
			w.add("listener", l.Name, hint, `use = "same" refuses all clients: they connect by the other family than that of %s`, l.To.Addr)
		}
	}
	if w.c.Default.Same && !w.anyPublic(nil) {
		w.add("default", "", hint, `the default "same" refuses all clients: they connect to loopback, which is no address to leave by`)
	}
	for i := range w.c.Rules {
		r := &w.c.Rules[i]
		if usesSame(r) && !w.anyPublic(r.Listener) {
			w.add("rule", ruleName(r, i), hint, `use = "same" refuses all clients: they connect to loopback, which is no address to leave by`)
		}
	}
}

// reaches reports whether a client that has connected to a can leave from there to dst.
func reaches(a, dst netip.Addr) bool {
	return a == netip.IPv6Unspecified() || a.Is4() == dst.Is4()
}

func usesSame(r *dialer.Rule) bool {
	for _, u := range r.Map {
		if u.Same {
			return true
		}
	}
	return r.Use.Same
}

// anyPublic reports whether one of the listeners that ask the rules has an address
// besides loopback. No names are all of them.
func (w *warner) anyPublic(names []string) bool {
	return slices.ContainsFunc(w.c.Listen, func(l Listener) bool {
		asks := l.Use == nil && (len(names) == 0 || slices.Contains(names, l.Name))
		return asks && slices.ContainsFunc(l.Addrs, public)
	})
}
