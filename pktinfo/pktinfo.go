// Package pktinfo is UDP for hosts with several addresses. A [Conn] knows for
// each datagram which local address it was sent to, and sends each datagram
// from the local address that the caller names, without a bind and without a
// socket for each address.
//
// A server that listens on a wildcard address and answers through a plain
// net.PacketConn leaves the source of its answers to the routing table: a
// client that asked 198.51.100.30 may hear from 198.51.100.10 and drop what it
// hears. [Conn] is a net.PacketConn whose ReadFrom returns an [*Addr] that
// remembers the address asked, and whose WriteTo answers from it. Replacing
//
//	c, err := net.ListenPacket("udp", ":53")
//
// by
//
//	c, err := pktinfo.Listen("udp", ":53")
//
// is all that such a server needs, unless it asserts *net.UDPAddr.
//
// Relays use [Conn.ReadBatch] and [Conn.WriteBatch]: recvmmsg(2) and
// sendmmsg(2), UDP_SEGMENT and UDP_GRO, and no allocation for a datagram.
//
// One kind of socket serves IPv4, IPv6 and both at once. Addresses are always
// unmapped: an IPv4 peer of a dual-stack socket is 192.0.2.1, never
// ::ffff:192.0.2.1. The package works on Linux (ip(7) IP_PKTINFO, RFC 3542
// section 6); elsewhere it compiles and answers errors.ErrUnsupported.
package pktinfo

import (
	"fmt"
	"iter"
	"net"
	"net/netip"
	"syscall"
)

// Addr is where a datagram came from and which local address it came to, or,
// for a datagram to be sent, where it goes and which local address it leaves
// from. It is comparable, and *Addr is a net.Addr.
type Addr struct {
	// Peer is the far end. The zone of a link-local address is its interface's
	// index in decimal. A name is accepted in a datagram to be sent, but costs
	// a look-up for each.
	Peer netip.AddrPort
	// Local is this host's address. The zero Addr, when reading, says that it
	// is not known or cannot be a source (an IPv6 group); when writing, that the
	// address the socket is bound to is used or, on a wildcard socket, that the
	// routing table chooses.
	Local netip.Addr
	// IfIndex is the interface on which the datagram came in. When writing it
	// counts only for a link-local Local: in other cases it would force the
	// device, and routing is the kernel's.
	IfIndex int
}

// Network returns "udp".
func (a *Addr) Network() string { return "udp" }

// String returns Peer as text.
func (a *Addr) String() string {
	if a == nil {
		return "<nil>"
	}
	return a.Peer.String()
}

// Message is one datagram in a batch, or, where Segment is set, several of one
// size that travel as one.
type Message struct {
	// Buf is filled by a read; a write sends Buf[:N]. It is the caller's: a
	// Conn keeps no part of it after the call.
	Buf []byte
	// N counts the bytes that are used in Buf.
	N int
	// Addr is the far end and the local address.
	Addr Addr
	// OrigDst is the destination the datagram was sent to before TPROXY brought
	// it here. Reads set it on transparent sockets, writes ignore it.
	OrigDst netip.AddrPort
	// Segment, if positive, says that Buf[:N] holds datagrams of Segment bytes
	// each, of which only the last may be shorter (UDP_GRO, kernel 5.0, and
	// UDP_SEGMENT, kernel 4.18). See [Message.Segments].
	Segment int
	// TrafficClass is the byte in the header that has the DSCP in its upper six
	// bits and ECN in the lower two (RFC 2474, RFC 3168): TOS for IPv4, traffic
	// class for IPv6. In a datagram to be sent, zero leaves it to the socket. Reads
	// set it where IP_RECVTOS or IPV6_RECVTCLASS was set on the socket.
	TrafficClass uint8
	// Truncated says that the datagram was longer than Buf, and that its rest is
	// lost.
	Truncated bool
}

// Segments returns the datagrams in Buf[:N], in order. It yields one for a
// Message that is not coalesced, an empty datagram included. The slices share
// Buf's memory.
func (m *Message) Segments() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		b := m.Buf[:m.N:m.N]
		for m.Segment > 0 && len(b) > m.Segment {
			if !yield(b[:m.Segment:m.Segment]) {
				return
			}
			b = b[m.Segment:]
		}
		yield(b)
	}
}

