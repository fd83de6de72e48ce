package udprelay

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// destination is where a client sends to, and how its datagrams leave.
type destination struct {
	exit    *exit
	addr    pktinfo.Addr
	hole    *hole
	source  string         // whose limit it counts for; empty: none's
	name    *associateName // nil: the client names it by its address
	traffic *traffic       // of its source
	foreign bool           // the source need not be on this host
	flow    *flow          // by which the owner of a fixed port finds it; else nil

	last atomic.Int64 // when the last datagram went, in nanoseconds of Engine.now

	// The rest is under Association.mu.
	seen       int64 // a value that lastUsed has had
	prev, next *destination
	gone       bool
}

func (d *destination) lastUsed() int64 { return max(d.last.Load(), d.hole.last.Load()) }

// hole is a place in the filter by which answers come in. Destinations share it.
type hole struct {
	destinations int          // under Association.mu
	traffic      *traffic     // of the destination that made it
	last         atomic.Int64 // when the last answer came
}

// place is what the filter keeps of a datagram to or from peer, with local at our end.
func (f Filter) place(peer netip.AddrPort, local netip.Addr) netip.AddrPort {
	switch f {
	case FilterAddressAndPort:
		return peer
	case FilterNone:
		return netip.AddrPortFrom(local, 0)
	}
	return netip.AddrPortFrom(peer.Addr(), 0)
}

// holeFor returns the hole by which a datagram from a.Peer comes in, or nil.
// Association.mu is held.
func (x *exit) holeFor(a *pktinfo.Addr) *hole {
	f := x.association.settings.Filter
	h := x.sent[f.place(a.Peer, a.Local)]
	if h == nil && f == FilterNone {
		h = x.sent[netip.AddrPort{}] // the kernel chose the source of something
	}
	return h
}

// admit makes the destination of q, and forgets others where there are too many.
func (a *Association) admit(q *dialer.Flow, dec *dialer.Decision, name *associateName) (*destination, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errDraining
	}
	if a.engine.isOurs(q.Dst) {
		return nil, ErrLoop
	}
	r := routeOf(dec, q.Dst, 0)
	r.counts = a.counts
	a.makeRoom()
	source, err := a.engine.enterSource(dec)
	if err != nil {
		return nil, err
	}
	x, err := a.exitFor(r)
	if err != nil {
		a.engine.Limits.LeaveSource(source)
		return nil, err
	}
	d := &destination{
		exit:    x,
		addr:    pktinfo.Addr{Peer: r.peer, Local: r.source},
		name:    name,
		source:  source,
		traffic: a.counts.of(r.name),
		foreign: r.freeBind,
	}
	d.last.Store(int64(a.engine.now()))
	a.remember(d)
	if x.owner != nil { // whose reader may have an answer to d at once
		if err := a.engine.takePeer(d, r, a.settings.Flow.Client); err != nil {
			a.forget(d)
			return nil, err
		}
	}
	a.engine.Flows.Count(dec.Rule, r.name, nil)
	return d, nil
}

// makeRoom forgets destinations while there are too many of this association, or where
// there are too many of all, more than its share.
func (a *Association) makeRoom() {
	limit := a.settings.MaxDestinations
	if limit <= 0 {
		limit = defaultMaxDestinations
	}
	e := a.engine
	if e.destinations.Load() >= int64(e.limit()) {
		limit = min(limit, e.destinationShare())
	}
	for a.queue.len >= limit {
		a.forget(a.queue.oldest())
		a.counts.evicted.Add(1)
	}
}

// destinationShare is how many destinations each association may have when there are as
// many as all of them may have: those of one client are not to be at the cost of the
// others. There can be twice as many in all, until those who had more want another one.
func (e *Engine) destinationShare() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(1, e.limit()/max(1, len(e.associations.live)))
}

// remember puts d into the tables, as forget takes it out.
func (a *Association) remember(d *destination) {
	if d.name != nil {
		d.name.destination = d
	} else {
		a.destinations[d.addr.Peer] = d
	}
	p := a.settings.Filter.place(d.addr.Peer, d.addr.Local)
	h := d.exit.sent[p]
	if h == nil {
		h = &hole{traffic: d.traffic}
		d.exit.sent[p] = h
	}
	h.destinations++
	d.hole = h
	a.queue.push(d)
	a.engine.destinations.Add(1)
}

