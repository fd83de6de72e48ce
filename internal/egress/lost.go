package egress

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// ErrLost is the cause of the end of what a source's address took along when it went.
var ErrLost = fmt.Errorf("%w: its address went away", dialer.ErrSourceDown)

// Lost reports whether flows of that source that leave from src are to end: src is not
// on this host, and the source's hold is over. Who has opened a flow asks once it can be
// ended by EndFlows; so no flow falls between.
func (s *Sources) Lost(source string, src netip.Addr) bool {
	lost, _ := s.lost(source, src, time.Now())
	return lost
}

// lost is Lost at a moment; where the flows are held, it returns how long still.
func (s *Sources) lost(source string, src netip.Addr, at time.Time) (bool, time.Duration) {
	if !src.IsValid() || s.Host.Now().Local(src) {
		return false, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.held(source, src, at)
	return left == 0, left
}

// held returns how long a source still holds what leaves from src, which is not on this
// host; 0 when that is over. Mu is held.
func (s *Sources) held(source string, src netip.Addr, at time.Time) time.Duration {
	known, ok := s.sources[source]
	switch {
	case ok && known.FreeBind:
		return never
	case known.Hold == 0:
		return 0
	}
	s.setUp()
	since, ok := s.gone[src]
	if !ok {
		since = at
		s.gone[src] = at
		s.hurry() // Run may not know of that one yet
	}
	return max(known.Hold-at.Sub(since), 0)
}

// never is the time to the next look when there is nothing to wait for.
const never = 1000 * time.Hour

// endFlows ends what has lost its address, and returns when to look again.
func (s *Sources) endFlows() time.Duration {
	s.forgetGone()
	next, at := never, time.Now()
	lost := func(source string, src netip.Addr) bool {
		lost, left := s.lost(source, src, at)
		if left > 0 {
			next = min(next, left)
		}
		return lost
	}
	if s.EndFlows != nil {
		s.EndFlows(lost)
	}
	for _, w := range s.waiting() {
		if lost(w.source, w.src) {
			w.cancel(ErrLost)
		}
	}
	gone, left := s.left(at)
	if len(gone) > 0 && s.EndSockets != nil {
		s.EndSockets(gone)
	}
	return min(next, left)
}

// forgetGone forgets the addresses that came back.
func (s *Sources) forgetGone() {
	now := s.Host.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.gone {
		if now.Local(a) {
			delete(s.gone, a)
		}
	}
}

// wait is something that ends with an address.
type wait struct {
	source string
	src    netip.Addr
	cancel context.CancelCauseFunc
}

// While returns a context that ends with ctx, or by ErrLost with the address src of that
// source, as a flow would. The caller calls cancel when it no longer needs it.
func (s *Sources) While(ctx context.Context, source string, src netip.Addr) (_ context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(ctx)
	w := &wait{source, src, end}
	s.mu.Lock()
	s.setUp()
	s.waits[w] = struct{}{}
	s.mu.Unlock()
	if s.Lost(source, src) {
		end(ErrLost)
	}
	return ctx, func() {
		s.mu.Lock()
		delete(s.waits, w)
		s.mu.Unlock()
		end(nil)
	}
}

func (s *Sources) waiting() []*wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*wait, 0, len(s.waits))
	for w := range s.waits {
		out = append(out, w)
	}
	return out
}

// leave is an address that sources have, or have had.
type leave struct {
	sources []string // their names
	told    bool     // EndSockets knows that it went away
}

// enlist remembers that sockets may leave from the address that x has now. Mu is held.
func (s *Sources) enlist(x *state) {
	if !x.addr.IsValid() {
		return
	}
	l := s.leaves[x.addr]
	if l == nil {
		l = new(leave)
		s.leaves[x.addr] = l
	}
	if !slices.Contains(l.sources, x.name) {
		l.sources = append(l.sources, x.name)
	}
}

// left returns the addresses that went away since it was asked last and are held by no
// source any more, and when to ask again for others. Those that no source has it forgets.
func (s *Sources) left(at time.Time) (gone []netip.Addr, next time.Duration) {
	now := s.Host.Now()
	next = never
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.leaves {
		if now.Local(a) {
			l.told = false
			continue
		}
		hold := time.Duration(0)
		for _, name := range l.sources {
			hold = max(hold, s.held(name, a, at))
		}
		if hold > 0 {
			next = min(next, hold)
			continue
		}
		if !l.told {
			gone = append(gone, a)
		}
		l.told = true
		if !slices.ContainsFunc(s.states, func(x *state) bool { return x.addr == a }) {
			delete(s.leaves, a)
		}
	}
	return gone, next
}

// TellAgain has EndSockets called once more for the addresses that are away. It is for
// who has found sockets that were there before.
func (s *Sources) TellAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setUp()
	for _, l := range s.leaves {
		l.told = false
	}
	s.hurry()
}
