package relay

import (
	"sync"
	"time"
)

// watch ends a relay that is silent. It has one timer, only where a limit is
// set, and looks four times within the limit whether anything moved, so that
// the copying itself reads no clock and sets no deadline.
type watch struct {
	relay            *relay
	idle, halfClosed time.Duration

	mu      sync.Mutex
	timer   *time.Timer // nil: no limit is in force
	stopped bool
	half    bool // one direction has ended
	seen    signature
	since   time.Time // when seen was first seen
}

// signature differs when a byte moved between two looks.
type signature [4]uint64

func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
}

// halfClose puts HalfClosed in force, from now.
func (w *watch) halfClose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.half = true
	if w.halfClosed > 0 && !w.stopped {
		w.begin()
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// begin starts the limit in force anew.
func (w *watch) begin() {
	limit, _ := w.limit()
	if limit <= 0 {
		return
	}
	w.seen, w.since = w.look(), time.Now()
	if w.timer == nil {
		w.timer = time.AfterFunc(pause(limit), w.tick)
		return
	}
	w.timer.Reset(pause(limit))
}

func (w *watch) limit() (time.Duration, error) {
	if w.half && w.halfClosed > 0 {
		return w.halfClosed, ErrHalfClosed
	}
	return w.idle, ErrIdle
}

func pause(limit time.Duration) time.Duration { return max(limit/4, time.Millisecond) }

// tick is what the timer runs.
func (w *watch) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	limit, reason := w.limit()
	now := time.Now()
	if s := w.look(); s != w.seen {
		w.seen, w.since = s, now
	}
	left := limit - now.Sub(w.since)
	if left <= 0 {
		w.relay.fail(reason)
		return
	}
	w.timer.Reset(min(left, pause(limit)))
}

func (w *watch) look() signature {
	r := w.relay
	return signature{
		r.up.moves.Load(), r.down.moves.Load(),
		r.client.acknowledged(), r.server.acknowledged(),
	}
}
