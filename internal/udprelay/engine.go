package udprelay

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// What counts where nothing else was set.
const (
	defaultMaxFlows = 100000
	defaultIdle     = 2 * time.Minute // RFC 4787 section 4.3, REQ-5: at least 2 minutes
)

// Engine owns the sockets that datagrams leave from, and the flows. It outlives
// reloads. Its zero value is ready to use; set the exported fields before the first
// Listen. Its methods are safe for concurrent use. Close ends it.
type Engine struct {
	// Flows registers each flow. Nil: they are registered nowhere that can be seen.
	Flows *flows.Registry

	// Limits bounds the flows of each client and source. Nil: nothing does.
	Limits *egress.Limits

	// Sources tells whether flows are to outlive an address that is gone for a moment.
	// Nil: none is.
	Sources *egress.Sources

	// Log gets what concerns no single flow. Nil discards it.
	Log *slog.Logger

	maxFlows atomic.Int64
	tallies  tallies
	refusals limiter
	batches  sync.Pool
	openings sync.Pool
	inUse    chan struct{}  // one for each batch in use
	all      sync.WaitGroup // the sweeper and the readers of owners
	once     sync.Once
	done     chan struct{}                               // closed by Close
	wake     chan struct{}                               // asks the sweeper for a new interval
	now      func() time.Duration                        // monotonic; tests set it
	control  func(string, string, syscall.RawConn) error // of owners; tests set it

	mu        sync.Mutex
	closed    bool
	sweeping  bool
	count     int            // of flows
	counts    map[string]int // of flows, by the name that their forward has now
	maxOwners int
	forwards  map[*Forward]struct{}
	owners    map[netip.AddrPort]*owner // by the address they are bound to
	groups    map[groupKey]*group
	numbers   flowList
	pollers   []*poller
	polled    int           // owners, ever
	crowded   time.Duration // until when no flow is spared

	associations associations
	destinations atomic.Int64 // of associations, now

	ended []ending // to be told to the registry once mu is free
}

// SetMaxFlows bounds the flows of all forwards together, and the destinations of all
// associations; zero is no bound, and where it was never called it is 100 000. At the
// bound, the flow that has been idle for the longest time makes room for a new one.
func (e *Engine) SetMaxFlows(n int) {
	if n == 0 {
		n = math.MaxInt32 // more than there are numbers for
	}
	e.maxFlows.Store(int64(n))
}

func (e *Engine) limit() int {
	if n := e.maxFlows.Load(); n > 0 {
		return int(n)
	}
	return defaultMaxFlows
}

func (e *Engine) setUp() {
	start := time.Now()
	if e.now == nil {
		e.now = func() time.Duration { return time.Since(start) }
	}
	if e.Flows == nil {
		e.Flows = new(flows.Registry)
	}
	if e.Limits == nil {
		e.Limits = new(egress.Limits)
	}
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	e.inUse = make(chan struct{}, maxBatches())
	e.done = make(chan struct{})
	e.wake = make(chan struct{}, 1)
	e.maxOwners = maxOwners()
	e.counts = make(map[string]int)
	e.forwards = make(map[*Forward]struct{})
	e.owners = make(map[netip.AddrPort]*owner)
	e.groups = make(map[groupKey]*group)
}

// Listen opens the socket of a forward. The zero Addr, and "::", is any address of
// both families. Control, if not nil, is called before the bind. The forward takes
// datagrams once Serve was called; ctx bounds its look-ups of names.
func (e *Engine) Listen(ctx context.Context, addr netip.AddrPort, s *Settings, control func(network, address string, c syscall.RawConn) error) (*Forward, error) {
	e.once.Do(e.setUp)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: net.ErrClosed}
	}
	lc := pktinfo.ListenConfig{
		ReadBuffer:  ForwardBuffer,
		WriteBuffer: ForwardBuffer,
		MTUDiscover: pktinfo.MTUDiscoverDont,
		GRO:         true,
		Control:     control,
	}
	network := "udp"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	c, err := e.bind(ctx, &lc, network, addr)
	if err != nil {
		return nil, err
	}
	f := newForward(ctx, e, c, s)
	e.forwards[f] = struct{}{}
	e.startSweeper()
	e.hurry()
	return f, nil
}

