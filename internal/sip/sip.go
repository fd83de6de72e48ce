// Package sip reads as much of SIP (RFC 3261) as a forwarder needs that shares one
// source address and port between several clients and rewrites nothing: Scan takes
// the routing fields out of a message, and Table tells which client a datagram
// from the provider belongs to. The package opens no sockets, starts no goroutines
// and reads no clock.
package sip

import "encoding/binary"

// Kind is what a datagram on a SIP port looks like from its first bytes.
type Kind uint8

// The kinds of datagrams.
const (
	Other     Kind = iota // none of those below
	KeepAlive             // empty, or up to two line ends (RFC 5626 section 3.5.1); needs no answer
	STUN                  // a STUN message (RFC 8489, RFC 3489); TransactionID has its identity
	SIP                   // worth a Scan
)

// String returns the name of the kind.
func (k Kind) String() string {
	switch k {
	case KeepAlive:
		return "keepalive"
	case STUN:
		return "stun"
	case SIP:
		return "sip"
	}
	return "other"
}

// KindOf tells what b looks like. It looks at a few bytes, so that SIP means only
// that Scan may succeed. It does not allocate.
func KindOf(b []byte) Kind {
	switch {
	case isKeepAlive(b):
		return KeepAlive
	case isSTUN(b):
		return STUN
	}
	b = skipLineEnds(b)
	if len(b) > 0 && isToken(b[0]) {
		return SIP
	}
	return Other
}

// isKeepAlive reports whether b is what clients send to keep a NAT open: nothing, CRLF,
// CRLF CRLF, and the zeros and blanks that some send in their place.
func isKeepAlive(b []byte) bool {
	if len(b) > 4 {
		return false
	}
	for _, c := range b {
		if c != 0 && !isSpace(c) {
			return false
		}
	}
	return true
}

const (
	stunHeader = 20
	stunCookie = 0x2112A442 // RFC 8489 section 5
)

// isSTUN checks the two zero bits, the length, and the magic cookie. Without the cookie only the
// three binding messages of RFC 3489 count.
func isSTUN(b []byte) bool {
	if len(b) < stunHeader || b[0]&0xC0 != 0 {
		return false
	}
	if n := int(binary.BigEndian.Uint16(b[2:])); n%4 != 0 || n != len(b)-stunHeader {
		return false
	}
	if binary.BigEndian.Uint32(b[4:]) == stunCookie {
		return true
	}
	switch binary.BigEndian.Uint16(b) {
	case 0x0001, 0x0101, 0x0111: // request, response, error response
		return true
	}
	return false
}

// ID identifies a STUN transaction: the magic cookie and the 96 bits of RFC 8489, or
// the 128 bits of RFC 3489. A response has the ID of its request.
type ID [16]byte

// TransactionID returns the ID of b, for which KindOf has said STUN. The ID of
// anything shorter than a STUN header is zero.
func TransactionID(b []byte) (id ID) {
	if len(b) >= stunHeader {
		copy(id[:], b[4:stunHeader])
	}
	return id
}
