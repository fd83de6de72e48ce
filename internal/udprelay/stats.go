package udprelay

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/srcproxy/srcproxy/internal/sip"
	"github.com/srcproxy/srcproxy/pktinfo"
)

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

// ListenerStats is the part of Stats that one listener has. What happens on a socket
// that several listeners send from is counted for the one that has opened it, unless
// it is of a flow.
type ListenerStats struct {
	Listener string
	Sources  []SourceStats // by their names
	Evicted  uint64
	ICMP     uint64
	Dropped  [numDrops]uint64
}

// SourceStats counts the datagrams that were relayed for a listener and a source.
type SourceStats struct {
	Source   string
	Up, Down uint64
}

// TrunkStats is what is known of a port that SIP clients share, since it was taken.
type TrunkStats struct {
	Listener string // that has taken it
	Addr     netip.AddrPort
	Clients  int // flows that share it now
	SIP      sip.Stats
}

// counters counts for one listener.
type counters struct {
	listener string
	evicted  atomic.Uint64
	icmp     atomic.Uint64
	dropped  [numDrops]atomic.Uint64

	mu      sync.Mutex
	sources map[string]*traffic
}

// traffic counts the datagrams of a listener that leave from one source, and those
// that come back.
type traffic struct {
	source  string
	relayed [2]atomic.Uint64 // by way
}

func (c *counters) drop(d Drop, n int) { c.dropped[d].Add(uint64(n)) }

// overflow counts what the kernel has dropped on conn, which is about to be closed.
func (c *counters) overflow(conn *pktinfo.Conn) { c.dropped[Overflow].Add(lost(conn)) }

// lost is what the kernel has dropped on c; none where c is closed, since it was counted then.
func lost(c *pktinfo.Conn) uint64 {
	n, err := c.Dropped()
	if err != nil {
		return 0
	}
	return n
}

// of returns the counter for a source.
func (c *counters) of(source string) *traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.sources[source]
	if t == nil {
		t = &traffic{source: source}
		c.sources[source] = t
	}
	return t
}

// stats returns what was counted, besides Overflow on sockets that are open.
func (c *counters) stats() ListenerStats {
	s := ListenerStats{Listener: c.listener, Evicted: c.evicted.Load(), ICMP: c.icmp.Load()}
	for i := range s.Dropped {
		s.Dropped[i] = c.dropped[i].Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.sources {
		s.Sources = append(s.Sources, SourceStats{t.source, t.relayed[up].Load(), t.relayed[down].Load()})
	}
	slices.SortFunc(s.Sources, func(a, b SourceStats) int { return strings.Compare(a.Source, b.Source) })
	return s
}

// tallies are the counters of all listeners that have been there. The zero value has none.
type tallies struct {
	mu sync.Mutex
	by map[string]*counters
}

// of returns the counters of a listener. They outlive it, as counters do.
func (t *tallies) of(listener string) *counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.by[listener]
	if c == nil {
		if t.by == nil {
			t.by = make(map[string]*counters)
		}
		c = &counters{listener: listener, sources: make(map[string]*traffic)}
		t.by[listener] = c
	}
	return c
}

func (t *tallies) all() []*counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*counters, 0, len(t.by))
	for _, c := range t.by {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *counters) int { return strings.Compare(a.listener, b.listener) })
	return all
}

// Stats returns what was counted in all.
func (e *Engine) Stats() Stats {
	var s Stats
	for _, l := range e.Listeners() {
		for _, x := range l.Sources {
			s.Up += x.Up
			s.Down += x.Down
		}
		s.Evicted += l.Evicted
		s.ICMP += l.ICMP
		for i, n := range l.Dropped {
			s.Dropped[i] += n
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Flows, s.Owners = e.count, len(e.owners)
	s.Associations = len(e.associations.live)
	s.Destinations = int(e.destinations.Load())
	return s
}

// Listeners returns what was counted for each listener that has been there, by their
// names. It asks the kernel about each open socket.
func (e *Engine) Listeners() []ListenerStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	overflow := make(map[*counters]uint64)
	for f := range e.forwards {
		overflow[f.counts()] += lost(f.conn)
	}
	for _, o := range e.owners {
		overflow[o.counts] += lost(o.conn)
	}
	for a := range e.associations.live {
		overflow[a.counts] += a.lost()
	}
	all := e.tallies.all()
	out := make([]ListenerStats, len(all))
	for i, c := range all {
		out[i] = c.stats()
		out[i].Dropped[Overflow] += overflow[c]
	}
	return out
}

// Trunks returns the ports that SIP clients share now, by their addresses.
func (e *Engine) Trunks() []TrunkStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []TrunkStats
	for _, o := range e.owners {
		if o.trunk != nil {
			out = append(out, o.trunk.stats())
		}
	}
	slices.SortFunc(out, func(a, b TrunkStats) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Listener, b.Listener))
	})
	return out
}
