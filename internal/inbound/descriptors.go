package inbound

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Descriptors is the budget of file descriptors. A listener takes one for a client
// before it accepts, and another one for the connection to the destination, so that
// the listeners pause before the process runs out and what is established is not
// touched. A quarter is kept for the second ones: clients that are let in could
// otherwise never get further.
type Descriptors struct {
	slots chan struct{}
	loud  sync.Mutex
	last  time.Time // of the last log line, under loud
}

// reserved is what the program itself needs: logs, listeners, netlink, pipes. One in
// sixteen more is for look-ups of names and the further addresses of a name, which are
// not counted one by one.
const reserved = 32

// NewDescriptors returns the budget of a process that may open limit descriptors.
func NewDescriptors(limit int) *Descriptors {
	return &Descriptors{slots: make(chan struct{}, max(limit-reserved-limit/16, limit/2, 4))}
}

// waitClient takes the descriptor of one more client, and waits for it where the
// budget is used up. It is false when ctx ends.
func (d *Descriptors) waitClient(ctx context.Context, log *slog.Logger) bool {
	for len(d.slots) >= cap(d.slots)-cap(d.slots)/4 {
		if !d.pause(ctx, log, errDescriptors) {
			return false
		}
	}
	return d.acquire(ctx) == nil
}

// waitServer takes the descriptor of a connection to a destination, and waits for it
// for a moment where the budget is used up.
func (d *Descriptors) waitServer(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	return d.acquire(ctx)
}

// serverWait is how long a client waits for the descriptor of its connection.
const serverWait = 5 * time.Second

func (d *Descriptors) acquire(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errDescriptors
	}
}

func (d *Descriptors) release() { <-d.slots }

// pause makes a listener wait for a moment, and says so once a second.
func (d *Descriptors) pause(ctx context.Context, log *slog.Logger, err error) bool {
	if d.mayLog(time.Now()) {
		log.Warn("accept paused", "err", err)
	}
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Descriptors) mayLog(now time.Time) bool {
	d.loud.Lock()
	defer d.loud.Unlock()
	if now.Sub(d.last) < time.Second {
		return false
	}
	d.last = now
	return true
}
