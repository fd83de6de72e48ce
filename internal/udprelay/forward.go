package udprelay

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// Forward is a listening socket with a fixed target. It is made by Engine.Listen, and
// relays once Serve was called. Its methods are safe for concurrent use.
type Forward struct {
	engine     *Engine
	conn       *pktinfo.Conn
	port       uint16 // it listens on
	ctx        context.Context
	cancel     context.CancelFunc
	settings   atomic.Pointer[Settings]
	draining   atomic.Bool
	goroutines sync.WaitGroup
	names      names

	mu    sync.RWMutex
	flows map[key]*flow // written with Engine.mu held, too

	// The rest is under Engine.mu.
	idle   idleHeap
	pins   map[*owner]struct{} // fixed ports that it holds
	closed bool
}

func newForward(ctx context.Context, e *Engine, c *pktinfo.Conn, s *Settings) *Forward {
	f := &Forward{
		engine: e,
		conn:   c,
		port:   boundTo(c).Port(),
		flows:  make(map[key]*flow),
		pins:   make(map[*owner]struct{}),
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.names.waiting = make(map[key]*waiting)
	f.settings.Store(s)
	return f
}

// Addr returns the address that f listens on.
func (f *Forward) Addr() net.Addr { return f.conn.LocalAddr() }

// SyscallConn gives access to the descriptor of the listening socket.
func (f *Forward) SyscallConn() (syscall.RawConn, error) { return f.conn.SyscallConn() }

// Serve starts to relay; it does not wait. It is called once. A fixed source port is
// taken now where it is known, so that nobody else gets it before the first datagram.
func (f *Forward) Serve() {
	f.hold(f.settings.Load())
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	if !f.closed {
		f.goroutines.Go(f.serve)
	}
}

// Set gives f new settings for the flows that start from now on. Live ones keep their
// decision.
func (f *Forward) Set(s *Settings) {
	f.settings.Store(s)
	f.names.retry()
	f.hold(s)
	f.engine.hurry()
}

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
	delete(e.forwards, f)
	for len(f.idle) > 0 {
		e.remove(f.idle[0], reason)
	}
	for o := range f.pins {
		e.unpin(o)
	}
	clear(f.pins)
	return true
}

// hold takes the fixed source port for s, and lets go of those that f holds and s does
// not want. A port that cannot be had now is tried again for each new flow.
func (f *Forward) hold(s *Settings) {
	r := fixedRoute(s)
	if err := f.repin(r, s.SourcePort); err != nil {
		f.engine.Log.Warn("source port is not there yet", "listener", s.Name, "source", r.name, "err", err)
	}
}

func (f *Forward) repin(r *route, port uint16) error {
	e := f.engine
	e.mu.Lock()
	defer e.unlock()
	if f.closed || e.closed {
		return nil
	}
	var held *owner
	var err error
	if r != nil {
		held, err = e.pin(r)
	}
	for o := range f.pins {
		// Where the source depends on the client or on a name, it may be wanted still.
		if r != nil || o.at.Port() != port {
			delete(f.pins, o)
			e.unpin(o)
		}
	}
	if held != nil {
		f.pins[held] = struct{}{}
	}
	return err
}

// fixedRoute returns the way on which all flows of s leave, if its port is fixed and
// source and target depend on nothing else; else nil.
func fixedRoute(s *Settings) *route {
	q := s.query(key{}, 0)
	if s.SourcePort == 0 || !q.Dst.Addr().IsValid() {
		return nil
	}
	dec := s.Dialer.Decide(q)
	if dec.Err != nil || dec.Use.Pool != nil || dec.Source != nil && len(dec.Source.Addrs) == 0 {
		return nil
	}
	return routeOf(&dec, q.Dst, s.SourcePort)
}

// query returns what the rules are asked for flow k, that came to port.
func (s *Settings) query(k key, port uint16) dialer.Flow {
	q := s.Target
	q.Network = "udp"
	q.Listener = s.Name
	q.Client = k.client
	q.Asked = netip.AddrPortFrom(k.asked, port)
	if a := q.Dst.Addr(); a.IsValid() {
		q.Dst = numericZone(netip.AddrPortFrom(a.Unmap(), q.Dst.Port()))
	}
	return q
}

// allows tells whether a client may start flows.
func (s *Settings) allows(client netip.Addr) bool {
	if len(s.Allow) == 0 {
		return true
	}
	client = client.WithZone("") // a prefix contains no address with a zone
	for _, p := range s.Allow {
		if p.Contains(client) {
			return true
		}
	}
	return false
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
		b.flows[i] = f.flows[keyOf(&b.ms[i].Addr)]
	}
	f.mu.RUnlock()
	for i := range n {
		if b.ms[i].Truncated {
			f.engine.counters.drop(Truncated, 1)
			b.flows[i] = nil
			continue
		}
		if b.flows[i] == nil {
			b.flows[i] = f.start(&b.ms[i])
		}
		if b.flows[i] != nil {
			b.flows[i].use(now)
		}
	}
	b.send(f.engine, n, up)
}

// flow returns the live flow with k, or nil.
func (f *Forward) flow(k key) *flow {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.flows[k]
}

// remember puts fl into the tables of f. Engine.mu is held.
func (f *Forward) remember(fl *flow) {
	f.idle.add(fl)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows[fl.key] = fl
}

// forget is the reverse of remember.
func (f *Forward) forget(fl *flow) {
	f.idle.remove(fl)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.flows, fl.key)
}
