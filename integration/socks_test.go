//go:build linux

package integration

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// The reply codes of RFC 1928, section 6.
const (
	replySucceeded   = 0
	replyGeneral     = 1
	replyRuleset     = 2
	replyNetwork     = 3
	replyHost        = 4
	replyRefused     = 5
	replyTTL         = 6
	replyCommand     = 7
	replyAddressType = 8
)

// connect5 is a SOCKS5 request with the command CONNECT for an address.
func connect5(dst netip.AddrPort) []byte {
	b := []byte{5, 1, 0, 1}
	if dst.Addr().Is6() {
		b[3] = 4
	}
	b = append(b, dst.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

// connect5Name is connect5 for a name of at most 255 bytes.
func connect5Name(name string, port uint16) []byte {
	b := append([]byte{5, 1, 0, 3, byte(len(name))}, name...)
	return binary.BigEndian.AppendUint16(b, port)
}

// refused is the error of a SOCKS5 handshake that ended with a reply.
type refused byte

func (r refused) Error() string { return fmt.Sprintf("SOCKS reply %02x", byte(r)) }

// handshake asks for the target with no login and returns BND. It reads not a
// byte more than the reply.
func handshake(c net.Conn, request []byte) (netip.AddrPort, error) {
	if err := c.SetDeadline(time.Now().Add(4 * patience)); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return netip.AddrPort{}, err
	}
	var b [16]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("method: %w", err)
	}
	if b[0] != 5 || b[1] != 0 {
		return netip.AddrPort{}, fmt.Errorf("method reply % x", b[:2])
	}
	if _, err := c.Write(request); err != nil {
		return netip.AddrPort{}, err
	}
	bnd, err := readReply5(c)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return bnd, c.SetDeadline(time.Time{})
}

func readReply5(r io.Reader) (netip.AddrPort, error) {
	var b [18]byte
	if _, err := io.ReadFull(r, b[:4]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reply: %w", err)
	}
	size := 4
	if b[3] == 4 {
		size = 16
	}
	reply := refused(b[1])
	if _, err := io.ReadFull(r, b[:size+2]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reply %02x, address: %w", byte(reply), err)
	}
	if reply != replySucceeded {
		return netip.AddrPort{}, reply
	}
	addr, _ := netip.AddrFromSlice(b[:size]) // 4 or 16 bytes
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[size:])), nil
}

// through opens a connection to dst through the SOCKS5 listener at proxy.
func (r *rig) through(proxy string, dst netip.AddrPort) (*net.TCPConn, error) {
	c, err := r.tryDial(proxy)
	if err != nil {
		return nil, err
	}
	if _, err := handshake(c, connect5(dst)); err != nil {
		_ = c.Close() // the handshake's error is the one
		return nil, err
	}
	return c, nil
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// firstReply is the first that the proxy sends, of a SOCKS4 or HTTP reply; empty
// when it closes or is silent.
func firstReply(c net.Conn) string {
	b := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
	n, _ := c.Read(b)
	return string(b[:n])
}
