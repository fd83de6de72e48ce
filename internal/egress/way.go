package egress

import (
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/internal/host"
)

// A Way is how packets from a source leave this host.
type Way struct {
	Text  string // "eth0 via 198.51.100.1"; empty where there is none
	Fault error  // why they would be lost on it
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
	for _, x := range s.states {
		a := x.sample(now)
		if !a.IsValid() || x.source.FreeBind {
			x.way = Way{}
			continue
		}
		x.way = s.Way(s.sources[x.name], a)
	}
	return max(shortestPause, pauseFactor*time.Since(start))
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
