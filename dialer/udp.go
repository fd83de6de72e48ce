package dialer

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// dialUDP opens a connected UDP socket on which every datagram names its source, so
// that the kernel refuses to send once the address is gone from the host. Without
// that, a connected IPv6 socket goes on sending from it (seen on Linux 6.18).
func dialUDP(ctx context.Context, nd *net.Dialer, f *Flow, local netip.AddrPort) (net.Conn, error) {
	u, err := nd.DialUDP(ctx, f.Network, local, f.Dst)
	if err != nil {
		return nil, err
	}
	if !local.Addr().IsValid() {
		return u, nil
	}
	return &udpConn{u, pktinfo.AppendControl(nil, local.Addr(), 0, 0)}, nil
}

// udpConn is a connected UDP socket that sends from one source only. It is a
// net.PacketConn as well, since that is how callers (the resolver of package net
// among them) tell datagrams from a stream.
type udpConn struct {
	conn   *net.UDPConn
	source []byte // the control message
}

var (
	_ net.Conn       = (*udpConn)(nil)
	_ net.PacketConn = (*udpConn)(nil)
)

func (c *udpConn) Write(b []byte) (int, error) {
	n, _, err := c.conn.WriteMsgUDPAddrPort(b, c.source, netip.AddrPort{})
	return n, err
}

// WriteTo refuses, as on every connected socket.
func (c *udpConn) WriteTo(b []byte, a net.Addr) (int, error) { return c.conn.WriteTo(b, a) }

func (c *udpConn) Read(b []byte) (int, error)               { return c.conn.Read(b) }
func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) { return c.conn.ReadFrom(b) }
func (c *udpConn) Close() error                             { return c.conn.Close() }
func (c *udpConn) LocalAddr() net.Addr                      { return c.conn.LocalAddr() }
func (c *udpConn) RemoteAddr() net.Addr                     { return c.conn.RemoteAddr() }
func (c *udpConn) SetDeadline(t time.Time) error            { return c.conn.SetDeadline(t) }
func (c *udpConn) SetReadDeadline(t time.Time) error        { return c.conn.SetReadDeadline(t) }
func (c *udpConn) SetWriteDeadline(t time.Time) error       { return c.conn.SetWriteDeadline(t) }
