package udprelay

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// exit is a socket from which datagrams leave: a wildcard one of both families, with
// the source in each datagram's control message, or one for a source that needs more. A
// fixed port is that of an owner, which others may have, too.
type exit struct {
	association *Association
	conn        *pktinfo.Conn
	owner       *owner // of a fixed port; else nil
	at          netip.AddrPort
	key         exitKey

	// sent has a hole for each place from which the filter lets answers in. It is under
	// Association.mu.
	sent map[netip.AddrPort]*hole
}

// exitKey tells the sockets of an association apart. The zero value is its first one,
// for all sources that need nothing of their own.
type exitKey struct {
	addr     netip.Addr // not valid: the wildcard
	port     uint16
	ports    dialer.PortRange
	steering steering
	freeBind bool // not on the first: with it the kernel no longer refuses a source that is gone
}

// maxExits bounds the sockets of an association.
const maxExits = 64

// exitKeyOf returns which socket the datagrams of r leave by.
func exitKeyOf(r *route) exitKey {
	k := exitKey{port: r.port, ports: r.ports, freeBind: r.freeBind, steering: r.steering}
	if k.port != 0 {
		k.ports = dialer.PortRange{}
	}
	if k.port != 0 || !k.ports.IsZero() {
		k.addr = r.bindAddr()
	}
	return k
}

// exitFor returns the socket for r. Association.mu is held.
func (a *Association) exitFor(r *route) (*exit, error) {
	k := exitKeyOf(r)
	if x := a.exits[k]; x != nil {
		return x, nil
	}
	if len(a.exits) >= maxExits {
		a.dropIdle()
	}
	e := a.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errDraining
	}
	if len(a.exits) >= maxExits || len(e.owners)+len(e.associations.sockets) >= e.maxOwners {
		return nil, fmt.Errorf("%w: source %q needs a socket of its own, and there are too many", dialer.ErrPorts, r.name)
	}
	if k.port != 0 {
		return a.shareOwner(k, r)
	}
	x, err := a.openExit(k, r.name)
	if err != nil {
		return nil, explain(err, r, netip.AddrPortFrom(r.bindAddr(), r.port))
	}
	e.associations.sockets[x.at] = x.conn
	a.goroutines.Go(x.serve)
	return x, nil
}

// shareOwner makes the owner of a fixed port an exit. Engine.mu is held.
func (a *Association) shareOwner(k exitKey, r *route) (*exit, error) {
	o, err := a.engine.fixedPort(r)
	if err != nil {
		return nil, err
	}
	o.pins++
	x := &exit{association: a, conn: o.conn, owner: o, at: o.at, key: k, sent: make(map[netip.AddrPort]*hole)}
	a.exits[k] = x
	return x, nil
}

// close lets go of the socket. Engine.mu is held.
func (x *exit) close() error {
	if x.owner != nil {
		x.owner.pins--
		x.association.engine.release(x.owner)
		return nil
	}
	x.association.counts.overflow(x.conn)
	return x.conn.Close()
}

// openExit opens a socket; source is the name of the first one that leaves by it.
// Engine.mu is held.
func (a *Association) openExit(k exitKey, source string) (*exit, error) {
	x := &exit{association: a, key: k, sent: make(map[netip.AddrPort]*hole)}
	c, err := x.open()
	if err == nil {
		err = steer(c, k.steering, source)
	}
	if err != nil {
		return nil, err
	}
	x.conn, x.at = c, boundTo(c)
	a.exits[k] = x
	return x, nil
}

func (x *exit) open() (*pktinfo.Conn, error) {
	e, ctx := x.association.engine, context.Background()
	lc := pktinfo.ListenConfig{
		ReadBuffer:  ownerBuffer,
		WriteBuffer: ownerBuffer,
		MTUDiscover: pktinfo.MTUDiscoverDont,
		GRO:         true,
		FreeBind:    x.key.freeBind,
		Errors:      true, // so that those of one destination do not fail a datagram to another
		OnError:     func(pktinfo.SocketError) { x.association.counts.icmp.Add(1) },
		Control:     e.control,
	}
	if x.key.ports.IsZero() {
		return e.bind(ctx, &lc, "udp", netip.AddrPortFrom(x.key.addr, 0))
	}
	for port := range portsOf(x.key.ports) {
		at := netip.AddrPortFrom(x.key.addr, port)
		if e.owners[at] != nil || e.associations.sockets[at] != nil {
			continue
		}
		c, err := e.bind(ctx, &lc, "udp", at)
		if !isInUse(err) {
			return c, err
		}
	}
	return nil, unix.EADDRINUSE
}

// associations are the live ones of an Engine, with their sockets by the address that
// each is bound to. The zero value is empty. Engine.mu guards them.
type associations struct {
	live    map[*Association]struct{}
	sockets map[netip.AddrPort]*pktinfo.Conn
}

func (s *associations) enter(a *Association) {
	if s.live == nil {
		s.live = make(map[*Association]struct{})
		s.sockets = make(map[netip.AddrPort]*pktinfo.Conn)
	}
	s.live[a] = struct{}{}
	s.sockets[a.addr] = a.relay
	for _, x := range a.exits {
		s.sockets[x.at] = x.conn
	}
}

func (s *associations) leave(a *Association) {
	delete(s.live, a)
	delete(s.sockets, a.addr)
	for _, x := range a.exits {
		delete(s.sockets, x.at)
	}
}

// endAssociations closes all associations.
func (e *Engine) endAssociations() {
	e.mu.Lock()
	live := make([]*Association, 0, len(e.associations.live))
	for a := range e.associations.live {
		live = append(live, a)
	}
	e.mu.Unlock()
	for _, a := range live {
		if err := a.Close(); err != nil {
			e.Log.Warn("close association", "addr", a.addr.String(), "err", err)
		}
	}
}

// isOurs tells whether a datagram to dst would come back to a socket of an association
// or to one that flows leave from: they could send it to and fro for ever.
func (e *Engine) isOurs(dst netip.AddrPort) bool {
	e.mu.Lock()
	exact := e.associations.sockets[dst] != nil || e.owners[dst] != nil
	wild := e.associations.sockets[netip.AddrPortFrom(netip.IPv6Unspecified(), dst.Port())] != nil
	e.mu.Unlock()
	return exact || wild && isLocal(dst.Addr())
}

// isLocal tells whether a is an address of this host.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // it is refused then
	}
	for _, have := range addrs {
		n, ok := have.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a {
			return true
		}
	}
	return false
}
