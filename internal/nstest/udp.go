//go:build linux

package nstest

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// maxDatagram is more than the largest UDP payload over IPv4 or IPv6.
const maxDatagram = 65536

// EchoUDP answers each datagram with itself, from the address it was sent to,
// wildcard addresses included. The address tells the family: "0.0.0.0:7" or
// "[::]:7".
func (n *Namespace) EchoUDP(t testing.TB, address string) *Server {
	t.Helper()
	return n.ServeUDP(t, address, func(_, _ netip.AddrPort, b []byte) []byte { return b })
}

// ServeUDP answers each datagram with what answer returns for it, from the
// address it was sent to; nil is no answer. The payload is answer's only until
// it returns.
func (n *Namespace) ServeUDP(t testing.TB, address string, answer func(peer, to netip.AddrPort, b []byte) []byte) *Server {
	t.Helper()
	network := "udp" + family(address)
	c, err := n.ListenPacket(network, address)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20) // the kernel caps it
	s := &Server{Addr: unmapped(c.LocalAddr())}
	p, err := newPacketConn(network, c)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	s.all.Add(1)
	go s.answer(p, answer)
	t.Cleanup(func() {
		_ = c.Close() // a test may have closed it
		s.all.Wait()
	})
	return s
}

func (s *Server) answer(p packetConn, answer func(peer, to netip.AddrPort, b []byte) []byte) {
	defer s.all.Done()
	buf := make([]byte, maxDatagram)
	for {
		size, local, peer, err := p.read(buf)
		if err != nil {
			return
		}
		to := netip.AddrPortFrom(local, s.Addr.Port())
		if b := answer(s.saw(peer), to, buf[:size]); b != nil {
			_ = p.write(b, local, peer) // a lost answer is what the client sees
		}
	}
}

// packetConn reads and writes datagrams with their local address.
type packetConn interface {
	read(b []byte) (size int, local netip.Addr, peer net.Addr, err error)
	write(b []byte, local netip.Addr, peer net.Addr) error
}

func newPacketConn(network string, c net.PacketConn) (packetConn, error) {
	if network == "udp4" {
		p := ipv4.NewPacketConn(c)
		return conn4{p}, p.SetControlMessage(ipv4.FlagDst, true)
	}
	p := ipv6.NewPacketConn(c)
	return conn6{p}, p.SetControlMessage(ipv6.FlagDst, true)
}

type conn4 struct{ *ipv4.PacketConn }

func (c conn4) read(b []byte) (int, netip.Addr, net.Addr, error) {
	size, cm, peer, err := c.ReadFrom(b)
	if err != nil {
		return 0, netip.Addr{}, nil, err
	}
	local, _ := netip.AddrFromSlice(cm.Dst) // asked for by FlagDst
	return size, local.Unmap(), peer, nil
}

func (c conn4) write(b []byte, local netip.Addr, peer net.Addr) error {
	_, err := c.WriteTo(b, &ipv4.ControlMessage{Src: local.AsSlice()}, peer)
	return err
}

type conn6 struct{ *ipv6.PacketConn }

func (c conn6) read(b []byte) (int, netip.Addr, net.Addr, error) {
	size, cm, peer, err := c.ReadFrom(b)
	if err != nil {
		return 0, netip.Addr{}, nil, err
	}
	local, _ := netip.AddrFromSlice(cm.Dst) // asked for by FlagDst
	return size, local, peer, nil
}

func (c conn6) write(b []byte, local netip.Addr, peer net.Addr) error {
	_, err := c.WriteTo(b, &ipv6.ControlMessage{Src: local.AsSlice()}, peer)
	return err
}
