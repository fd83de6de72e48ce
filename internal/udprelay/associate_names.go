package udprelay

import (
	"bytes"
	"context"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/socks"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// Bounds of the names of an association, besides those of a forward's.
const (
	maxNames          = 256
	maxLookups        = 32        // at a time
	maxAssociateQueue = 256 << 10 // bytes that wait for names
)

// associateName is a name that the client sends to. It is resolved once while the
// association remembers it. All is under Association.mu.
type associateName struct {
	dst         socks.Addr // in Association.names
	resolving   bool
	datagrams   [][]byte // that wait, copies
	query       dialer.Flow
	destination *destination // nil: forgotten, or none was admitted yet
	header      string       // in Association.headers, empty: none yet

	// When there is no address: what is counted until there is another try.
	reason Drop
	retry  time.Duration
}

// resolved tells whether n has an address.
func (n *associateName) resolved() bool { return n.query.Dst.Addr().IsValid() }

// byHeader returns the destination and the payload of b where it begins with a header
// that has led to a destination before; else nil. Other than a parse it needs no memory
// for the name.
func (a *Association) byHeader(b []byte) (*destination, []byte) {
	if len(b) < 5 || b[2] != 0 || b[3] != 3 { // FRAG and ATYP, RFC 1928 section 7
		return nil, nil
	}
	end := 5 + int(b[4]) + 2
	if len(b) < end {
		return nil, nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	n := a.headers[string(b[4:end])]
	if n == nil {
		return nil, nil
	}
	return n.destination, b[end:]
}

// keepHeader makes byHeader find n by h, unless it does by another spelling.
func (a *Association) keepHeader(n *associateName, h []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n.header == "" && n.destination != nil {
		n.header = string(h[4:])
		a.headers[n.header] = n
	}
}

// byName returns the destination for g, or nil where it is refused or has to wait for
// its name; a copy of its payload is kept then. None holds up another.
func (a *Association) byName(g *socks.Datagram) *destination {
	n, d := a.lookUp(g)
	switch {
	case d != nil:
		return d
	case n == nil:
		return nil
	}
	q := n.query // it does not change any more
	return a.start(&q, n)
}

// lookUp returns what is known of the name of g. Both are nil where g was taken care of.
func (a *Association) lookUp(g *socks.Datagram) (*associateName, *destination) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.engine
	n := a.names[g.Dst]
	switch {
	case a.closed:
		a.counts.drop(Draining, 1)
		return nil, nil
	case n != nil && n.resolved():
		return n, n.destination
	case n != nil && !n.resolving && e.now() < n.retry:
		a.counts.drop(n.reason, 1)
		return nil, nil
	case a.isFull(n, len(g.Payload)):
		a.counts.drop(Waiting, 1)
		return nil, nil
	}
	if n == nil {
		n = &associateName{dst: g.Dst}
		a.dropName()
		a.names[g.Dst] = n
	}
	n.datagrams = append(n.datagrams, bytes.Clone(g.Payload))
	a.queued += len(g.Payload)
	if !n.resolving {
		n.resolving = true
		a.lookups++
		dst := g.Dst
		a.goroutines.Go(func() { a.resolve(n, dst) })
	}
	return nil, nil
}

// isFull tells whether no more can wait for n, nil for a new name.
func (a *Association) isFull(n *associateName, size int) bool {
	if a.queued+size > maxAssociateQueue {
		return true
	}
	if n != nil && n.resolving {
		return len(n.datagrams) >= maxQueued
	}
	return a.lookups >= maxLookups
}

// dropName forgets a name where there are too many: any that nothing waits for.
func (a *Association) dropName() {
	if len(a.names) < maxNames {
		return
	}
	for _, n := range a.names {
		if !n.resolving {
			a.forgetName(n)
			a.counts.evicted.Add(1)
			return
		}
	}
}

// forgetName forgets n, which nothing waits for.
func (a *Association) forgetName(n *associateName) {
	if n.destination != nil {
		a.forget(n.destination)
	}
	if a.names[n.dst] == n {
		delete(a.names, n.dst)
	}
	if a.headers[n.header] == n {
		delete(a.headers, n.header)
	}
}

// resolve finds the address of n and sends what waits.
func (a *Association) resolve(n *associateName, dst socks.Addr) {
	timeout := a.settings.Dialer().Timeout
	if timeout <= 0 {
		timeout = lookupTimeout
	}
	ctx, cancel := context.WithTimeout(a.ctx, timeout)
	defer cancel()
	q := a.settings.Flow
	q.Name, q.Dst = dst.Name, dst.Addr
	o := opening{settings: &Settings{Dialer: a.settings.Dialer()}, began: time.Now(), query: q}
	err := o.decide(ctx)
	var d *destination
	if err == nil {
		d, err = retry(o.settings.Dialer, &o.query, &o.decision, func() (*destination, error) { return a.keep(a.admit(&o.query, &o.decision, n)) })
	}
	if err != nil && a.ctx.Err() != nil {
		err = errDraining
	}
	datagrams := a.settle(n, &o.query, err)
	if err != nil {
		a.refuse(&o.query, &o.decision, o.began, err, len(datagrams))
		return
	}
	a.sendAll(d, datagrams)
}

// settle ends the wait for n, and returns what has waited.
func (a *Association) settle(n *associateName, q *dialer.Flow, err error) [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lookups--
	n.resolving = false
	if err == nil {
		n.query = *q
	} else {
		n.reason, n.retry = dropFor(err), a.engine.now()+lookupPause
	}
	datagrams := n.datagrams
	n.datagrams = nil
	for _, b := range datagrams {
		a.queued -= len(b)
	}
	return datagrams
}

// sendAll sends datagrams to d.
func (a *Association) sendAll(d *destination, datagrams [][]byte) {
	ms := make([]pktinfo.Message, len(datagrams))
	of := make([]*destination, len(datagrams))
	for i, b := range datagrams {
		ms[i] = pktinfo.Message{Buf: b, N: len(b), Addr: d.addr}
		of[i] = d
	}
	a.send(ms, of)
}
