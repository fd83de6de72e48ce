package udprelay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// Bounds of what waits for the name of a forward's target.
const (
	maxWaiting     = 64      // flows
	maxQueued      = 8       // datagrams of a flow
	maxQueuedBytes = 1 << 20 // of all flows
	lookupTimeout  = 10 * time.Second
	lookupPause    = time.Second // after a look-up that failed
)

// errUnresolved says that the name of the target has no address now.
var errUnresolved = errors.New("the name of the target is not known")

// names is the flows of a forward that wait for the name of its target. Each resolves
// it once, and none holds up another.
type names struct {
	mu      sync.Mutex
	waiting map[key]*waiting
	bytes   int           // queued in all
	paused  time.Duration // no look-up before that
}

// waiting is a flow that waits, and the first datagrams of its client.
type waiting struct {
	opening
	datagrams [][]byte
}

// retry forgets that a look-up has failed.
func (n *names) retry() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused = 0
}

// pause starts no more look-ups until then.
func (n *names) pause(until time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused = until
}

// take ends the wait of k and returns its datagrams.
func (n *names) take(k key) [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.waiting[k]
	delete(n.waiting, k)
	for _, b := range w.datagrams {
		n.bytes -= len(b)
	}
	return w.datagrams
}

// wait keeps a copy of b for the flow that o describes until its name is resolved.
func (f *Forward) wait(o *opening, b []byte) {
	n := &f.names
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.waiting[o.key]
	switch {
	case w == nil && f.engine.now() < n.paused:
		f.counts().drop(Unresolved, 1)
		return
	case w == nil && len(n.waiting) >= maxWaiting,
		w != nil && len(w.datagrams) >= maxQueued,
		n.bytes+len(b) > maxQueuedBytes:
		f.counts().drop(Waiting, 1)
		return
	}
	if w == nil {
		w = &waiting{opening: *o}
		n.waiting[o.key] = w
		f.goroutines.Go(func() { f.resolve(w) })
	}
	w.datagrams = append(w.datagrams, bytes.Clone(b))
	n.bytes += len(b)
}

// resolve finds the address for w, opens the flow and sends what waits.
func (f *Forward) resolve(w *waiting) {
	timeout := w.settings.Dialer.Timeout
	if timeout <= 0 {
		timeout = lookupTimeout
	}
	ctx, cancel := context.WithTimeout(f.ctx, timeout)
	defer cancel()
	err := w.decide(ctx)
	var fl *flow
	if err == nil {
		fl, err = w.admit()
	}
	if errors.Is(err, errUnresolved) {
		if f.ctx.Err() != nil {
			err = errDraining
		}
		f.names.pause(f.engine.now() + lookupPause)
	}
	datagrams := f.names.take(w.key)
	if err != nil {
		f.refuse(&w.opening, err, len(datagrams))
		return
	}
	fl.send(datagrams, up)
}

// decide asks the rules and, for a name, sets its first address that they let through.
func (o *opening) decide(ctx context.Context) error {
	d := o.settings.Dialer
	if o.query.Dst.Addr().IsValid() {
		if o.decision = d.Decide(o.query); o.decision.Err != nil {
			return &dialer.RefusedError{Flow: o.query, Decision: o.decision}
		}
		return nil
	}
	candidates, dec, err := d.Resolve(ctx, o.query)
	o.decision = dec
	if refused := (*dialer.RefusedError)(nil); errors.As(err, &refused) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnresolved, err)
	}
	var reasons refusals
	for _, q := range candidates {
		o.query, o.decision = q, d.Decide(q)
		if o.decision.Err == nil {
			o.query.Dst = numericZone(q.Dst)
			return nil
		}
		reasons = append(reasons, &dialer.RefusedError{Flow: q, Decision: o.decision})
	}
	return reasons
}

// send sends datagrams that were kept.
func (fl *flow) send(datagrams [][]byte, w way) {
	ms := make([]pktinfo.Message, len(datagrams))
	of := make([]*flow, len(datagrams))
	l := fl.leg(w)
	for i, b := range datagrams {
		ms[i] = pktinfo.Message{Buf: b, N: len(b), Addr: l.addr, TrafficClass: l.class}
		of[i] = fl
	}
	fl.forward.engine.deliver(l.conn, ms, of, w)
}

// refusals is why each address of a name was refused.
type refusals []error

func (r refusals) Error() string {
	texts := make([]string, len(r))
	for i, err := range r {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (r refusals) Unwrap() []error { return r }
