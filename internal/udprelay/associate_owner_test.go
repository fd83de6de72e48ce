package udprelay

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestAnswerAtOnce has a peer speak all the time to a fixed port that is there already,
// while the destination with it begins and ends.
func TestAnswerAtOnce(t *testing.T) {
	e, _ := newEngine(t)
	outside := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), freePort(t, "127.0.0.4"))
	d := byRules(t, []dialer.Rule{{Name: "fixed", SourcePort: outside.Port(), Use: useOf("wan2", "127.0.0.4")}})
	first, eager := newPeer(t, "127.0.0.11:0", true), newPeer(t, "127.0.0.12:0", true)
	a := associate(t, e, d, nil)
	send(t, open(t, "127.0.0.9:0"), a.Addr(), datagram(first.addr, "x"))
	first.sources(t, 1) // the port is open

	var speaking sync.WaitGroup
	end := make(chan struct{})
	speaking.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				_, _ = eager.WriteToUDPAddrPort([]byte("news"), outside)
			}
		}
	})
	defer speaking.Wait()
	defer close(end)
	q := a.settings.Flow
	q.Dst = eager.addr
	for range 20000 { // before the answer had a hole to come in by, it panicked within these
		x := a.start(&q, nil)
		if x == nil {
			t.Fatal("the destination is refused")
		}
		a.mu.Lock()
		a.forget(x)
		a.mu.Unlock()
	}
}
