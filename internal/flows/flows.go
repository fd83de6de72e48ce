package flows

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Reasons for ending a flow from outside, to be given to Flow.Close and found
// again in the log line and by Flow.Reason.
var (
	ErrClosed     = errors.New("closed by the operator")
	ErrDrained    = errors.New("ended by the drain limit")
	ErrSourceDown = errors.New("source address went away")
)

// Info says what a flow is. It is fixed when the flow opens.
type Info struct {
	Listener string         // name of the listener
	User     string         // name given at the login, without the session
	Session  string         // session of the user, empty if none
	Client   netip.AddrPort // who asked
	Network  string         // "tcp" or "udp"
	Dst      netip.AddrPort // the address that is reached
	Name     string         // the name that the client asked for, if it was one
	Rule     string         // the rule that decided
	Source   string         // name of the source
	Src      netip.AddrPort // the local address that the destination sees
}

// Registry holds the live flows. The zero value works, logs nothing and is
// ready to use; set Log before the first flow. All methods are safe for
// concurrent use, and none but Wait blocks.
type Registry struct {
	// Log gets one line at the end of each flow, once SetLogging has switched
	// the lines on. Nil: none.
	Log *slog.Logger

	// Denied is what a refusal matches, by errors.Is, that a rule's deny has caused.
	// Nil: none is counted as that.
	Denied error

	logFlows, logDestinations atomic.Bool
	refusals                  refusals

	mu      sync.Mutex
	last    uint64
	live    list
	began   time.Time // when it was sampled first
	sources map[string]*meter
	rules   map[string]*ruleCount
	empty   chan struct{} // closed when the last flow ends; nil: nobody waits
}

// SetLogging switches the lines on or off, and in them dst, name and the full text
// of errors; without destinations an error is reduced to its innermost cause.
func (r *Registry) SetLogging(flows, destinations bool) {
	r.logFlows.Store(flows)
	r.logDestinations.Store(destinations)
}

// Flow is one live flow. Up and Down may be written at any time, by any
// goroutine, without a lock; the other fields do not change.
type Flow struct {
	Info
	ID    uint64       // counts from 1, never used twice by a Registry
	Start time.Time    // when it opened
	Up    atomic.Int64 // bytes from the client, sent to the destination
	Down  atomic.Int64 // bytes received from the destination, for the client

	registry *Registry
	end      func(reason error)
	// The rest is under the lock of the registry.
	prev, next *Flow
	source     *meter // that counts it; nil: none

	metered [2]int64 // what of Down and Up the meter has

	reason error // of the first Close
	done   bool
}

// Open registers a flow. Its owner calls Done when it has ended. The function
// end asks the owner to end it (by closing its connections, say): it is called
// at most once, from any goroutine, must not wait for the end of the flow, and
// may be nil.
func (r *Registry) Open(i Info, end func(reason error)) *Flow {
	f := &Flow{Info: i, Start: time.Now(), registry: r, end: end}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	f.ID = r.last
	r.live.push(f)
	f.source = r.opened(i.Source)
	r.hit(i.Rule, f.Start, nil)
	return f
}

// Close asks the owner of the flow to end it and keeps the reason (ErrClosed
// for a nil one), which the log line shows. Only the first call counts, and none
// after Done. The flow stays registered until its owner calls Done.
func (f *Flow) Close(reason error) {
	if reason == nil {
		reason = ErrClosed
	}
	if f.closing(reason) && f.end != nil {
		f.end(reason) // no lock is held: it may call Done
	}
}

// closing keeps the reason and reports whether it is the first.
func (f *Flow) closing(reason error) bool {
	f.registry.mu.Lock()
	defer f.registry.mu.Unlock()
	if f.reason != nil || f.done {
		return false
	}
	f.reason = reason
	return true
}

// Reason returns what the first Close gave, nil while there was none.
func (f *Flow) Reason() error {
	f.registry.mu.Lock()
	defer f.registry.mu.Unlock()
	return f.reason
}

// Done removes the flow and logs its line. Err is how it ended, nil for a
// clean end; the reason of a Close takes its place, since what the owner saw
// then is only the consequence. Only the first call counts.
func (f *Flow) Done(err error) {
	first, reason := f.registry.remove(f)
	if !first {
		return
	}
	if reason != nil {
		err = reason
	}
	f.registry.log(&f.Info, f.Start, f.Down.Load(), f.Up.Load(), err)
}

// remove takes a flow out, once, and returns the reason of its Close.
func (r *Registry) remove(f *Flow) (first bool, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.done {
		return false, nil
	}
	f.done = true
	r.live.remove(f)
	f.source.leave(f)
	if r.live.len == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
	return true, f.reason
}

// Refuse counts a flow that never opened, and logs its line: refused by a rule or a
// limit, or not connected. Start is when the client asked. Of many in one second most get
// no line; the next that gets one says in left_out how many those were.
func (r *Registry) Refuse(i Info, start time.Time, err error) {
	r.Count(i.Rule, i.Source, err)
	switch left, ok := r.refusals.allow(&i, time.Now()); {
	case left > 0:
		r.log(&i, start, 0, 0, err, slog.Int("left_out", left))
	case ok:
		r.log(&i, start, 0, 0, err)
	}
}

// All returns the live flows, the oldest first.
func (r *Registry) All() []*Flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Flow, 0, r.live.len)
	for f := r.live.first; f != nil; f = f.next {
		if !f.isBookmark() {
			all = append(all, f)
		}
	}
	return all
}

// Get returns the live flow with that number, or nil. It looks at all of them.
func (r *Registry) Get(id uint64) *Flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := r.live.first; f != nil; f = f.next {
		if f.ID == id && !f.isBookmark() {
			return f
		}
	}
	return nil
}

// Len returns how many flows are live.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live.len
}

// SourceLen returns how many live flows leave from the source of that name.
// Its cost does not depend on their number.
func (r *Registry) SourceLen(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.sources[name]; m != nil {
		return m.live
	}
	return 0
}

// CloseAll calls Close on each flow that is live now.
func (r *Registry) CloseAll(reason error) {
	for _, f := range r.All() {
		f.Close(reason)
	}
}

// CloseLost calls Close with ErrSourceDown on each live flow for whose source, and local
// address that its destination sees, lost is true. Flows without such an address, as UDP
// associations, are passed over.
func (r *Registry) CloseLost(lost func(source string, src netip.Addr) bool) {
	for _, f := range r.All() {
		if a := f.Src.Addr(); a.IsValid() && lost(f.Source, a) {
			f.Close(ErrSourceDown)
		}
	}
}

// Wait returns nil at the first moment at which no flow is live, or the cause
// of the end of ctx. It does not keep new flows from opening.
func (r *Registry) Wait(ctx context.Context) error {
	empty := r.whenEmpty()
	if empty == nil {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// whenEmpty returns a channel that is closed when the last flow ends, nil when
// none is live.
func (r *Registry) whenEmpty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live.len == 0 {
		return nil
	}
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	return r.empty
}
