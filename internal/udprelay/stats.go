package udprelay

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Drop is a reason for which a datagram was not relayed.
type Drop uint8

// The reasons.
const (
	Stranger    Drop = iota // it came from an address to which no flow leads
	Truncated               // it was longer than the buffer
	Refused                 // the rules, or the list of clients, refuse its flow
	Unresolved              // the target's name has no address now
	Waiting                 // too many wait for the target's name
	Draining                // it would have started a flow on a forward that takes no more
	NoLocal                 // it was sent to a group, from which no answer can leave
	Unsent                  // the kernel would not send it
	NotClient               // it came to an association, and not from its client
	Fragment                // it is a fragment, which RFC 1928 section 7 lets a relay drop
	Short                   // it is shorter than its header
	AddressType             // its header has an unknown type of address
	PortZero                // its header names port 0
	Unspecified             // its header names 0.0.0.0 or ::
	BadName                 // its header names what is no name
	Unmatched               // it came to a port that clients share, and is for none of them
	KeepAlive               // likewise, and needs no answer
	numDrops
)

var dropNames = [numDrops]string{
	"stranger", "truncated", "refused", "unresolved", "waiting", "draining", "no-local", "unsent",
	"not-client", "fragment", "short", "address-type", "port-zero", "unspecified", "bad-name", "sip-unmatched", "keep-alive",
}

// String returns the word for metrics.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return "unknown"
}

// Stats is what an Engine has counted since it was made.
type Stats struct {
	Flows   int              // live now
	Owners  int              // sockets that datagrams leave from, now
	Up      uint64           // datagrams relayed to the peers
	Down    uint64           // and to the clients
	Evicted uint64           // flows that were ended to make room
	ICMP    uint64           // ICMP errors that answered datagrams
	Dropped [numDrops]uint64 // datagrams, by Drop

	Associations int // live now
	Destinations int // that they remember now
}

// counters are the ones of Stats while they count.
type counters struct {
	relayed [2]atomic.Uint64
	evicted atomic.Uint64
	icmp    atomic.Uint64
	dropped [numDrops]atomic.Uint64

	destinations atomic.Int64 // of associations, now
}

func (c *counters) drop(d Drop, n int) { c.dropped[d].Add(uint64(n)) }

// Stats returns what was counted.
func (e *Engine) Stats() Stats {
	s := Stats{
		Up:      e.counters.relayed[up].Load(),
		Down:    e.counters.relayed[down].Load(),
		Evicted: e.counters.evicted.Load(),
		ICMP:    e.counters.icmp.Load(),
	}
	for i := range s.Dropped {
		s.Dropped[i] = e.counters.dropped[i].Load()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Flows, s.Owners = e.count, len(e.owners)
	s.Associations = len(e.associations.live)
	s.Destinations = int(e.counters.destinations.Load())
	return s
}

// maxRefusals bounds the lines about refused flows in a second.
const maxRefusals = 20

// limiter lets a refusal be logged once a second for each client and rule, and 20
// times a second in all. The zero value is ready.
type limiter struct {
	mu    sync.Mutex
	since time.Duration // start of the second that n counts in
	n     int
	last  map[refusal]time.Duration
}

type refusal struct {
	client         netip.Addr
	listener, rule string
}

// allow tells whether r is to be logged now.
func (l *limiter) allow(r refusal, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = make(map[refusal]time.Duration)
	}
	if now-l.since >= time.Second {
		l.since, l.n = now, 0
		maps.DeleteFunc(l.last, func(_ refusal, t time.Duration) bool { return now-t >= time.Second })
	}
	t, seen := l.last[r]
	if seen && now-t < time.Second || l.n == maxRefusals {
		return false
	}
	l.n++
	l.last[r] = now
	return true
}
