package server

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// ports is a row of ports of one address and one listener.
type ports []netip.AddrPort

// ranges returns the addresses of the forwards that were opened, those of a range of
// ports together.
func ranges(opened map[netip.AddrPort]*udprelay.Forward, p *plan) []ports {
	var out []ports
	for _, a := range slices.SortedFunc(maps.Keys(opened), netip.AddrPort.Compare) {
		if n := len(out); n > 0 {
			row := out[n-1]
			last := row[len(row)-1]
			if last.Addr() == a.Addr() && last.Port()+1 == a.Port() && p.udp[last] == p.udp[a] {
				out[n-1] = append(row, a)
				continue
			}
		}
		out = append(out, ports{a})
	}
	return out
}

// text is the row for the log: the real address of a single one, as the kernel may
// have chosen the port.
func (r ports) text(opened map[netip.AddrPort]*udprelay.Forward) string {
	if len(r) == 1 {
		return opened[r[0]].Addr().String()
	}
	return fmt.Sprintf("%v-%d", r[0], r[len(r)-1].Port())
}
