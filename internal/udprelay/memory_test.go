package udprelay

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// TestFlowMemory opens flows of many clients to many targets, which share their
// sockets: each takes at most 768 bytes, its parts of the tables and sockets included.
func TestFlowMemory(t *testing.T) {
	const clients, targets, most = 500, 20, 768
	e, _ := newEngine(t)
	e.Flows.SetLogging(false, false)
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2")})
	var forwards []*Forward
	for i := range targets {
		forwards = append(forwards, forward(t, e, "127.0.0.1:0", &Settings{
			Name:   fmt.Sprint("forward ", i),
			Dialer: d,
			Target: to(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(20000+i))),
		}))
	}
	before := heapInUse()
	for i := range clients {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 5000)
		for _, f := range forwards {
			m := pktinfo.Message{Addr: pktinfo.Addr{Peer: client, Local: netip.MustParseAddr("127.0.0.1")}}
			if f.start(&m) == nil {
				t.Fatalf("client %v has no flow", client)
			}
		}
	}
	each := (heapInUse() - before) / (clients * targets)
	if each > most {
		t.Errorf("a flow takes %d bytes, want at most %d", each, most)
	}
	if s := e.Stats(); s.Owners != clients || s.Flows != clients*targets {
		t.Errorf("%d flows leave from %d sockets, want %d from %d", s.Flows, s.Owners, clients*targets, clients)
	}
	t.Logf("%d bytes for each of %d flows", each, clients*targets)
}

// heapInUse is what is in use. A pool lets go of what it has at the second collection.
func heapInUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
