package egress

import (
	"net/netip"
	"sync"
	"time"

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

// take looks, if that is wanted and not too soon. Mu of s is held.
func (l *looks) take(s *Sources) {
	if l.wanted && !time.Now().Before(l.again) {
		l.wanted = false
		l.again = time.Now().Add(s.look())
	}
}

// look asks for the ways of all sources that have an address. It returns for how long
// not to ask again. Mu is held.
func (s *Sources) look() (pause time.Duration) {
	if s.Way == nil {
		return shortestPause
	}
	start, now := time.Now(), s.Host.Now()
	suspects := make(map[place]*suspect)
	for _, x := range s.states {
		a := x.sample(now)
		if !a.IsValid() || x.source.FreeBind {
			x.way = Way{}
			continue
		}
		x.way = s.Way(s.sources[x.name], a, netip.Addr{})
		if x.way.Fault == nil {
			continue
		}
		y := &suspect{source: s.sources[x.name], known: make(map[netip.Addr]error)}
		if !x.way.Partly {
			y.broken = x.way.Fault
		}
		suspects[x.place] = y
	}
	s.suspects.Store(&suspects)
	return max(shortestPause, pauseFactor*time.Since(start))
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
	defer x.mu.Unlock()
	fault, ok := x.known[dst]
	if !ok {
		fault = s.Way(x.source, a, dst).Fault
		if len(x.known) >= maxKnown {
			clear(x.known)
		}
		x.known[dst] = fault
	}
	return fault
}

// sample returns an address of x that is on this host; the zero Addr where there is none.
func (x *state) sample(now *host.Snapshot) netip.Addr {
	src, a := x.source, x.addr
	switch {
	case src.Interface != "":
		a = now.LinkAddr(src.Interface, x.is4)
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
	}
	if !a.IsValid() || !now.Local(a) {
		return netip.Addr{}
	}
	return a
}
