package egress_test

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/internal/egress"
)

// told collects what EndSockets is called with.
type told struct {
	mu    sync.Mutex
	addrs []string
}

func (l *told) end(addrs []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range addrs {
		l.addrs = append(l.addrs, a.String())
	}
}

// wants waits until nothing happens any more, and fails unless EndSockets was called with these addresses since the last time.
func (l *told) wants(t *testing.T, what string, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.addrs)
	if !slices.Equal(l.addrs, want) {
		t.Errorf("%s: told of %q, want %q", what, l.addrs, want)
	}
	l.addrs = nil
}

// tells runs f in a bubble with Sources that tell l.
func tells(t *testing.T, h *fakeHost, f func(t *testing.T, s *egress.Sources, l *told)) {
	t.Helper()
	l := new(told)
	lived(t, h, func(s *egress.Sources) { s.EndSockets = l.end }, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) { f(t, s, l) })
}

// TestEndSockets tells of each address once until it is back, also of one that is not there at first.
func TestEndSockets(t *testing.T) {
	h := newFakeHost("198.51.100.10", "2001:db8::10")
	tells(t, h, func(t *testing.T, s *egress.Sources, l *told) {
		s.Set([]egress.Source{single("one", "198.51.100.10", "2001:db8::10"), single("two", "198.51.100.11")})
		l.wants(t, "at first", "198.51.100.11")
		h.set("2001:db8::10", "198.51.100.11")
		l.wants(t, "one has lost an address", "198.51.100.10")
		h.set("198.51.100.11")
		l.wants(t, "and the other", "2001:db8::10")
		h.set("198.51.100.10", "2001:db8::10", "198.51.100.11")
		l.wants(t, "all are back")
		h.set("198.51.100.10")
		l.wants(t, "two are lost", "198.51.100.11", "2001:db8::10")
		s.TellAgain()
		l.wants(t, "told again", "198.51.100.11", "2001:db8::10")
		s.Set([]egress.Source{single("two", "198.51.100.11")})
		l.wants(t, "one is no source any more")
		h.set()
		l.wants(t, "its address goes, from which sockets may still leave", "198.51.100.10")
		s.TellAgain()
		l.wants(t, "of those that are known", "198.51.100.11")
	})
}

// TestEndSocketsHold waits for the longest hold of those who have the address.
func TestEndSocketsHold(t *testing.T) {
	h := newFakeHost("198.51.100.10", "198.51.100.11")
	tells(t, h, func(t *testing.T, s *egress.Sources, l *told) {
		one, other, free := single("one", "198.51.100.10"), single("198.51.100.10", "198.51.100.10"), single("free", "198.51.100.11")
		one.Hold = 5 * time.Second
		free.FreeBind = true
		s.Set([]egress.Source{other, one, free})
		h.set()
		time.Sleep(5*time.Second - 1)
		l.wants(t, "while it is held")
		h.set("198.51.100.10")
		synctest.Wait()
		h.set()
		time.Sleep(5*time.Second - 1)
		l.wants(t, "while it is held again")
		time.Sleep(time.Nanosecond)
		l.wants(t, "after that", "198.51.100.10")
		time.Sleep(time.Hour)
		l.wants(t, "an hour later")
	})
}

// TestEndSocketsLink tells of the addresses that a link had.
func TestEndSocketsLink(t *testing.T) {
	h := newFakeHost("198.51.100.10")
	tells(t, h, func(t *testing.T, s *egress.Sources, l *told) {
		s.Set([]egress.Source{following("dsl", "eth0")})
		h.set("198.51.100.11")
		l.wants(t, "another address", "198.51.100.10")
		h.set()
		l.wants(t, "none", "198.51.100.11")
		h.set("198.51.100.12")
		l.wants(t, "a third")
	})
}
