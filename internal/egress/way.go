package egress

import (
	"net/netip"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// A Way is how packets from a source leave this host.
type Way struct {
	Text  string // "eth0 via 198.51.100.1"; empty where there is none
	Fault error  // why they would be lost on it

	// Partly says that packets to some destinations are not lost; Text is then how those
	// leave.
	Partly bool
}

// The pause between two looks at the ways: routes change in bursts, and on a router all
// the time.
const (
	shortestPause = 200 * time.Millisecond
	pauseFactor   = 50 // of what a look takes
)

// looks are the looks at the ways, one after the other.
type looks struct {
	wanted bool
	again  time.Time // not before
}

// take looks, if that is wanted and not too soon.
func (l *looks) take(s *Sources) {
	if !l.wanted || time.Now().Before(l.again) {
		return
	}
	l.wanted = false
	s.asking.Lock()
	defer s.asking.Unlock()
	start := time.Now()
	s.mu.Lock()
	states, sources := s.states, s.sources // neither changes while asking is held
	s.mu.Unlock()
	ways := s.ask(states, sources)
	l.again = time.Now().Add(max(shortestPause, pauseFactor*time.Since(start)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(states, sources, ways)
}

// ask asks for the ways of all states that have an address. Whom it asks may take its
// time, for which dials must not wait: mu is not held, and asking is.
func (s *Sources) ask(states []*state, sources map[string]Source) []Way {
	ways := make([]Way, len(states))
	if s.Way == nil {
		return ways
	}
	now := s.Host.Now()
	for i, x := range states {
		src := sources[x.name]
		if a := sample(src.Source, x.is4, now); a.IsValid() && !src.FreeBind {
			ways[i] = s.Way(src, a, netip.Addr{})
		}
	}
	return ways
}

// keep keeps the ways that ask has found. Mu is held.
func (s *Sources) keep(states []*state, sources map[string]Source, ways []Way) {
	suspects := make(map[place]*suspect)
	for i, x := range states {
		x.way = ways[i]
		if x.way.Fault == nil {
			continue
		}
		y := &suspect{source: sources[x.name], known: make(map[netip.Addr]error)}
		if !x.way.Partly {
			y.broken = x.way.Fault
		}
		suspects[x.place] = y
	}
	s.suspects.Store(&suspects)
}

// suspect is a source whose packets go astray, to some destinations at least. Each look
// makes it anew.
type suspect struct {
	source Source
	broken error // why all packets go astray; nil: some do not

	mu    sync.Mutex
	known map[netip.Addr]error // by destination
}

// maxKnown bounds the destinations that are remembered for a suspect.
const maxKnown = 1024

// astray returns why packets of a source from a to dst would be lost, or where dst is not
// valid, wherever they go.
func (s *Sources) astray(name string, a, dst netip.Addr) error {
	suspects := s.suspects.Load()
	if suspects == nil {
		return nil
	}
	x := (*suspects)[place{name, a.Is4()}]
	switch {
	case x == nil:
		return nil
	case !dst.IsValid():
		return x.broken
	}
	x.mu.Lock()
	fault, ok := x.known[dst]
	x.mu.Unlock()
	if ok {
		return fault
	}
	fault = s.Way(x.source, a, dst).Fault // others need not wait for that answer
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.known) >= maxKnown {
		clear(x.known)
	}
	x.known[dst] = fault
	return fault
}

// sample returns an address of src that is on this host; the zero Addr where there is none.
func sample(src *dialer.Source, is4 bool, now *host.Snapshot) netip.Addr {
	var a netip.Addr
	switch {
	case src.Interface != "":
		a = now.LinkAddr(src.Interface, is4)
	case src.Prefix.IsValid():
		a = src.Prefix.Masked().Addr().Next() // not the subnet-router anycast address
	case src.First.IsValid():
		a = src.First
		for _, have := range now.Addresses() {
			if within(src, have.Addr) {
				a = have.Addr
				break
			}
		}
	default:
		for _, fixed := range src.Addrs {
			if fixed.Is4() == is4 {
				a = fixed
			}
		}
	}
	if !a.IsValid() || !now.Local(a) {
		return netip.Addr{}
	}
	return a
}
