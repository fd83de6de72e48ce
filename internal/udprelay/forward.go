package udprelay

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// Forward is a listening socket with a target. It is made by Engine.Listen, and
// relays once Serve was called. Its methods are safe for concurrent use.
type Forward struct {
	engine     *Engine
	conn       *pktinfo.Conn
	port       uint16 // it listens on
	ctx        context.Context
	cancel     context.CancelFunc
	settings   atomic.Pointer[Settings]
	counted    atomic.Pointer[counters] // of its listener
	draining   atomic.Bool
	goroutines sync.WaitGroup
	names      names
	inbound    atomic.Pointer[inboundEnd]   // of the flow to Settings.Inbound
	known      atomic.Pointer[[]netip.Addr] // of the target's name
	renewed    chan struct{}                // asks lookUp to look at once
	arrivals   arrivals

	mu    sync.RWMutex
	flows flowTable // written with Engine.mu held, too

	// The rest is under Engine.mu.
	idle    idleHeap
	pins    map[*owner]bool // fixed ports that it holds; true: as a member of the trunk
	looking bool            // lookUp runs
	missing bool            // a fixed port that it is to hold
	again   time.Duration   // when to try next
	closed  bool
}

func newForward(ctx context.Context, e *Engine, c *pktinfo.Conn, s *Settings) *Forward {
	f := &Forward{
		engine:  e,
		conn:    c,
		port:    boundTo(c).Port(),
		flows:   flowTable{way: up, all: &e.numbers},
		pins:    make(map[*owner]bool),
		renewed: make(chan struct{}, 1),
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.names.waiting = make(map[key]*waiting)
	f.put(s)
	return f
}

// Addr returns the address that f listens on.
func (f *Forward) Addr() net.Addr { return f.conn.LocalAddr() }

// SyscallConn gives access to the descriptor of the listening socket.
func (f *Forward) SyscallConn() (syscall.RawConn, error) { return f.conn.SyscallConn() }

// Serve starts to relay; it does not wait. It is called once. A fixed source port is
// taken now where it is known, so that nobody else gets it before the first datagram.
func (f *Forward) Serve() {
	f.adopt(f.settings.Load())
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	if !f.closed {
		f.goroutines.Go(f.serve)
	}
}

// Set gives f new settings for the flows that start from now on. Live ones keep their
// decision.
func (f *Forward) Set(s *Settings) {
	f.engine.mu.Lock()
	f.put(s)
	f.engine.mu.Unlock()
	f.names.retry()
	f.adopt(s)
	f.age(s)
	f.engine.hurry()
}

// put exchanges the settings. The flows of f count for the listener of the new ones then.
// Engine.mu is held, and who holds it sees one name of f.
func (f *Forward) put(s *Settings) {
	if old := f.settings.Swap(s); old != nil {
		f.engine.countFor(old, -len(f.idle))
		f.engine.countFor(s, len(f.idle))
	}
	f.counted.Store(f.engine.tallies.of(s.Name))
}

func (f *Forward) counts() *counters { return f.counted.Load() }

// Drain takes no new clients any more; flows go on. It cannot be undone.
func (f *Forward) Drain() { f.draining.Store(true) }

// Close ends the flows with flows.ErrClosed, closes the socket, and waits for the
// goroutines of f. A second call does nothing.
func (f *Forward) Close() error { return f.close(flows.ErrClosed) }

// Wait waits until f was closed and nothing of it is left.
func (f *Forward) Wait() {
	<-f.ctx.Done()
	f.goroutines.Wait()
}

func (f *Forward) close(reason error) error {
	first := f.end(reason)
	f.cancel()
	var err error
	if first {
		err = f.conn.Close()
	}
	f.goroutines.Wait()
	return err
}

// end ends the flows and lets go of ports. It reports whether it is the first to do so.
func (f *Forward) end(reason error) bool {
	e := f.engine
	e.mu.Lock()
	defer e.unlock()
	if f.closed {
		return false
	}
	f.closed = true
	f.counts().overflow(f.conn)
	delete(e.forwards, f)
	for len(f.idle) > 0 {
		e.remove(f.idle[0], reason)
	}
	for o, member := range f.pins {
		e.unpin(o, f, member)
	}
	clear(f.pins)
	return true
}

func (f *Forward) idleTime() time.Duration {
	if d := f.settings.Load().Idle; d > 0 {
		return d
	}
	return defaultIdle
}

// serve relays what clients send until the socket is closed.
func (f *Forward) serve() { f.engine.receive(f.conn, f.ask) }

// ask relays ms[:n] of b to the peers of their flows.
func (f *Forward) ask(b *batch, n int) {
	now := f.engine.now()
	f.mu.RLock()
	for i := range n {
		k := keyOf(&b.ms[i].Addr)
		b.flows[i] = f.flows.find(&k)
	}
	f.mu.RUnlock()
	for i := range n {
		if b.ms[i].Truncated {
			f.counts().drop(Truncated, datagrams(&b.ms[i]))
			b.flows[i] = nil
			continue
		}
		if b.flows[i] == nil {
			b.flows[i] = f.start(&b.ms[i])
		}
		switch fl := b.flows[i]; {
		case fl == nil:
		case fl.trunk != nil && isJoined(&b.ms[i]):
			apart(&b.ms[i], f.ask)
			b.flows[i] = nil
		default:
			fl.use(now)
			f.teach(b, i, now)
		}
	}
	b.send(f.engine, n, up)
}

// teach has the trunk learn from message i, if its flow is in one. A client that has
// got another source moves there with the first request that begins something new.
func (f *Forward) teach(b *batch, i int, now time.Duration) {
	fl := b.flows[i]
	if fl.trunk != nil && fl.stale.Load() && fl.trunk.moves(now, fl, &b.ms[i]) {
		f.engine.end(fl, ErrMoved)
		fl = f.start(&b.ms[i])
		b.flows[i] = fl
	}
	if fl != nil && fl.trunk != nil {
		b.legs[i], _ = fl.trunk.learn(now, fl, &b.ms[i])
	}
}

// flow returns the live flow with k, or nil.
func (f *Forward) flow(k key) *flow {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.flows.find(&k)
}

// remember puts fl into the tables of f. Engine.mu is held.
func (f *Forward) remember(fl *flow) {
	f.idle.add(fl)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows.put(fl)
}

// forget is the reverse of remember.
func (f *Forward) forget(fl *flow) {
	f.idle.remove(fl)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows.remove(fl)
}
