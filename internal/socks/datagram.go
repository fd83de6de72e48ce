package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// MaxDatagramHeader is the length in bytes of the longest header that a
// datagram can have: one with a name of 255 bytes.
const MaxDatagramHeader = 4 + 1 + 255 + 2

// Why a datagram is dropped, besides ErrAddressType, ErrPort, ErrUnspecified
// and hostname.ErrInvalid.
var (
	ErrShort    = errors.New("the datagram is shorter than its header")
	ErrFragment = errors.New("fragments are not reassembled")
)

// Datagram is a UDP datagram between client and relay (RFC 1928 section 7).
type Datagram struct {
	Dst     Addr   // on its way back to the client: where it came from
	Payload []byte // may be empty
}

// ParseDatagram reads a datagram that came from a client. Its payload is a
// subslice of b. It allocates only for a name and for an error, and each error
// means that the datagram is to be dropped: a fragment among them, as RFC 1928
// section 7 demands of a relay that does not reassemble.
func ParseDatagram(b []byte) (Datagram, error) {
	if len(b) < 4 {
		return Datagram{}, ErrShort
	}
	if b[2] != 0 {
		return Datagram{}, ErrFragment
	}
	dst, n, err := parseAddr(b[3:])
	if err != nil {
		return Datagram{}, err
	}
	if err := destinationFault(dst); err != nil {
		return Datagram{}, err
	}
	return Datagram{Dst: dst, Payload: b[3+n:]}, nil
}

// AppendDatagram appends the header for src and then payload to b and returns
// the longer slice. It does not allocate where b has room. A name longer than
// 255 bytes, which ParseDatagram never returns, is written as 0.0.0.0.
func AppendDatagram(b []byte, src Addr, payload []byte) []byte {
	return append(appendAddr(append(b, 0, 0, 0), src), payload...)
}

// parseAddr reads ATYP, address and port, and their length in bytes.
func parseAddr(b []byte) (Addr, int, error) {
	n := 0
	switch b[0] {
	case typeIPv4:
		n = 1 + 4
	case typeIPv6:
		n = 1 + 16
	case typeName:
		if len(b) < 2 {
			return Addr{}, 0, ErrShort
		}
		n = 2 + int(b[1])
	default:
		return Addr{}, 0, fmt.Errorf("%w 0x%02x", ErrAddressType, b[0])
	}
	if len(b) < n+2 {
		return Addr{}, 0, ErrShort
	}
	port := binary.BigEndian.Uint16(b[n:])
	if b[0] == typeName {
		dst, err := parseHost(string(b[2:n]), port)
		return dst, n + 2, err
	}
	ip, _ := netip.AddrFromSlice(b[1:n]) // 4 or 16 bytes
	return Addr{Addr: netip.AddrPortFrom(ip.Unmap(), port)}, n + 2, nil
}
