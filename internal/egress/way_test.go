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
	lived(t, h, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		var mu sync.Mutex
		way := egress.Way{Text: "eth1 via 192.0.2.1", Fault: wrong}
		asked := 0
		s.Way = func(src egress.Source, a netip.Addr) egress.Way {
			mu.Lock()
			defer mu.Unlock()
			asked++
			if src.Name != "wan" || a != address {
				t.Errorf("asked for %v of %s", a, src.Name)
			}
			return way
		}
		src := single("wan", address.String())
		s.Set([]egress.Source{src})
		state := &egress.State{Host: h.Now(), Sources: s}
		if got := s.Status()[0]; got.State != egress.Broken || got.Reason != wrong.Error() || got.Egress != "eth1 via 192.0.2.1" {
			t.Errorf("got %+v", got)
		}
		if err := state.Down(src.Source, address); err != wrong {
			t.Errorf("Down: got %v, want %v", err, wrong)
		}
		mu.Lock()
		way = egress.Way{Text: "eth0 via 198.51.100.1"}
		mu.Unlock()
		h.reroute()
		time.Sleep(time.Second)
		if got := s.Status()[0]; got.State != egress.Up || got.Egress != "eth0 via 198.51.100.1" || state.Down(src.Source, address) != nil {
			t.Errorf("after the routes changed: got %+v", got)
		}
		before := asked
		for range 100 { // as on a router
			h.reroute()
			time.Sleep(10 * time.Millisecond)
		}
		if n := asked - before; n < 2 || n > 6 {
			t.Errorf("asked %d times in a second of changes, want about 5", n)
		}
	})
}

// TestWayFirst does not use an address that comes before its way is known.
func TestWayFirst(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.10")
	h := newFakeHost()
	lived(t, h, func(t *testing.T, s *egress.Sources, log *bytes.Buffer) {
		s.Way = func(egress.Source, netip.Addr) egress.Way { return egress.Way{Fault: errors.New("wrong way")} }
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
	lived(t, h, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		var asked []string
		s.Way = func(src egress.Source, a netip.Addr) egress.Way {
			asked = append(asked, src.Name+" "+a.String())
			return egress.Way{}
		}
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
	})
}
