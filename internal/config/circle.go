package config

import "net/netip"

// circles reports TCP forwards that lead back to themselves through others: one
// connection would go round until no descriptor is left.
func (d *decoder) circles() {
	listen := d.config.Listen
	for i := range listen {
		if listen[i].Kind != TCP {
			continue
		}
		at := i
		for range listen {
			next := d.leadsTo(&listen[at])
			if next < 0 || next == at { // the latter has been reported
				break
			}
			if at = next; at == i {
				d.fault(d.leads[i], "write the address of the server", "to: %s leads back to this listener, through other forwards", listen[i].To)
				break
			}
		}
	}
}

// leadsTo returns the place of the TCP forward that listens where l leads, or -1.
func (d *decoder) leadsTo(l *Listener) int {
	for i := range d.config.Listen {
		m := &d.config.Listen[i]
		if m.Kind == TCP && l.To.Addr.IsValid() && m.receives(netip.AddrPortFrom(l.To.Addr, l.To.Port)) {
			return i
		}
	}
	return -1
}

// receives reports whether what is sent to a comes to l. Of a wildcard that is known
// only for loopback: other addresses may be another host's.
func (l *Listener) receives(a netip.AddrPort) bool {
	for _, b := range l.Addrs {
		if b.Port() == a.Port() && (b.Addr() == a.Addr() || a.Addr().IsLoopback() && overlap(a.Addr(), b.Addr())) {
			return true
		}
	}
	return false
}
