package udprelay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/socks"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// Filter says which datagrams from outside an association lets in, in the words of
// RFC 4787 section 5. Whatever it is, nothing comes in before the client has sent.
type Filter uint8

// The filters.
const (
	FilterAddress        Filter = iota // from addresses to which the client has sent, any port
	FilterAddressAndPort               // from addresses and ports to which it has sent
	FilterNone                         // from anywhere, to a source that it has sent from
)

// filterWords are the words of the configuration.
var filterWords = [...]string{"address", "address-and-port", "none"}

// String returns the word of the configuration.
func (f Filter) String() string {
	if int(f) < len(filterWords) {
		return filterWords[f]
	}
	return "unknown"
}

// ParseFilter returns the Filter that the configuration calls s.
func ParseFilter(s string) (Filter, error) {
	for i, w := range filterWords {
		if w == s {
			return Filter(i), nil
		}
	}
	return 0, fmt.Errorf("filter %q: want one of %q", s, filterWords)
}

// AssociateSettings are what an association goes by. They are not to be changed.
type AssociateSettings struct {
	// Flow is what the rules know of each datagram, besides its destination: Listener,
	// Client (of the TCP connection, whose address alone may send), Asked, User, Session.
	Flow dialer.Flow

	// Dialer returns what decides on a new destination, by Decide for an address and by
	// Resolve and Decide for a name. It is asked for each, since a reload may change it
	// while the association lives.
	Dialer func() *dialer.Dialer

	// Local is the address that the relay socket is bound to: the one that the client
	// connected to. A link-local one has its zone.
	Local netip.Addr

	// Ports are those that the relay socket may have. The zero value leaves it free.
	Ports dialer.PortRange

	// Port is the client's, where it is known before the first datagram; else zero, and
	// the first datagram fixes it.
	Port uint16

	Filter Filter

	// DSCP marks what is sent to either side: 0 to 63 (RFC 2474).
	DSCP uint8

	// MaxDestinations bounds the destinations whose decision is remembered. Zero means
	// 4096. At the bound, the one that has been idle for the longest time is forgotten.
	MaxDestinations int

	// Idle forgets a destination without a datagram in either direction: nothing is let in
	// from there any more, and the next datagram is decided anew, a name looked up again.
	// Zero means 2 minutes.
	Idle time.Duration
}

const defaultMaxDestinations = 4096

// Association relays the datagrams of one SOCKS 5 client (RFC 1928 section 7), each
// from the source that the rules choose for its destination. Its methods are safe for
// concurrent use. Idle, it costs its sockets and goroutines, and no buffers.
type Association struct {
	engine     *Engine
	settings   *AssociateSettings
	counts     *counters
	relay      *pktinfo.Conn // towards the client
	addr       netip.AddrPort
	client     netip.Addr
	entry      *flows.Flow
	ctx        context.Context // ends the look-ups
	cancel     context.CancelFunc
	goroutines sync.WaitGroup

	// peer is the client's end, nil before its first datagram.
	peer atomic.Pointer[pktinfo.Addr]

	mu           sync.RWMutex
	closed       bool
	exits        map[exitKey]*exit               // written with Engine.mu held, too
	destinations map[netip.AddrPort]*destination // those that the client names by address
	names        map[socks.Addr]*associateName   // those that it names by name
	headers      map[string]*associateName       // by what stands for the name on the wire
	queued       int                             // bytes that wait for names
	lookups      int                             // that are under way
	queue        destinationQueue                // all destinations
}

// Associate opens an association. It relays once Serve was called, until Close.
func (e *Engine) Associate(ctx context.Context, s *AssociateSettings) (*Association, error) {
	e.once.Do(e.setUp)
	a := &Association{
		engine:       e,
		settings:     s,
		counts:       e.tallies.of(s.Flow.Listener),
		client:       s.Flow.Client.Addr().Unmap().WithZone(""),
		exits:        make(map[exitKey]*exit),
		destinations: make(map[netip.AddrPort]*destination),
		names:        make(map[socks.Addr]*associateName),
		headers:      make(map[string]*associateName),
	}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := a.open(ctx); err != nil {
		a.cancel()
		return nil, err
	}
	e.associations.enter(a)
	e.startSweeper()
	e.hurry()
	return a, nil
}

