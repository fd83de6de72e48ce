package udprelay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// owner is the one socket of the process for a source address and port. Datagrams
// that come in belong to the flow with their peer.
type owner struct {
	engine   *Engine
	counts   *counters // of the listener that has opened it
	conn     *pktinfo.Conn
	at       netip.AddrPort
	steering steering
	freeBind bool // the kernel does not refuse a source that is gone
	fixed    bool
	poller   *poller // of one that is not fixed: its reader
	pollID   int32   // there

	mu    sync.RWMutex
	peers flowTable // written with Engine.mu held, too
	trunk *trunk    // likewise; the flows that may have the same peer

	// The rest is under Engine.mu.
	pins  int // forwards that hold it although it has no flow
	group *group
	index int // in the group
}

// route is what a flow asks of an owner.
type route struct {
	peer     netip.AddrPort
	source   netip.Addr // not valid when the kernel chooses
	name     string     // of the source, for errors
	port     uint16     // zero when it is free
	ports    dialer.PortRange
	freeBind bool
	steering steering
	share    bool      // the peer with other flows, if the port is fixed
	counts   *counters // of the listener that asks
}

// routeOf returns what dec, the decision for a flow to peer, asks for.
func routeOf(dec *dialer.Decision, peer netip.AddrPort, port uint16) *route {
	r := &route{peer: peer, source: dec.Addr, port: port, ports: dec.Ports, name: "kernel"}
	if r.port == 0 {
		r.port = dec.Port
	}
	if s := dec.Source; s != nil {
		r.name = s.Name
		r.freeBind = s.FreeBind || s.Prefix.IsValid()
		r.steering = steering{s.Device, s.Mark}
	}
	return r
}

// bindAddr is the address its owner is bound to.
func (r *route) bindAddr() netip.Addr {
	if r.source.IsValid() {
		return r.source
	}
	return wildcard(r.peer.Addr())
}

// ownerFor returns an owner without a flow to the peer of r. Mu is held.
func (e *Engine) ownerFor(r *route) (*owner, error) {
	if r.port != 0 {
		return e.fixedOwner(r)
	}
	key := groupKey{r.bindAddr(), r.ports, r.freeBind, r.steering}
	g := e.groups[key]
	if g == nil {
		g = &group{key: key, from: make(map[netip.AddrPort]int)}
	}
	i := g.first(r.peer)
	if i < len(g.owners) {
		return g.owners[i], nil
	}
	if e.now() < g.full {
		return nil, noPorts(r)
	}
	o, err := e.openFree(r)
	if err != nil {
		if errors.Is(err, dialer.ErrPorts) {
			g.full = e.now() + fullFor
		}
		return nil, err
	}
	o.group, o.index = g, i
	g.owners = append(g.owners, o)
	e.groups[key] = g
	return o, nil
}

// fixedOwner returns the owner of the port that r asks for, unless it has a flow to
// the peer already: its answers could not be told from those of another.
func (e *Engine) fixedOwner(r *route) (*owner, error) {
	o, err := e.fixedPort(r)
	if err != nil {
		return nil, err
	}
	fl := o.flow(r.peer)
	if fl == nil && !r.share {
		fl = o.shared(r.peer)
	}
	if fl != nil {
		return nil, fmt.Errorf(`%w: %v to %v is the flow of %v; share = "sip" lets SIP phones share it, else give this client another source_port, or a listener with another source`,
			ErrPortTaken, o.at, r.peer, fl.entry.Client)
	}
	return o, nil
}

// fixedPort returns the owner of the port that r asks for.
func (e *Engine) fixedPort(r *route) (*owner, error) {
	at := netip.AddrPortFrom(r.bindAddr(), r.port)
	if o := e.owners[at]; o != nil {
		if o.steering != r.steering || o.freeBind != r.freeBind {
			return nil, fmt.Errorf("%w: %v is in use by a source with another device, mark or freebind", ErrPortTaken, at)
		}
		return o, nil
	}
	o, err := e.open(r, r.port)
	if isInUse(err) {
		e.displace(at)
	}
	if err != nil {
		return nil, explain(err, r, at)
	}
	return o, nil
}

