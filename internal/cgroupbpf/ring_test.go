//go:build linux

package cgroupbpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestRingForgets: rules that were exchanged are let go of, also while the hooks decide nothing.
func TestRingForgets(t *testing.T) {
	a := newAsker(t)
	a.OnDecision = func(*Event) {}
	source := &dialer.Source{Name: "wan", Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.10")}}
	table, err := dialer.NewTable(nil, dialer.Use{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		a.set(t, table, Options{Log: true})
	}
	known := func() int {
		a.ring.mu.Lock()
		defer a.ring.mu.Unlock()
		return len(a.ring.epochs)
	}
	for end := time.Now().Add(10 * time.Second); known() != 1; <-time.After(readEvery) {
		if time.Now().After(end) {
			t.Fatalf("%d sets of rules are known, want only those that hold", known())
		}
	}
}
