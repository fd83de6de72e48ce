package dialer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// maxPeers bounds the destinations whose decision a PacketConn remembers.
const maxPeers = 4096

// A PacketConn is an unconnected UDP socket whose datagrams leave from the source that
// the rules choose for each destination. The choice is made with the first datagram to
// a destination and holds for the later ones. It is safe for concurrent use; make one
// with ListenPacket.
//
// One socket has one port. A destination whose source limits the ports, or whose rule
// fixes one, is refused with ErrPorts: dial it instead. So is one whose source has a
// device or a mark, or needs IP_FREEBIND, since that would let the other datagrams leave
// from an address that is gone.
type PacketConn struct {
	conn   *pktinfo.Conn
	dialer *Dialer
	flow   Flow // what the context said of it

	mu    sync.Mutex
	peers map[netip.AddrPort]Decision
}

var _ net.PacketConn = (*PacketConn)(nil)

// ListenPacket opens a PacketConn on a free port. The network is "udp", "udp4" or
// "udp6". What WithFlow put into ctx (user, client, listener) counts for its datagrams.
func (d *Dialer) ListenPacket(ctx context.Context, network string) (*PacketConn, error) {
	lc := pktinfo.ListenConfig{Control: d.Control}
	conn, err := lc.ListenAddrPort(ctx, network, netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	f, _ := ctx.Value(flowKey{}).(Flow)
	f.Network, f.Name = network, ""
	return &PacketConn{conn: conn, dialer: d, flow: f, peers: make(map[netip.AddrPort]Decision)}, nil
}

// WriteTo sends b to addr, whose String is IP:port. A refusal is a *net.OpError with a
// *RefusedError inside, and nothing has been sent then.
func (c *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	dst, err := addrPortOf(addr)
	if err != nil {
		return 0, &net.OpError{Op: "write", Net: c.flow.Network, Addr: addr, Err: err}
	}
	dec := c.decide(dst)
	if dec.Err != nil {
		f := c.flow
		f.Dst = dst
		return 0, &net.OpError{Op: "write", Net: f.Network, Addr: addr, Err: &RefusedError{f, dec}}
	}
	m := pktinfo.Message{Buf: b, N: len(b), Addr: pktinfo.Addr{Peer: dst, Local: dec.Addr}}
	if err := c.conn.WriteMsg(&m); err != nil {
		c.forget(dst) // the source may be gone; the next datagram decides anew
		return 0, err
	}
	return len(b), nil
}

func (c *PacketConn) forget(dst netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.peers, dst)
}

func addrPortOf(addr net.Addr) (netip.AddrPort, error) {
	switch a := addr.(type) {
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	case *pktinfo.Addr:
		return a.Peer, nil
	case nil:
		return netip.AddrPort{}, &net.AddrError{Err: "missing address"}
	}
	ap, err := netip.ParseAddrPort(addr.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err
}

// decide returns the decision for a destination, the one made before if there is one.
func (c *PacketConn) decide(dst netip.AddrPort) Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dec, ok := c.peers[dst]; ok {
		return dec
	}
	f := c.flow
	f.Dst = dst
	dec := c.dialer.decide(&f, nil)
	if dec.Err == nil && dec.Source != nil && (dec.Port != 0 || !dec.Ports.IsZero() || dec.Source.needsSocket()) {
		dec.Err = fmt.Errorf("%w: source %q needs a socket of its own", ErrPorts, dec.Source.Name)
	}
	if dec.Err != nil {
		return dec // asked again with the next datagram: the source may be back by then
	}
	for old := range c.peers {
		if len(c.peers) < maxPeers {
			break
		}
		delete(c.peers, old)
	}
	c.peers[dst] = dec
	return dec
}

// ReadFrom reads one datagram. Its address is a *pktinfo.Addr, which tells the local
// address it came to.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) { return c.conn.ReadFrom(b) }

// Close closes the socket.
func (c *PacketConn) Close() error { return c.conn.Close() }

// LocalAddr returns the address of the socket, whose IP is the wildcard.
func (c *PacketConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// SetDeadline sets both deadlines.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline sets the deadline of ReadFrom.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of WriteTo.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) { return c.conn.SyscallConn() }
