package udprelay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestAssociateNames resolves each name once, and holds nothing else up meanwhile.
func TestAssociateNames(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	r := &resolver{gate: make(chan struct{}), names: map[string][]netip.Addr{
		"peer.example": {p.addr.Addr()},
		"slow.example": {p.addr.Addr()},
		"bad.example":  {netip.MustParseAddr("127.0.0.66")},
	}}
	d := rulesTo(t, map[string]dialer.Use{"127.0.0.11": useOf("wan1", "127.0.0.2")})
	d.Resolver = r
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	port := p.addr.Port()
	for i := range maxQueued + 1 {
		send(t, c, a.Addr(), named("slow.example", port, string(rune('a'+i))))
	}
	until(t, "one is too many", func() bool { return dropped(e, Waiting) == 1 })
	for range 5 {
		send(t, c, a.Addr(), named("peer.example", port, "ping"))
		if got, from := hear(t, c, a); got != "ping" || from != p.addr {
			t.Fatalf("got %q from %v, want the ping from %v", got, from, p.addr)
		}
	}
	through(t, c, a, p.addr, "by address")
	close(r.gate)
	for i := range maxQueued {
		if got, _ := hear(t, c, a); got != string(rune('a'+i)) {
			t.Errorf("datagram %d of the slow name is %q", i, got)
		}
	}
	if n := r.asked.Load(); n != 2 {
		t.Errorf("the resolver was asked %d times for 2 names", n)
	}
	for range 3 {
		send(t, c, a.Addr(), named("bad.example", port, "never"))
		send(t, c, a.Addr(), named("none.example", port, "never"))
	}
	until(t, "both names are refused", func() bool { return dropped(e, Refused) == 3 && dropped(e, Unresolved) == 3 })
	if n := r.asked.Load(); n != 4 {
		t.Errorf("the resolver was asked %d times for 4 names", n)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.queued != 0 || a.lookups != 0 {
		t.Errorf("%d bytes and %d look-ups are left", a.queued, a.lookups)
	}
}

// TestAssociateEndsLookups closes an association while a name is looked up.
func TestAssociateEndsLookups(t *testing.T) {
	e, _ := newEngine(t)
	d := always(t, useOf("wan1", "127.0.0.2"))
	d.Resolver = &resolver{gate: make(chan struct{})}
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	send(t, c, a.Addr(), named("slow.example", 9, "x"))
	until(t, "it waits", func() bool { a.mu.RLock(); defer a.mu.RUnlock(); return a.lookups == 1 })
	began := time.Now()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("Close took %v", d)
	}
}

// TestAssociateManyNames keeps the names of one association bounded.
func TestAssociateManyNames(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", true)
	r := &resolver{names: make(map[string][]netip.Addr)}
	d := always(t, useOf("wan1", "127.0.0.2"))
	d.Resolver = r
	var all []string
	for i := range maxNames + 50 {
		all = append(all, strings.Repeat("x", 1+i%50)+string(rune('a'+i/50))+".example")
		r.names[all[i]] = []netip.Addr{p.addr.Addr()}
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != maxNames+50 {
		t.Fatal("the names repeat")
	}
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	for i, name := range all {
		send(t, c, a.Addr(), named(name, p.addr.Port(), name))
		p.sources(t, i+1)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if len(a.names) > maxNames || a.queue.len > maxNames {
		t.Errorf("%d names and %d destinations are kept, want at most %d", len(a.names), a.queue.len, maxNames)
	}
}
