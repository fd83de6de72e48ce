package explain

import (
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

// asked returns where the client of f connects to, as far as its listener tells: an
// address of the destination's family where it has one. On a wildcard that is not known.
func (e *Explainer) asked(f *dialer.Flow) netip.AddrPort {
	best := f.Asked
	if best.IsValid() {
		return best
	}
	for i := range e.Config.Listen {
		if e.Config.Listen[i].Name != f.Listener {
			continue
		}
		for _, a := range e.Config.Listen[i].Addrs {
			if a.Addr().Is4() == f.Dst.Addr().Is4() {
				return a
			}
			best = a
		}
	}
	return best
}