// open opens both sockets. Engine.mu is held.
func (a *Association) open(ctx context.Context) error {
	e := a.engine
	if e.closed {
		return &net.OpError{Op: "associate", Net: "udp", Err: net.ErrClosed}
	}
	c, err := a.listen(ctx)
	if err != nil {
		return fmt.Errorf("associate on %v: %w", a.settings.Local, err)
	}
	a.relay, a.addr = c, boundTo(c)
	if _, err := a.openExit(exitKey{}, ""); err != nil {
		return errors.Join(fmt.Errorf("associate: %w", err), c.Close())
	}
	return nil
}

// listen opens the relay socket. An IPv6 address to which the client has connected may
// be local by a route alone: it is bound only when the kernel is told not to look for it.
func (a *Association) listen(ctx context.Context) (*pktinfo.Conn, error) {
	c, err := a.listenOn(ctx, false)
	if errors.Is(err, unix.EADDRNOTAVAIL) && a.settings.Local.Is6() {
		return a.listenOn(ctx, true)
	}
	return c, err
}

// listenOn opens the relay socket on one of the ports that it may have.
func (a *Association) listenOn(ctx context.Context, freeBind bool) (*pktinfo.Conn, error) {
	lc := pktinfo.ListenConfig{
		ReadBuffer:  ownerBuffer,
		WriteBuffer: ownerBuffer,
		MTUDiscover: pktinfo.MTUDiscoverDont,
		GRO:         true,
		FreeBind:    freeBind,
	}
	r := a.settings.Ports
	if r.IsZero() {
		return lc.ListenAddrPort(ctx, "udp", netip.AddrPortFrom(a.settings.Local, 0))
	}
	for port := range portsOf(r) {
		at := netip.AddrPortFrom(a.settings.Local, port)
		if a.engine.associations.sockets[at] != nil {
			continue
		}
		c, err := a.engine.bind(ctx, &lc, "udp", at)
		if !isInUse(err) {
			return c, err
		}
	}
	return nil, fmt.Errorf("%w: all relay_ports %v are taken", dialer.ErrPorts, r)
}

// portsOf yields the ports of r, from a random one on.
func portsOf(r dialer.PortRange) func(yield func(uint16) bool) {
	n := int(r.Hi) - int(r.Lo) + 1
	first := rand.IntN(n)
	return func(yield func(uint16) bool) {
		for i := range n {
			if port := r.Lo + uint16((first+i)%n); port != 0 && !yield(port) {
				return
			}
		}
	}
}

// Addr returns where the client's datagrams are to be sent.
func (a *Association) Addr() netip.AddrPort { return a.addr }

// Serve starts to relay; it does not wait. The counters of entry count the payload. It
// is called once, before Close.
func (a *Association) Serve(entry *flows.Flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.entry = entry
	a.goroutines.Go(func() { a.engine.receive(a.relay, a.ask) })
	for _, x := range a.exits {
		a.goroutines.Go(x.serve)
	}
}

// Close ends the association, and waits until nothing of it is left. A second call
// does nothing.
func (a *Association) Close() error {
	err := a.end()
	a.goroutines.Wait()
	return err
}

// lost is what the kernel has dropped on the sockets of a. Engine.mu is held.
func (a *Association) lost() uint64 {
	n := lost(a.relay)
	for _, x := range a.exits {
		if x.owner == nil {
			n += lost(x.conn)
		}
	}
	return n
}

func (a *Association) end() error {
	e := a.engine
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	a.cancel()
	e.destinations.Add(-int64(a.queue.len))
	for d := a.queue.first; d != nil; d = d.next {
		e.Limits.LeaveSource(d.source)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.associations.leave(a)
	a.counts.overflow(a.relay)
	err := a.relay.Close()
	for d := a.queue.first; d != nil; d = d.next {
		e.leavePeer(d)
	}
	for _, x := range a.exits {
		err = errors.Join(err, x.close())
	}
	return err
}
