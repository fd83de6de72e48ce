package udprelay

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// Reasons for ending or refusing a flow, matched by errors.Is.
var (
	ErrEvicted    = errors.New("evicted, idle for the longest time")
	ErrPortTaken  = errors.New("source port is taken for this destination")
	ErrNotAllowed = errors.New("client is not allowed")
	ErrMoved      = errors.New("the configuration gives the client another source now")
	ErrDisplaced  = errors.New("its port is the source port of a listener or a rule")
	ErrLoop       = errors.New("the forward leads back to itself")
)

// keyOf returns the key of what a client sends, by its address and the one it asks.
func keyOf(a *pktinfo.Addr) key { return key{a.Peer, a.Local} }

// leg is where the datagrams of one direction go.
type leg struct {
	conn *pktinfo.Conn
	addr pktinfo.Addr
	// class is the TrafficClass they get.
	class uint8
}

// flow is one UDP conversation of a forward, or what an association has with a peer from
// a fixed port; that one is in the table of its owner alone. A hundred thousand of them are to fit into 100 MiB
// with all that belongs to them, so it has nothing that its entry has.
type flow struct {
	forward *Forward // nil of an association's
	owner   *owner
	entry   *flows.Flow // Client, Dst and Src are the ends of the conversation
	traffic *traffic
	asked   netip.Addr // by the client

	last     atomic.Int64 // when the last datagram came, in nanoseconds of Engine.now
	icmp     atomic.Int64
	lastICMP atomic.Pointer[pktinfo.SocketError]

	trunk *trunk      // where it is shared
	calls *calls      // likewise
	stale atomic.Bool // the settings would have it leave from elsewhere

	destination *destination // of an association

	number  uint32 // in Engine.numbers
	ifIndex int32  // where the client's first datagram came in
	class   uint8  // the TrafficClass of both ways
	kernel  bool   // the routing table chooses the source
	foreign bool   // the source need not be on this host

	// The rest is under Engine.mu.
	ended bool
	index int32         // in the heap
	seen  time.Duration // a value that last has had
}

// key returns what a datagram on way w is known by.
func (fl *flow) key(w way) key {
	if w == up {
		return key{fl.entry.Client, fl.asked}
	}
	return key{from: fl.entry.Dst}
}

// peer returns the far end.
func (fl *flow) peer() netip.AddrPort { return fl.entry.Dst }

// source returns the address that it leaves from; the zero Addr where the kernel chooses.
func (fl *flow) source() netip.Addr {
	if fl.kernel {
		return netip.Addr{}
	}
	return fl.entry.Src.Addr()
}

// leg returns where the datagrams of way w go.
func (fl *flow) leg(w way) leg {
	if w == up {
		return leg{fl.owner.conn, pktinfo.Addr{Peer: fl.entry.Dst, Local: fl.source()}, fl.class}
	}
	return leg{fl.forward.conn, pktinfo.Addr{Peer: fl.entry.Client, Local: fl.asked, IfIndex: int(fl.ifIndex)}, fl.class}
}

func (fl *flow) use(now time.Duration)   { fl.last.Store(int64(now)) }
func (fl *flow) lastUsed() time.Duration { return time.Duration(fl.last.Load()) }

// sent counts m.
func (fl *flow) sent(w way, m *pktinfo.Message) {
	n := m.N
	fl.traffic.relayed[w].Add(uint64(datagrams(m)))
	if w == up {
		fl.entry.Up.Add(int64(n))
	} else {
		fl.entry.Down.Add(int64(n))
	}
}

// unsent counts n datagrams that could not be sent. When that is because the source is
// no longer on this host, the flow ends, and the client's next datagram is decided anew.
func (fl *flow) unsent(w way, err error, n int) {
	e := fl.forward.engine
	fl.forward.counts().drop(Unsent, n)
	if w == up && !fl.foreign && e.lost(fl.entry.Source, fl.source(), err) {
		e.end(fl, fmt.Errorf("source %q: %w: %w", fl.entry.Source, flows.ErrSourceDown, err))
	}
}

// outcome is how an idle flow has ended: well, unless its datagrams were answered by
// ICMP errors.
func (fl *flow) outcome() error {
	n := fl.icmp.Load()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d ICMP errors, the last one: %w", n, fl.lastICMP.Load())
}

// idleHeap has the flow on top that was seen longest ago. Seen is brought up to date
// only for the one on top, so that a datagram costs the heap nothing.
type idleHeap []*flow

var _ heap.Interface = (*idleHeap)(nil)

func (h idleHeap) Len() int           { return len(h) }
func (h idleHeap) Less(i, j int) bool { return h[i].seen < h[j].seen }

func (h idleHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = int32(i), int32(j)
}

// Push is for package heap.
func (h *idleHeap) Push(x any) {
	fl := x.(*flow)
	fl.index = int32(len(*h))
	*h = append(*h, fl)
}

// Pop is for package heap.
func (h *idleHeap) Pop() any {
	old := *h
	last := len(old) - 1
	fl := old[last]
	old[last] = nil
	*h = old[:last]
	return fl
}

// add takes fl in.
func (h *idleHeap) add(fl *flow) {
	fl.seen = fl.lastUsed()
	heap.Push(h, fl)
}

// remove takes fl out.
func (h *idleHeap) remove(fl *flow) { heap.Remove(h, int(fl.index)) }

// oldest returns the flow that has been idle for the longest time, or nil. The loop
// is bounded since flows may be used meanwhile.
func (h *idleHeap) oldest() *flow {
	if len(*h) == 0 {
		return nil
	}
	for range len(*h) + 1 {
		top := (*h)[0]
		last := top.lastUsed()
		if last == top.seen {
			break
		}
		top.seen = last
		heap.Fix(h, 0)
	}
	return (*h)[0]
}