// Close ends all flows with flows.ErrDrained, closes all forwards and sockets, and
// waits for all goroutines. The Engine cannot be used again.
func (e *Engine) Close() error {
	e.once.Do(e.setUp)
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	live := make([]*Forward, 0, len(e.forwards))
	for f := range e.forwards {
		live = append(live, f)
	}
	e.mu.Unlock()
	if first {
		close(e.done)
	}
	for _, f := range live {
		if err := f.close(flows.ErrDrained); err != nil {
			e.Log.Warn("close listener", "addr", f.Addr().String(), "err", err)
		}
	}
	e.endAssociations()
	if first {
		e.closePollers()
	}
	e.all.Wait()
	return nil
}

func (e *Engine) closePollers() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pollers {
		_ = p.file.Close() // nothing is left in it
	}
}

// ending is a flow that has ended, and why.
type ending struct {
	flow   *flow
	reason error
}

// unlock frees mu, and then does what must not be done under it: the registry logs.
func (e *Engine) unlock() {
	ended := e.ended
	e.ended = nil
	e.mu.Unlock()
	for _, x := range ended {
		x.flow.entry.Done(x.reason)
	}
}

// remove takes fl out of all tables. Mu is held, and unlock tells the registry.
func (e *Engine) remove(fl *flow, reason error) {
	if fl.ended {
		return
	}
	fl.ended = true
	fl.forward.forget(fl)
	e.leave(fl)
	e.numbers.remove(fl)
	e.count--
	e.countFor(fl.forward.settings.Load(), -1)
	e.leavePlaces(&fl.entry.Info)
	e.ended = append(e.ended, ending{fl, reason})
}

// countFor counts n more flows for the listener of s. Mu is held.
func (e *Engine) countFor(s *Settings, n int) {
	if e.counts[s.Name] += n; e.counts[s.Name] == 0 {
		delete(e.counts, s.Name)
	}
}

// end is remove for callers that do not hold mu.
func (e *Engine) end(fl *flow, reason error) {
	e.mu.Lock()
	defer e.unlock()
	e.remove(fl, reason)
}

// survives tells whether reading goes on after err. Errors other than the close of
// the socket (no memory, say) pass; it waits a little, so that they cost no processor.
func (e *Engine) survives(c *pktinfo.Conn, err error) bool {
	if isClosed(err) {
		return false
	}
	e.Log.Debug("read udp", "addr", c.LocalAddr().String(), "err", err)
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-e.done:
		return false
	case <-t.C:
		return true
	}
}

// bind opens a socket. Where only sockets of ours that are bound to a wildcard stand
// in its way, or the other way round, it takes the port beside them.
func (e *Engine) bind(ctx context.Context, lc *pktinfo.ListenConfig, network string, at netip.AddrPort) (*pktinfo.Conn, error) {
	c, err := lc.ListenAddrPort(ctx, network, at)
	if at.Port() == 0 || !isInUse(err) {
		return c, err
	}
	beside := e.overlapping(at)
	if len(beside) == 0 {
		return nil, fmt.Errorf("%w (to see who has it: ss -ulnp 'sport = :%d')", err, at.Port())
	}
	return bindBeside(ctx, lc, network, at, beside)
}

// overlapping returns our sockets with the port of a, of which exactly one is bound
// to a wildcard.
func (e *Engine) overlapping(a netip.AddrPort) []*pktinfo.Conn {
	var out []*pktinfo.Conn
	add := func(c *pktinfo.Conn) {
		b := boundTo(c)
		if b.Port() == a.Port() && isWildcard(a.Addr()) != isWildcard(b.Addr()) {
			out = append(out, c)
		}
	}
	for f := range e.forwards {
		add(f.conn)
	}
	for _, o := range e.owners {
		add(o.conn)
	}
	for _, c := range e.associations.sockets {
		add(c)
	}
	return out
}