// openFree opens an owner on a port that nobody has.
func (e *Engine) openFree(r *route) (*owner, error) {
	if len(e.owners) >= e.maxOwners {
		return nil, fmt.Errorf("%w: %d sockets are in use, half of what the process may open: %w", dialer.ErrPorts, len(e.owners), unix.EMFILE)
	}
	at := netip.AddrPortFrom(r.bindAddr(), 0)
	if r.ports.IsZero() {
		o, err := e.open(r, 0)
		return o, explain(err, r, at)
	}
	// Ports are tried one by one: IP_LOCAL_PORT_RANGE is ignored where it is not within
	// the sysctl, and the ones that we have need no try.
	n := int(r.ports.Hi) - int(r.ports.Lo) + 1
	first := rand.IntN(n)
	for i := range n {
		port := r.ports.Lo + uint16((first+i)%n)
		if port == 0 || e.owners[netip.AddrPortFrom(at.Addr(), port)] != nil {
			continue
		}
		o, err := e.open(r, port)
		if !isInUse(err) {
			return o, explain(err, r, at)
		}
	}
	return nil, noPorts(r)
}

// noPorts says that all ports to the peer are taken.
func noPorts(r *route) error {
	hint := "; add addresses (a range, or a pool)"
	if !r.ports.IsZero() {
		hint = fmt.Sprintf(": all %d of its ports %v are in use; widen them, or add addresses (a range, or a pool)", r.ports.Len(), r.ports)
	}
	return fmt.Errorf("%w: source %q has none left from %v to %v%s", dialer.ErrPorts, r.name, r.bindAddr(), r.peer, hint)
}

// explain says what an error of open means for the source.
func explain(err error, r *route, at netip.AddrPort) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, dialer.ErrSourceDown):
		return err
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: source %q: %v is not on this host: %w", dialer.ErrSourceDown, r.name, at.Addr(), err)
	case isInUse(err) && at.Port() != 0:
		return fmt.Errorf("%w: source %q: another socket has port %d of %v: %w", dialer.ErrPorts, r.name, at.Port(), at.Addr(), err)
	case isInUse(err), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", noPorts(r), err)
	}
	return fmt.Errorf("source %q: %w", r.name, err)
}

// open opens a socket on that port of the source, zero for any, and reads from it.
func (e *Engine) open(r *route, port uint16) (*owner, error) {
	o := &owner{engine: e, counts: r.counts, steering: r.steering, freeBind: r.freeBind, peers: flowTable{way: down, all: &e.numbers}}
	lc := pktinfo.ListenConfig{
		ReadBuffer:  ownerBuffer,
		WriteBuffer: ownerBuffer,
		MTUDiscover: pktinfo.MTUDiscoverDont, // a smaller MTU on the way is not to swallow what cannot be made smaller
		GRO:         r.port == 0,             // the others are for SIP, more often than not
		FreeBind:    r.freeBind,
		Errors:      true,
		OnError:     o.failed,
		Control:     e.control,
	}
	a := r.bindAddr()
	network := "udp6"
	if a.Is4() {
		network = "udp4"
	}
	c, err := e.bind(context.Background(), &lc, network, netip.AddrPortFrom(a, port))
	if err == nil {
		err = steer(c, r.steering, r.name)
	}
	if err != nil {
		return nil, err
	}
	o.conn, o.at = c, boundTo(c)
	if o.fixed = r.port != 0; o.fixed {
		e.all.Go(o.serve)
	} else if err := e.poll(o); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	e.owners[o.at] = o
	return o, nil
}

