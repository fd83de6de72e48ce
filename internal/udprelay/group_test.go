package udprelay

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/internal/flows"
)

// TestGroup compares the group with the rule it stands for: the first owner without
// that peer, and no more owners than there must be.
func TestGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	g := &group{from: make(map[netip.AddrPort]int)}
	type slot struct {
		o  *owner
		fl *flow
	}
	var live []slot
	var numbers flowList
	leave := func(s slot) {
		s.o.peers.remove(s.fl)
		g.free(s.fl.peer(), s.o.index)
		if s.o.peers.len == 0 {
			g.drop(s.o.index)
		}
		numbers.remove(s.fl)
	}
	for step := range 20000 {
		if len(live) > 0 && r.IntN(100) < 48 {
			i := r.IntN(len(live))
			s := live[i]
			live = append(live[:i], live[i+1:]...)
			leave(s)
			continue
		}
		peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(1+r.IntN(8)))
		want := 0
		for want < len(g.owners) && g.owners[want].flow(peer) != nil {
			want++
		}
		got := g.first(peer)
		if got != want {
			t.Fatalf("step %d: owner %d, want %d of %d", step, got, want, len(g.owners))
		}
		if got == len(g.owners) {
			g.owners = append(g.owners, &owner{group: g, index: got, peers: flowTable{way: down, all: &numbers}})
		}
		fl := &flow{entry: &flows.Flow{Info: flows.Info{Dst: peer}}}
		numbers.add(fl)
		g.owners[got].peers.put(fl)
		live = append(live, slot{g.owners[got], fl})
	}
	for _, s := range live {
		leave(s)
	}
	if len(g.owners) != 0 || len(g.from) != 0 {
		t.Errorf("%d owners and %d peers are left", len(g.owners), len(g.from))
	}
}