// forget makes the next datagram to d be decided anew, and closes the filter where
// nothing else keeps it open. A second call does nothing.
func (a *Association) forget(d *destination) {
	if d.gone || a.closed {
		return
	}
	d.gone = true
	if d.flow != nil {
		a.engine.mu.Lock()
		a.engine.leavePeer(d)
		a.engine.mu.Unlock()
	}
	if d.name != nil {
		d.name.destination = nil
	} else {
		delete(a.destinations, d.addr.Peer)
	}
	if d.hole.destinations--; d.hole.destinations == 0 {
		delete(d.exit.sent, a.settings.Filter.place(d.addr.Peer, d.addr.Local))
	}
	a.queue.remove(d)
	a.engine.destinations.Add(-1)
	a.engine.Limits.LeaveSource(d.source)
}

func (a *Association) idleTime() time.Duration {
	if a.settings.Idle > 0 {
		return a.settings.Idle
	}
	return defaultIdle
}

// expire forgets the destinations that have been idle for too long.
func (a *Association) expire(now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.queue.len > 0 && !a.closed {
		d := a.queue.oldest()
		if int64(now)-d.lastUsed() < int64(a.idleTime()) {
			return
		}
		if d.name != nil {
			a.forgetName(d.name)
			continue
		}
		a.forget(d)
	}
}

// unsent deals with a datagram to d that could not be sent. Where that is because its
// source is no longer on this host, the next one is decided anew.
func (a *Association) unsent(d *destination, err error) {
	if d.foreign || !a.engine.lost(d.source, d.addr.Local, err) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(d)
}

// refuse counts n datagrams that do not leave, and logs why unless that was done within
// the last second.
func (a *Association) refuse(q *dialer.Flow, dec *dialer.Decision, began time.Time, err error, n int) {
	e := a.engine
	if errors.Is(err, errDraining) {
		a.counts.drop(Draining, n)
		return
	}
	a.counts.drop(dropFor(err), n)
	i := flows.Info{
		Listener: q.Listener,
		User:     q.User,
		Session:  q.Session,
		Client:   q.Client,
		Network:  "udp",
		Dst:      q.Dst,
		Name:     q.Name,
		Rule:     dec.Rule,
		Src:      netip.AddrPortFrom(dec.Addr, dec.Port),
	}
	if dec.Source != nil {
		i.Source = dec.Source.Name
	}
	if e.refusals.allow(refusal{a.client, q.Listener, dec.Rule}, e.now()) {
		e.Flows.Refuse(i, began, fmt.Errorf("datagram: %w", err))
	} else {
		e.Flows.Count(i.Rule, i.Source, err)
	}
}

// dropFor returns the reason to count for a refusal.
func dropFor(err error) Drop {
	switch {
	case errors.Is(err, errUnresolved):
		return Unresolved
	case errors.Is(err, dialer.ErrLimit):
		return Limited
	}
	return Refused
}

// destinationQueue has the destination in front that was used longest ago, as far as
// it was looked at: one that was used since then goes to the back when it is to be
// forgotten, so that a datagram costs the queue nothing.
type destinationQueue struct {
	first, last *destination
	len         int
}

func (q *destinationQueue) push(d *destination) {
	d.seen = d.lastUsed()
	d.prev, d.next = q.last, nil
	if q.last != nil {
		q.last.next = d
	} else {
		q.first = d
	}
	q.last = d
	q.len++
}

func (q *destinationQueue) remove(d *destination) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		q.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		q.last = d.prev
	}
	d.prev, d.next = nil, nil
	q.len--
}

// oldest returns a destination that was not used since it was last looked at. The loop
// is bounded since all may be used meanwhile. It is not called on an empty queue.
func (q *destinationQueue) oldest() *destination {
	for range q.len {
		d := q.first
		if d.lastUsed() <= d.seen {
			break
		}
		q.remove(d)
		q.push(d)
	}
	return q.first
}
