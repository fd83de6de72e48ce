package egress_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/srcproxy/srcproxy/internal/egress"
)

// TestSlowWays: while the kernel takes its time to tell of a way, dials are not waiting for
// that, and neither is who asks how the sources are.
func TestSlowWays(t *testing.T) {
	address, other := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("198.51.100.11")
	dst, next := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	wrong := errors.New("packets leave by eth1")
	h := newFakeHost(address.String())
	var slow, slowDst chan struct{}
	set := func(s *egress.Sources) {
		s.Way = func(_ egress.Source, _, to netip.Addr) egress.Way {
			switch {
			case !to.IsValid() && slow != nil:
				<-slow
			case to == dst:
				<-slowDst
			}
			return egress.Way{Fault: wrong, Partly: true}
		}
	}
	lived(t, h, set, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		src := single("wan", address.String())
		s.Set([]egress.Source{src})
		synctest.Wait()
		slowDst = make(chan struct{})
		state := &egress.State{Host: h.Now(), Sources: s}
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			if err := state.Astray(src.Source, address, dst); err != wrong {
				t.Errorf("Astray: got %v, want %v", err, wrong)
			}
		}()
		synctest.Wait() // in the answer for that destination
		if err := state.Astray(src.Source, address, next); err != wrong {
			t.Errorf("Astray of another: got %v, want %v", err, wrong)
		}
		close(slowDst)
		<-asked

		slow = make(chan struct{})
		h.set(address.String(), "198.51.100.12")
		synctest.Wait() // Run is in the answer; a mutex that it holds would make all of this a deadlock
		ctx, done := state.While(t.Context(), src.Source, address)
		if ctx.Err() != nil || s.Lost("wan", address) || !s.Lost("wan", other) {
			t.Error("what is here and what is not is mistaken")
		}
		done()
		s.SetProbe("wan", address, wrong)
		if got := states(s); got != "wan 198.51.100.10 down: packets leave by eth1" {
			t.Errorf("got %q, want it down by its probe", got)
		}
		close(slow)
	})
}
