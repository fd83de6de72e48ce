package egress_test

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

// TestBroken refuses a source whose packets would take a wrong way, until the routes
// have changed.
func TestBroken(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.10")
	wrong := errors.New("packets leave by eth1")
	h := newFakeHost(address.String())
	var mu sync.Mutex
	way := egress.Way{Text: "eth1 via 192.0.2.1", Fault: wrong}
	asked := 0
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
	dst := netip.MustParseAddr("203.0.113.1")
	set := func(s *egress.Sources) {
		s.Way = func(src egress.Source, a, to netip.Addr) egress.Way {
			mu.Lock()
			defer mu.Unlock()
			asked++
			if src.Name != "wan" || a != address || to.IsValid() && to != dst {
				t.Errorf("asked for %v of %s to %v", a, src.Name, to)
			}
			return way
		}
	}
	lived(t, h, set, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		src := single("wan", address.String())
		s.Set([]egress.Source{src})
		state := &egress.State{Host: h.Now(), Sources: s}
		if got := s.Status()[0]; got.State != egress.Broken || got.Reason != wrong.Error() || got.Egress != "eth1 via 192.0.2.1" {
			t.Errorf("got %+v", got)
		}
		if err := state.Astray(src.Source, address, netip.Addr{}); err != wrong {
			t.Errorf("Astray to everywhere: got %v, want %v", err, wrong)
		}
		for range 3 {
			if err := state.Astray(src.Source, address, dst); err != wrong {
				t.Errorf("Astray: got %v, want %v", err, wrong)
			}
		}
		if n := count(); n > 3 {
			t.Errorf("asked %d times for one destination", n)
		}
		mu.Lock()
		way = egress.Way{Text: "eth0 via 198.51.100.1"}
		mu.Unlock()
		h.reroute()
		time.Sleep(time.Second)
		if got := s.Status()[0]; got.State != egress.Up || got.Egress != "eth0 via 198.51.100.1" || state.Astray(src.Source, address, dst) != nil {
			t.Errorf("after the routes changed: got %+v", got)
		}
		before := count()
		for range 100 { // as on a router
			h.reroute()
			time.Sleep(10 * time.Millisecond)
		}
		if n := count() - before; n < 2 || n > 6 {
			t.Errorf("asked %d times in a second of changes, want about 5", n)
		}
	})
}

// TestWayFirst does not use an address that comes before its way is known.
func TestWayFirst(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.10")
	h := newFakeHost()
	set := func(s *egress.Sources) {
		s.Way = func(egress.Source, netip.Addr, netip.Addr) egress.Way {
			return egress.Way{Fault: errors.New("wrong way")}
		}
	}
	lived(t, h, set, func(t *testing.T, s *egress.Sources, log *bytes.Buffer) {
		s.Set([]egress.Source{single("wan", address.String())})
		h.set(address.String())
		synctest.Wait()
		if got := states(s); got != "wan 198.51.100.10 broken: wrong way" {
			t.Errorf("got %s", got)
		}
		if bytes.Contains(log.Bytes(), []byte("state=up")) {
			t.Errorf("it was up before it was broken:\n%s", log)
		}
	})
}

// TestWayOf asks for an address that is on the host, whatever the source is.
func TestWayOf(t *testing.T) {
	h := newFakeHost("198.51.100.10", "198.51.100.70", "2001:db8::10", "2001:db8:64::/64")
	var asked []string
	s := &egress.Sources{Host: h, Way: func(src egress.Source, a, _ netip.Addr) egress.Way {
		asked = append(asked, src.Name+" "+a.String())
		return egress.Way{}
	}}
	free := single("free", "198.51.100.10")
	free.FreeBind = true
	s.Set([]egress.Source{
		single("both", "198.51.100.10", "2001:db8::10"),
		single("gone", "198.51.100.11"),
		free,
		{Source: &dialer.Source{Name: "link", Interface: "eth0"}},
		prefixed("crawl", "2001:db8:64::/64"),
		ranged("batch", "198.51.100.64", "198.51.100.95"),
	})
	want := []string{
		"both 198.51.100.10", "both 2001:db8::10", "link 198.51.100.10", "link 2001:db8::10",
		"crawl 2001:db8:64::1", "batch 198.51.100.70",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("got %q, want %q", asked, want)
	}
}

// TestPartlyAstray judges each destination where some packets of a source go right.
func TestPartlyAstray(t *testing.T) {
	address, right := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("203.0.113.1")
	h := newFakeHost(address.String())
	set := func(s *egress.Sources) {
		s.Way = func(_ egress.Source, _, dst netip.Addr) egress.Way {
			if dst == right {
				return egress.Way{}
			}
			return egress.Way{Text: "eth1, to some destinations", Fault: errors.New("wrong way"), Partly: true}
		}
	}
	lived(t, h, set, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		src := single("wan", address.String())
		s.Set([]egress.Source{src})
		if got := s.Status()[0]; got.State != egress.Up || got.Egress != "eth1, to some destinations" {
			t.Errorf("got %+v", got)
		}
		state := &egress.State{Host: h.Now(), Sources: s}
		if err := state.Astray(src.Source, address, netip.Addr{}); err != nil {
			t.Errorf("Astray to everywhere: got %v, want nil", err)
		}
		if err := state.Astray(src.Source, address, right); err != nil {
			t.Errorf("a destination that is reached: %v", err)
		}
		if err := state.Astray(src.Source, address, netip.MustParseAddr("203.0.113.2")); err == nil {
			t.Error("a destination that is not reached is let through")
		}
		if n := testing.AllocsPerRun(100, func() { _ = state.Astray(src.Source, address, right) }); n != 0 {
			t.Errorf("got %v allocations, want 0", n)
		}
	})
}
