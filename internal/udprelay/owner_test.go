package udprelay

import (
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestReopenFixedPort opens a fixed port again right after its last flow has ended, first
// while its old reader waits for datagrams, and then while that waits for a batch, which
// all those have who wait for the engine.
func TestReopenFixedPort(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", true)
	outside := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), freePort(t, "127.0.0.4"))
	d := byRules(t, []dialer.Rule{{Name: "fixed", SourcePort: outside.Port(), Use: useOf("wan2", "127.0.0.4")}})
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr)})
	client := open(t, "127.0.0.1:0")
	for range 200 {
		send(t, client, addrPort(f.conn), "x")
		until(t, "there is a flow", func() bool { return e.Stats().Flows == 1 })
		e.mu.Lock()
		reopen(t, e, f)
	}
	send(t, client, addrPort(f.conn), "x")
	until(t, "there is a flow", func() bool { return e.Stats().Flows == 1 })
	e.mu.Lock()
	var waiting sync.WaitGroup
	for range maxBatches() {
		b := e.takeBatch()
		waiting.Go(func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.putBatch(b)
		})
	}
	_, _ = p.WriteToUDPAddrPort([]byte("an answer"), outside)
	until(t, "the reader waits for a batch", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "udprelay.(*Engine).takeBatch")
	})
	reopen(t, e, f)
	waiting.Wait()
}

// reopen ends the flow of f, and opens its fixed port again before anybody can have taken
// notice. Mu is held, and freed.
func reopen(t *testing.T, e *Engine, f *Forward) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer e.unlock()
		fl := f.idle[0]
		e.remove(fl, nil)
		o, err := e.fixedPort(&route{source: fl.source(), port: fl.owner.at.Port(), peer: fl.peer(), counts: f.counts()})
		if err == nil {
			e.release(o)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(limit):
		t.Fatal("the engine waits for the reader, and the reader for the engine")
	}
}
