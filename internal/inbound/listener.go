package inbound

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/relay"
)

// Kind is what a listener speaks.
type Kind uint8

// The kinds of TCP listeners.
const (
	Mixed Kind = iota // SOCKS and HTTP CONNECT, told apart by the first byte
	SOCKS             // SOCKS 4, 4a and 5
	HTTP              // HTTP CONNECT
	TCP               // a forward to a fixed target
)

// Settings is what a listener goes by. A reload hands it a new one as a whole; the
// connections it has already let in keep theirs.
type Settings struct {
	Name   string
	Kind   Kind
	Allow  []netip.Prefix // clients; empty: all
	Users  *Users         // nil: no login
	Limit  int            // connections at a time; 0: no limit
	Bind   bool           // SOCKS clients may BIND
	Dialer *dialer.Dialer
	Target dialer.Flow // of a TCP forward: Name, or Dst; its port is set

	// Associate serves UDP ASSOCIATE. Nil refuses it.
	Associate Associator

	// Advertise is what clients on other hosts are told as the address of their UDP
	// relay, instead of the one that they have connected to: that of a 1:1 NAT in front
	// of this host. It counts for clients of its family.
	Advertise netip.Addr

	Handshake  time.Duration // from accept to request; 0: no limit
	Idle       time.Duration
	HalfClosed time.Duration
	KeepAlive  time.Duration
	User       time.Duration // TCP_USER_TIMEOUT

	Shared *Shared
}

// Shared is what all listeners of the program have in common.
type Shared struct {
	Flows       *flows.Registry
	Descriptors *Descriptors
	Log         *slog.Logger

	// Sources ends what has lost its address. Nil: nothing does.
	Sources *egress.Sources

	Connections Gate
	Max         atomic.Int64 // of Connections; 0: no limit

	// Limits bounds each client and each user; that of sources is the Dialer's.
	Limits egress.Limits
}

// Gate counts those who are inside.
type Gate struct{ n atomic.Int64 }

// Enter lets one more in unless there are limit already; 0 is no limit.
func (g *Gate) Enter(limit int64) bool {
	if n := g.n.Add(1); limit > 0 && n > limit {
		g.n.Add(-1)
		return false
	}
	return true
}

// Leave undoes one Enter that returned true.
func (g *Gate) Leave() { g.n.Add(-1) }

// Len returns how many are inside.
func (g *Gate) Len() int { return int(g.n.Load()) }

// Listener accepts connections on one address. Make it with Listen.
type Listener struct {
	ln       *net.TCPListener
	settings atomic.Pointer[Settings]
	gate     Gate
	ctx      context.Context // ends the handshakes and dials, not the relays
	open     context.Context // ends with Close, or with ctx
	shut     context.CancelFunc
	running  sync.WaitGroup
	unwatch  func() bool // ends what the end of ctx is to do

	mu      sync.Mutex
	waiting map[*net.TCPConn]struct{} // connections that are no flows yet
}

// Listen opens a TCP listener on addr; the IPv6 wildcard takes IPv4 too. It accepts
// nothing before Serve. The end of ctx ends the connections that are no flows yet, now
// and after Close.
func Listen(ctx context.Context, addr netip.AddrPort, s *Settings, control func(network, address string, c syscall.RawConn) error) (*Listener, error) {
	lc := net.ListenConfig{Control: control, KeepAlive: -1} // Set does that
	lc.SetMultipathTCP(false)                               // subflows would use other addresses of this host
	network := "tcp"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	ln, err := lc.Listen(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	l := &Listener{ln: ln.(*net.TCPListener), ctx: ctx, waiting: make(map[*net.TCPConn]struct{})}
	l.open, l.shut = context.WithCancel(ctx)
	l.Set(s)
	return l, nil
}

// Set makes s the settings of the connections that come from now on.
func (l *Listener) Set(s *Settings) {
	c, d := *s, *s.Dialer
	d.Guard = notItself(d.Guard)
	c.Dialer = &d
	l.settings.Store(&c)
	// What is accepted inherits the options of the listener: five system calls less
	// for each connection.
	if err := relay.TuneTCP(l.ln, s.KeepAlive, s.User); err != nil {
		s.Shared.Log.Warn("keepalive", "listener", s.Name, "err", err)
	}
}

// Addr returns the address on which l listens.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// SyscallConn returns the listening socket.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.ln.SyscallConn() }

// Serve starts accepting. It is called once, and Wait after it.
func (l *Listener) Serve() {
	l.unwatch = context.AfterFunc(l.ctx, l.endHandshakes)
	l.running.Go(l.accept)
}

// Close stops accepting. What is in goes on, handshakes too: a client that was let in
// just before a reload closed the listener does not lose its connection.
func (l *Listener) Close() error {
	l.shut()
	return l.ln.Close()
}

func (l *Listener) endHandshakes() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.waiting {
		_ = c.Close() // its own goroutine sees and reports the end
	}
}

// Wait returns when everything that l started has ended. Then ctx holds l no longer: it
// outlives many listeners, and each has the rules of its time.
func (l *Listener) Wait() {
	l.running.Wait()
	if l.unwatch != nil {
		l.unwatch()
	}
}

func (l *Listener) accept() {
	for l.open.Err() == nil {
		s := l.settings.Load()
		if !s.Shared.Descriptors.waitClient(l.open, s.Shared.Log) {
			return
		}
		conn, err := l.ln.AcceptTCP()
		if err == nil {
			l.running.Go(func() { l.serve(conn) })
			continue
		}
		s.Shared.Descriptors.release()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case exhausted(err):
			s.Shared.Descriptors.pause(l.open, s.Shared.Log, err)
		}
		// Anything else is the trouble of one connection that was gone before it was accepted.
	}
}

// exhausted reports whether err says that the process or the system has run out.
func exhausted(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// serve sees one connection from its first byte to its end.
func (l *Listener) serve(conn *net.TCPConn) {
	s := l.settings.Load()
	defer s.Shared.Descriptors.release()
	c := &client{conn: conn, settings: s, listener: l, start: time.Now()}
	c.addr, c.asked = addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	if !l.enroll(conn) {
		_ = conn.Close() // it came too late
		return
	}
	defer l.release(conn)
	if !allowed(s.Allow, c.addr.Addr()) {
		c.refuse(request{}, errNotAllowed)
		_ = conn.Close() // nothing was said, nothing is lost
		return
	}
	leave, err := c.arrive()
	if err != nil {
		c.refuse(request{}, err)
		_ = conn.Close() // likewise
		return
	}
	defer leave()
	c.serve()
}

// enroll notes a connection that the end of ctx has to end; it is false after that.
func (l *Listener) enroll(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.waiting[c] = struct{}{}
	return true
}

// release makes l forget a connection: it has become a flow, or has ended.
func (l *Listener) release(c *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, c)
}

func allowed(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return len(prefixes) == 0
}

// addrPort returns a as netip value, IPv4-mapped ones unmapped: this is the edge.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