// leave takes fl off its owner, and closes that if it was the last.
func (e *Engine) leave(fl *flow) {
	o := fl.owner
	if fl.trunk != nil {
		fl.trunk.remove(fl)
	} else {
		o.mu.Lock()
		o.peers.remove(fl)
		o.mu.Unlock()
	}
	if o.group != nil {
		o.group.free(fl.peer(), o.index)
	}
	e.release(o)
}

// release closes o if nobody needs it.
func (e *Engine) release(o *owner) {
	if o.pins > 0 || o.peers.len > 0 || o.trunk != nil && !o.trunk.isEmpty() {
		return
	}
	delete(e.owners, o.at)
	if g := o.group; g != nil {
		g.drop(o.index)
		if len(g.owners) == 0 {
			delete(e.groups, g.key)
		}
	}
	if !o.fixed {
		o.poller.remove(o)
	}
	o.counts.overflow(o.conn)
	_ = o.conn.Close() // a datagram socket has nothing left to say; the port is free when it returns
}

// flow returns the flow with peer, or nil.
func (o *owner) flow(peer netip.AddrPort) *flow {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.peers.find(&key{from: peer})
}

// shared returns one of the flows that share peer, or nil.
func (o *owner) shared(peer netip.AddrPort) *flow {
	if o.trunk == nil {
		return nil
	}
	return o.trunk.some(peer)
}

// alone returns the one flow with peer, or nil where several share it.
func (o *owner) alone(peer netip.AddrPort) *flow {
	o.mu.RLock()
	fl, t := o.peers.find(&key{from: peer}), o.trunk
	o.mu.RUnlock()
	if fl == nil && t != nil {
		return t.alone(peer)
	}
	return fl
}

// share returns the trunk, and makes it if there is none.
func (o *owner) share() *trunk {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.trunk == nil {
		o.trunk = newTrunk(o)
	}
	return o.trunk
}

// leg is the way back to where a datagram came from.
func (o *owner) leg(a *pktinfo.Addr, class uint8) leg { return leg{o.conn, *a, class} }

// serve brings answers to the clients until the socket is closed. It never takes
// Engine.mu.
func (o *owner) serve() { o.engine.receive(o.conn, o.answer) }

// answer relays ms[:n] of b to the clients of their flows.
func (o *owner) answer(b *batch, n int) {
	o.claim(b, 0, n)
	b.send(o.engine, n, down)
}

// claim finds the flows of ms[first:end] of b, which came to o.
func (o *owner) claim(b *batch, first, end int) {
	now := o.engine.now()
	o.mu.RLock()
	trunk := o.trunk
	for i := first; i < end; i++ {
		b.flows[i] = o.peers.find(&key{from: b.ms[i].Addr.Peer})
	}
	o.mu.RUnlock()
	for i := first; i < end; i++ {
		switch fl := b.flows[i]; {
		case b.ms[i].Truncated:
			o.counts.drop(Truncated, datagrams(&b.ms[i]))
			b.flows[i] = nil
		case fl == nil && trunk != nil && isJoined(&b.ms[i]):
			apart(&b.ms[i], o.answer)
		case fl == nil && trunk != nil:
			b.flows[i] = o.engine.distribute(now, trunk, &b.ms[i])
		case fl == nil:
			o.counts.drop(Stranger, datagrams(&b.ms[i]))
		case fl.destination != nil:
			fl.destination.answer(now, b, &b.ms[i])
			b.flows[i] = nil
		default:
			fl.use(now)
		}
	}
}

// failed charges an ICMP error to the flow whose datagram caused it.
func (o *owner) failed(err pktinfo.SocketError) {
	fl := o.alone(err.Peer)
	if fl == nil || fl.forward == nil {
		o.counts.icmp.Add(1)
		return
	}
	fl.forward.counts().icmp.Add(1)
	fl.icmp.Add(1)
	fl.lastICMP.Store(&err)
}

// quiet is how long the flow must have been silent whose port is given to another
// client when there are no more, so that late answers do not reach the wrong one.
const quiet = 2 * time.Second
