package udprelay

import (
	"bytes"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// maxArrivals bounds the datagrams that wait for the flow to Settings.Inbound.
const maxArrivals = 64

// arrivals is the datagrams for Settings.Inbound that came before there was a flow to
// it. One goroutine at a time opens it, so that they keep their order.
type arrivals struct {
	mu      sync.Mutex
	queue   []arrival
	running bool
}

type arrival struct {
	datagram []byte
	call     callKey
	back     leg // to where it came from
}

// distribute returns the flow for m, which came from a peer that clients share. Nil:
// it is dropped, or waits for a flow.
func (e *Engine) distribute(now time.Duration, t *trunk, m *pktinfo.Message) *flow {
	v := t.route(now, m)
	switch {
	case v.flow != nil:
		v.flow.use(now)
		return v.flow
	case v.inbound == nil:
		t.owner.counts.drop(v.drop, 1)
	case !v.inbound.arrive(arrival{bytes.Clone(m.Buf[:m.N]), v.call, t.owner.leg(&m.Addr, 0)}):
		t.owner.counts.drop(Waiting, 1)
	}
	return nil
}

// arrive lets a datagram wait for the flow to inbound. It is false if too many do. The
// reader of an owner must not wait for Engine.mu, so another goroutine opens the flow.
func (f *Forward) arrive(x arrival) bool {
	a := &f.arrivals
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) >= maxArrivals {
		return false
	}
	a.queue = append(a.queue, x)
	if !a.running {
		a.running = true
		f.engine.all.Go(f.admitArrivals) // a reader is running, which Close waits for
	}
	return true
}

// next takes the first arrival.
func (a *arrivals) next() (arrival, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		a.queue, a.running = nil, false
		return arrival{}, false
	}
	x := a.queue[0]
	a.queue = a.queue[1:]
	return x, true
}

// admitArrivals sends what waits to inbound.
func (f *Forward) admitArrivals() {
	for x, ok := f.arrivals.next(); ok; x, ok = f.arrivals.next() {
		end := f.inbound.Load()
		if end == nil {
			continue // by a reload
		}
		fl := f.flow(end.key)
		if fl == nil {
			o := f.opening(f.settings.Load(), end.key, 0)
			fl = o.open(f.ctx, 1)
		}
		if fl == nil {
			continue // it was counted and logged
		}
		x.back.class = fl.class
		if x.call != (callKey{}) {
			fl.calls.add(f.engine.now(), x.call, x.back)
		}
		fl.send([][]byte{x.datagram}, down)
	}
}
