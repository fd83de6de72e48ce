// Package socks is the wire format of SOCKS 5 (RFC 1928), of its login (RFC
// 1929) and of SOCKS 4 and 4a, from the server's side.
//
// It is pure: Handshake looks at the bytes received so far and says what to
// answer, and the Append functions write what to send. Nothing here opens,
// dials, waits or logs.
package socks

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Versions, the first byte of a connection.
const (
	Version4 = 4
	Version5 = 5
)

// versionLogin is the version of the sub-negotiation of RFC 1929, both ways.
const versionLogin = 1

// Commands (RFC 1928 section 4). SOCKS 4 knows the first two.
const (
	CommandConnect   = 1
	CommandBind      = 2
	CommandAssociate = 3
)

// Methods (RFC 1928 section 3).
const (
	MethodNone         = 0x00
	MethodGSSAPI       = 0x01 // never chosen
	MethodPassword     = 0x02 // RFC 1929
	MethodUnacceptable = 0xff
)

// Address types (RFC 1928 section 5).
const (
	typeIPv4 = 1
	typeName = 3
	typeIPv6 = 4
)

// Reply is the REP field of a SOCKS 5 reply (RFC 1928 section 6).
type Reply byte

// The replies of RFC 1928 section 6.
const (
	ReplySucceeded           Reply = 0x00
	ReplyGeneralFailure      Reply = 0x01
	ReplyNotAllowed          Reply = 0x02
	ReplyNetworkUnreachable  Reply = 0x03
	ReplyHostUnreachable     Reply = 0x04
	ReplyRefused             Reply = 0x05
	ReplyTTLExpired          Reply = 0x06
	ReplyCommandNotSupported Reply = 0x07
	ReplyAddressNotSupported Reply = 0x08
)

// String returns the words of RFC 1928 section 6, or the number of an
// unassigned reply.
func (r Reply) String() string {
	switch r {
	case ReplySucceeded:
		return "succeeded"
	case ReplyGeneralFailure:
		return "general SOCKS server failure"
	case ReplyNotAllowed:
		return "connection not allowed by ruleset"
	case ReplyNetworkUnreachable:
		return "network unreachable"
	case ReplyHostUnreachable:
		return "host unreachable"
	case ReplyRefused:
		return "connection refused"
	case ReplyTTLExpired:
		return "TTL expired"
	case ReplyCommandNotSupported:
		return "command not supported"
	case ReplyAddressNotSupported:
		return "address type not supported"
	}
	return fmt.Sprintf("reply 0x%02x", byte(r))
}

// Reply4 is the CD field of a SOCKS 4 reply.
type Reply4 byte

// The replies of SOCKS 4. The last two speak of identd (RFC 1413), which is
// not asked here; they are never sent.
const (
	Reply4Granted  Reply4 = 0x5a
	Reply4Rejected Reply4 = 0x5b
	Reply4NoIdentd Reply4 = 0x5c
	Reply4Mismatch Reply4 = 0x5d
)

// Reply4 returns what SOCKS 4 can say of r: granted or rejected.
func (r Reply) Reply4() Reply4 {
	if r == ReplySucceeded {
		return Reply4Granted
	}
	return Reply4Rejected
}

// Addr is a destination: an address, or the name that the client asked for.
// With a Name, the address inside Addr is the zero netip.Addr and only the
// port counts. The zero Addr is neither. Addr is comparable.
type Addr struct {
	Addr netip.AddrPort // never IPv4-mapped and never with a zone when it was parsed here
	Name string         // as hostname.Parse returns it
}

// Port returns the port, which Addr.Addr keeps for a name too.
func (a Addr) Port() uint16 { return a.Addr.Port() }

// String returns a in the form host:port or [IPv6]:port.
func (a Addr) String() string {
	if a.Name == "" {
		return a.Addr.String()
	}
	return a.Name + ":" + strconv.Itoa(int(a.Port()))
}

// Request is what a client asks for once it has been let in.
type Request struct {
	Version byte   // Version4 or Version5; any other value is answered as Version5
	Command byte   // CommandConnect, CommandBind or CommandAssociate
	Dst     Addr   // for CONNECT never port 0 and never an unspecified address
	User    string // the user id of SOCKS 4: what the client claims, any bytes but NUL
}

// AppendReply appends the answer to r and returns the longer slice. bound is
// the address used towards the target (BND of RFC 1928 section 6); the zero
// AddrPort stands for 0.0.0.0:0. A SOCKS 4 reply has room for an IPv4 address
// only and says 0.0.0.0 for another.
func (r Request) AppendReply(b []byte, rep Reply, bound netip.AddrPort) []byte {
	bound = netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
	if r.Version != Version4 {
		return appendAddr(append(b, Version5, byte(rep), 0), Addr{Addr: bound})
	}
	b = append(b, 0, byte(rep.Reply4()), byte(bound.Port()>>8), byte(bound.Port()))
	return appendIPv4(b, bound.Addr())
}

// appendIPv4 appends the octets of a, or those of 0.0.0.0 when a is not IPv4.
func appendIPv4(b []byte, a netip.Addr) []byte {
	if !a.Is4() {
		return append(b, 0, 0, 0, 0)
	}
	v4 := a.As4()
	return append(b, v4[:]...)
}

// appendAddr appends ATYP, the address and the port of RFC 1928 section 5.
func appendAddr(b []byte, a Addr) []byte {
	switch ip := a.Addr.Addr().Unmap(); {
	case a.Name != "" && len(a.Name) <= 255:
		b = append(b, typeName, byte(len(a.Name)))
		b = append(b, a.Name...)
	case ip.Is6():
		v6 := ip.As16()
		b = append(append(b, typeIPv6), v6[:]...)
	default:
		b = appendIPv4(append(b, typeIPv4), ip)
	}
	return append(b, byte(a.Port()>>8), byte(a.Port()))
}
