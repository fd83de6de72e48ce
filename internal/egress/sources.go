package egress

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// A Source is one that the configuration uses, and what its life depends on.
type Source struct {
	*dialer.Source

	// Hold is how long flows outlive the address that they leave from, so that they
	// survive a renewal that takes it away for a moment. Zero ends them at once.
	Hold time.Duration

	// Gateway4 and Gateway6 are the gateways by which its packets are to leave. Where they
	// are not valid, that is any behind the link that has the address.
	Gateway4, Gateway6 netip.Addr

	// Probe finds out whether the source works. Nil: nobody does.
	Probe *Probe
}

// Watch is what Sources follow. A *host.Host is one.
type Watch interface {
	// Now returns the latest snapshot.
	Now() *host.Snapshot
	// Changed returns a channel that is closed when that is replaced.
	Changed() <-chan struct{}
	// RoutesChanged returns one that is closed when ways may have changed.
	RoutesChanged() <-chan struct{}
}

// Sources knows the state of each source, logs when that changes, and ends the flows
// of addresses that went away. It outlives reloads: a source that keeps its name and
// its address keeps its state. Set the exported fields before Run; all methods are safe
// for concurrent use.
type Sources struct {
	Host Watch

	// Way tells how packets from a, an address of src that is on this host, leave towards
	// dst, or where that is not valid, for the rest of the world. A source whose packets
	// are lost there is broken, unless others of them go right; in either case each
	// destination is asked for. Nil: nobody knows.
	Way func(src Source, a, dst netip.Addr) Way

	// EndFlows is called when the host has changed. It ends the live flows for which
	// lost is true; src is the address that their packets leave from. Nil does nothing.
	EndFlows func(lost func(source string, src netip.Addr) bool)

	// EndSockets is called with addresses of sources that went away, each once until it is
	// back, to end the sockets of others that leave from it: when no source that has the
	// address holds what leaves from it any more. It must not wait. Nil does nothing.
	EndSockets func(addrs []netip.Addr)

	// Log gets a line for each change. Nil discards them.
	Log *slog.Logger

	refused  atomic.Pointer[map[place]error]    // who is kept from being used though its address is here
	suspects atomic.Pointer[map[place]*suspect] // whose packets go astray, to some destinations at least

	asking sync.Mutex // held while Way is asked and by who changes the list; before mu

	mu      sync.Mutex
	sources map[string]Source
	states  []*state // in the order of Set
	changed chan struct{}
	wake    chan struct{}
	gone    map[netip.Addr]time.Time // addresses whose flows are held, and since when
	waits   map[*wait]struct{}
	leaves  map[netip.Addr]*leave
}

// place is a source in one family.
type place struct {
	name string
	is4  bool
}

// Set makes list the sources that there are. Those that are not up already are logged.
func (s *Sources) Set(list []Source) {
	s.asking.Lock()
	defer s.asking.Unlock()
	states, sources := s.statesFor(list)
	ways := s.ask(states, sources)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states, s.sources = states, sources
	for _, x := range states {
		x.source = sources[x.name].Source
	}
	s.keep(states, sources, ways)
	s.judge()
	s.broadcast() // the list itself is another
	s.hurry()     // a shorter hold may be over
}

// statesFor returns the states of list: those that there are where nothing has changed.
func (s *Sources) statesFor(list []Source) ([]*state, map[string]Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := make(map[place]*state, len(s.states))
	for _, x := range s.states {
		old[x.place] = x
	}
	sources := make(map[string]Source, len(list))
	var states []*state
	for _, src := range list {
		sources[src.Name] = src
		for _, x := range statesOf(src.Source) {
			if o := old[x.place]; o != nil && o.text == x.text {
				x = o
			}
			states = append(states, x)
		}
	}
	return states, sources
}

// SetProbe keeps the source of that name from being used in the family of a, or lets
// it be used again for a nil err. A is the address from which the probe was sent: a
// result that comes after the source got another one does not count.
func (s *Sources) SetProbe(name string, a netip.Addr, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.states {
		if x.place == (place{name, a.Is4()}) && x.has(a) {
			x.probe = err
		}
	}
	s.judge()
}

// Status returns the state of all sources, in the order of Set.
func (s *Sources) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.states))
	for _, x := range s.states {
		if !s.hidden(x) {
			out = append(out, x.status())
		}
	}
	return out
}

// Changed returns a channel that is closed when what Status returns changes. Take the
// channel first and call Status then; so no change is missed.
func (s *Sources) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setUp()
	return s.changed
}

// Run follows the host until ctx is done.
func (s *Sources) Run(ctx context.Context) {
	s.mu.Lock()
	s.setUp()
	s.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	ways := looks{wanted: true}
	for {
		changed, routes := s.Host.Changed(), s.Host.RoutesChanged()
		next := s.endFlows() // first of all: what still flows is lost
		ways.take(s)
		s.mu.Lock()
		s.judge()
		s.mu.Unlock()
		if ways.wanted {
			routes, next = nil, min(next, time.Until(ways.again))
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-changed:
			ways.again = time.Time{} // an address that comes is not to be used before its way is known
			ways.wanted = true
		case <-routes:
			ways.wanted = true
		case <-s.wake:
		case <-timer.C:
		}
	}
}

func (s *Sources) setUp() {
	if s.changed == nil {
		s.changed = make(chan struct{})
		s.wake = make(chan struct{}, 1)
		s.gone = make(map[netip.Addr]time.Time)
		s.waits = make(map[*wait]struct{})
		s.leaves = make(map[netip.Addr]*leave)
	}
}

func (s *Sources) broadcast() {
	s.setUp()
	close(s.changed)
	s.changed = make(chan struct{})
}

// hurry makes Run look again.
func (s *Sources) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// refusal returns what keeps a source from being used although its address is here. It
// does not allocate.
func (s *Sources) refusal(name string, is4 bool) error {
	refused := s.refused.Load()
	if refused == nil {
		return nil
	}
	return (*refused)[place{name, is4}]
}

// judge brings all states up to date, and tells of those that changed. Mu is held.
func (s *Sources) judge() {
	s.setUp()
	now, at := s.Host.Now(), time.Now()
	var changed []*state
	refused := make(map[place]error)
	for _, x := range s.states {
		if x.judge(now, at) {
			changed = append(changed, x)
		}
		s.enlist(x)
		if x.here && x.probe != nil {
			refused[x.place] = x.probe
		}
	}
	s.refused.Store(&refused)
	for _, x := range changed {
		if !s.hidden(x) {
			s.tell(x)
		}
	}
	if len(changed) > 0 {
		s.broadcast()
	}
}

// hidden reports whether nobody wants to know of x.
func (s *Sources) hidden(x *state) bool {
	return x.source.Interface != "" && slices.ContainsFunc(s.states, x.hides)
}

// tell logs the state of x.
func (s *Sources) tell(x *state) {
	if s.Log == nil {
		return
	}
	args := []any{"source", x.name, "addr", x.where(), "state", x.state.String()}
	if x.state == Up {
		s.Log.Info("source changed", args...)
		return
	}
	s.Log.Warn("source changed", append(args, "err", x.reason)...)
}
