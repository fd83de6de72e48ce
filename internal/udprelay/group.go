package udprelay

import (
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// groupKey tells which owners can serve a flow whose port is free.
type groupKey struct {
	addr     netip.Addr
	ports    dialer.PortRange
	freeBind bool
	steering steering
}

// group is the owners with free ports of one address. Flows take the first one whose
// slot for their peer is free.
type group struct {
	key    groupKey
	owners []*owner
	// from[peer] is an index below which all owners have a flow with peer. It is
	// lowered when one of those ends, and gone when the first has none.
	from map[netip.AddrPort]int
	// full is until when no further port is asked for. The kernel's search for a free
	// one among none takes milliseconds, and a flood of clients would ask for each.
	full time.Duration
}

// fullFor is how long a group without a free port waits before it asks again.
const fullFor = 100 * time.Millisecond

// first returns the index of the first owner without a flow to peer; len(owners) if
// all have one.
func (g *group) first(peer netip.AddrPort) int {
	i := g.from[peer]
	for i < len(g.owners) && g.owners[i].flow(peer) != nil {
		i++
	}
	if i > 0 {
		g.from[peer] = i
	}
	return i
}

// free notes that owner i has no flow to peer any more.
func (g *group) free(peer netip.AddrPort, i int) {
	switch from := g.from[peer]; {
	case from <= i:
	case i == 0:
		delete(g.from, peer)
	default:
		g.from[peer] = i
	}
}

// drop takes owner i out. It has no flows, so no from is above i, and the last owner
// may take its place.
func (g *group) drop(i int) {
	last := len(g.owners) - 1
	g.owners[i] = g.owners[last]
	g.owners[i].index = i
	g.owners[last] = nil
	g.owners = g.owners[:last]
}
