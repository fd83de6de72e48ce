package pktinfo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// Conn is a UDP socket that knows the local address of each datagram. All its
// methods are safe for concurrent use. Make one with [Listen],
// [ListenConfig.Listen] or [New].
type Conn struct {
	udp     *net.UDPConn
	raw     syscall.RawConn
	bound   netip.AddrPort // as getsockname(2) says, unmapped
	source  netip.Addr     // goes into datagrams without a Local; the zero Addr on wildcard sockets
	peer    netip.AddrPort // the far end of a connected socket
	onError func(SocketError)
	socket  // what the platform adds
}

// Listen is ListenConfig.Listen with the zero ListenConfig and no context.
func Listen(network, address string) (*Conn, error) {
	var lc ListenConfig
	return lc.Listen(context.Background(), network, address)
}

// Listen opens a socket. The network is "udp", "udp4" or "udp6"; the address
// is as for net.ListenPacket, so that "udp" and ":53" is one dual-stack socket.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (*Conn, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	return lc.listen(ctx, network, address)
}

// ListenAddrPort is Listen for an address that is parsed already. The zero
// AddrPort is any address and any port.
func (lc *ListenConfig) ListenAddrPort(ctx context.Context, network string, a netip.AddrPort) (*Conn, error) {
	if !a.IsValid() {
		return lc.Listen(ctx, network, net.JoinHostPort("", strconv.Itoa(int(a.Port()))))
	}
	return lc.Listen(ctx, network, unmap(a).String())
}

// New takes over c, which is not to be used afterwards; Close closes it.
// Datagrams that were queued before New have no Local. If c is connected,
// datagrams without a Peer go to the far end.
func New(c *net.UDPConn) (*Conn, error) {
	return newConn(c, nil)
}

// newConn wraps c; it leaves c open when it fails.
func newConn(c *net.UDPConn, lc *ListenConfig) (*Conn, error) {
	if c == nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: syscall.EINVAL}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &Conn{udp: c, raw: raw, bound: addrPortOf(c.LocalAddr()), peer: addrPortOf(c.RemoteAddr())}
	if a := p.bound.Addr(); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
		p.source = a
	}
	if lc != nil {
		p.onError = lc.OnError
	}
	if err := p.setUp(lc); err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Source: c.LocalAddr(), Err: err}
	}
	return p, nil
}

// ReadFrom reads one datagram into b. The net.Addr is an [*Addr]: WriteTo
// answers from the address that was asked. It implements net.PacketConn.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.Features().GRO {
		return 0, nil, c.readError(errors.ErrUnsupported)
	}
	n, a, err := c.readOne(b)
	if err != nil {
		return 0, nil, err
	}
	return n, &a, nil
}

// WriteTo sends b as one datagram. From an [*Addr] it takes the source, too;
// *net.UDPAddr and other addresses whose String is IP:port leave it to the
// socket. On a connected socket a nil addr is the far end. It implements
// net.PacketConn.
func (c *Conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, err := addrOf(addr)
	if err != nil {
		return 0, c.writeError(Addr{}, err)
	}
	return c.writeOne(b, a)
}

// ReadMsg reads one datagram into m as [Conn.ReadBatch] does.
func (c *Conn) ReadMsg(m *Message) error { return c.readMsg(m) }

// WriteMsg sends m as [Conn.WriteBatch] does.
func (c *Conn) WriteMsg(m *Message) error { return c.writeMsg(m) }

// ReadBatch waits until at least one datagram is there, reads what is there
// into the Buf of each message, at most 64, and returns how many it read. It
// sets N, Addr, OrigDst, Segment and Truncated.
//
// The buffers are held for as long as the call waits; see [Conn.WaitRead].
func (c *Conn) ReadBatch(ms []Message) (int, error) { return c.readBatch(ms) }

// WaitRead waits until there is something to read, and reads nothing: one that
// serves many idle sockets can take buffers from a pool after it. Another
// goroutine may be quicker, then ReadBatch waits again.
func (c *Conn) WaitRead() error { return c.waitRead() }

// ReadReady is ReadBatch for those who know, by an epoll(7) of their own, that there is
// something: it does not wait, and returns 0 where there is no datagram.
func (c *Conn) ReadReady(ms []Message) (int, error) { return c.readReady(ms) }

// WriteBatch sends the messages in order and returns how many it sent. An
// error is about message n, ms[n], which was not sent (of a segmented one a
// part may have been); the caller may skip it and go on with ms[n+1:].
//
// Each datagram carries its source in its control message, so that the kernel
// refuses a source that is no longer on this host. A Local of the other family
// than Peer is EINVAL. Runs of messages with equal size, Peer, Local and
// TrafficClass leave as one with UDP_SEGMENT where the kernel can.
func (c *Conn) WriteBatch(ms []Message) (int, error) { return c.writeBatch(ms) }

// Dropped returns how many datagrams the kernel has dropped since the socket
// was made, most of them because its buffer was full (SO_MEMINFO, kernel 4.12).
func (c *Conn) Dropped() (uint64, error) { return c.dropped() }

// ReadBuffer returns the effective size of the receive buffer in bytes as the
// kernel counts it: twice what was asked for, of which about half is payload.
func (c *Conn) ReadBuffer() (int, error) { return c.readBuffer() }

// WriteBuffer returns the effective size of the send buffer, see ReadBuffer.
func (c *Conn) WriteBuffer() (int, error) { return c.writeBuffer() }

// Features returns what was found out when c was made.
func (c *Conn) Features() Features { return c.features }

// LocalAddr returns the address the socket is bound to, a *net.UDPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.udp.LocalAddr() }

// Close closes the socket and ends all calls that wait on it.
func (c *Conn) Close() error { return c.udp.Close() }

// SetDeadline sets both deadlines; see net.Conn. A zero time means none.
func (c *Conn) SetDeadline(t time.Time) error { return c.udp.SetDeadline(t) }

// SetReadDeadline sets the deadline of reads, those that wait included.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.udp.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writes, those that wait included.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.udp.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor, for socket options.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.udp.SyscallConn() }

// readError wraps err, which is never nil, as net.UDPConn's would be.
func (c *Conn) readError(err error) error {
	return &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Addr: c.udp.RemoteAddr(), Err: cause(err)}
}

// writeError wraps err, which is never nil. Its Source is the address that the
// datagram should have left from.
func (c *Conn) writeError(a Addr, err error) error {
	e := &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Addr: c.udp.RemoteAddr(), Err: cause(err)}
	if a.Local.IsValid() {
		e.Source = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Local, c.bound.Port()))
	}
	if a.Peer.IsValid() {
		e.Addr = net.UDPAddrFromAddrPort(a.Peer)
	}
	return e
}

// cause takes off the net.OpError that RawConn puts around its errors, since
// its Op ("raw-read") is of no interest to callers.
func cause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}