// Features says what a Conn can do on the running kernel.
type Features struct {
	// GSO says that the kernel cuts one large write into datagrams
	// (UDP_SEGMENT, kernel 4.18). Without it a Conn cuts by itself.
	GSO bool
	// GRO says that reads of this Conn may return coalesced datagrams: it was
	// asked for in ListenConfig and the kernel has UDP_GRO (kernel 5.0).
	GRO bool
}

// MTUDiscover is a value of the socket options IP_MTU_DISCOVER and
// IPV6_MTU_DISCOVER, see ip(7).
type MTUDiscover uint8

// The zero MTUDiscover leaves the socket as the system made it.
const (
	MTUDiscoverDefault MTUDiscover = iota
	MTUDiscoverDont                // DF is clear: routers fragment what is too large for the path
	MTUDiscoverWant                // DF where it fits the path, fragments here where not
	MTUDiscoverDo                  // DF always, EMSGSIZE for what is too large for the path
	MTUDiscoverProbe               // DF always, the learnt path MTU is ignored
)

// SocketError is an entry of a socket's error queue: an ICMP or ICMPv6 error
// that answers a datagram sent earlier (IP_RECVERR, IPV6_RECVERR, see ip(7)).
type SocketError struct {
	// Peer is the destination of the datagram that failed.
	Peer netip.AddrPort
	// Local is the address from which that datagram was sent; the zero Addr
	// where it is not known.
	Local netip.Addr
	// Offender is the host that sent the ICMP error.
	Offender netip.Addr
	// Type and Code are those of the ICMP or ICMPv6 message.
	Type, Code uint8
	// MTU is the path's, in bytes, where Err is EMSGSIZE; else 0.
	MTU int
	// Err is the errno: ECONNREFUSED, EHOSTUNREACH, EMSGSIZE and so on.
	Err error
}

// Error names the destination and the cause.
func (e *SocketError) Error() string {
	return fmt.Sprintf("pktinfo: %v answered for a datagram to %v: %v", e.Offender, e.Peer, e.Err)
}

// Unwrap returns Err.
func (e *SocketError) Unwrap() error { return e.Err }

// ListenConfig holds the options of a socket. Its zero value is ready to use.
type ListenConfig struct {
	// ReadBuffer and WriteBuffer are the sizes asked for, in bytes (SO_RCVBUF,
	// SO_SNDBUF); zero keeps the system's. With CAP_NET_ADMIN they may pass
	// net.core.rmem_max and wmem_max, else the kernel cuts them without an
	// error: [Conn.ReadBuffer] tells what was got.
	ReadBuffer, WriteBuffer int
	// MTUDiscover is for both families. Relays of datagrams that their senders
	// cannot make smaller, such as SIP, want MTUDiscoverDont.
	MTUDiscover MTUDiscover
	// GRO lets reads return several datagrams of one flow as one Message (see
	// Message.Segment). Buffers should hold 64 KiB. ReadFrom does not work on
	// such a Conn, since it could not tell the datagrams apart.
	GRO bool
	// FreeBind allows addresses that are not on this host (IP_FREEBIND,
	// IPV6_FREEBIND): prefixes routed to it. The kernel then no longer refuses
	// an IPv6 source that has gone away, so set it only where it is needed.
	FreeBind bool
	// Transparent makes the socket a TPROXY target that learns Message.OrigDst
	// (IP_TRANSPARENT, IP_RECVORIGDSTADDR). It needs CAP_NET_ADMIN or
	// CAP_NET_RAW.
	Transparent bool
	// Errors turns on the error queue (IP_RECVERR, IPV6_RECVERR). A Conn drains
	// it, so that an ICMP error about one peer fails no read and no write to
	// another. Without it an unconnected socket hears of no ICMP error.
	Errors bool
	// OnError, if set, is given each entry drained. It is called by the
	// goroutines that read or write, several at once when they do so at once,
	// with no lock held: it may use the Conn, and should not block.
	OnError func(SocketError)
	// Control, if set, is called before the bind, after the options above.
	Control func(network, address string, c syscall.RawConn) error
}

var (
	_ net.PacketConn = (*Conn)(nil)
	_ syscall.Conn   = (*Conn)(nil)
	_ net.Addr       = (*Addr)(nil)
	_ error          = (*SocketError)(nil)
)
