package socks

import (
	"fmt"
	"io"
	"net/netip"

	socks5 "github.com/armon/go-socks5"
)

// The messages of SOCKS 5 after the greeting are parsed by armon/go-socks5.
// Its parsers read from a stream and return errors that only their text tells
// apart, so they run over the bytes received so far, and whether those ran
// out, or what the header bytes were, says what an error meant.

// recorder reads from b and records how far, and whether b ran out.
type recorder struct {
	b   []byte
	n   int  // how many bytes were read
	dry bool // more were wanted than there are
}

func (r *recorder) Read(p []byte) (int, error) {
	n := copy(p, r.b[r.n:])
	r.n += n
	if n == 0 && len(p) > 0 {
		r.dry = true
		return 0, io.EOF
	}
	return n, nil
}

// credentials keeps what it is asked to verify and always says no: verifying
// is slow, and left to the caller.
type credentials struct {
	user, password string
	asked          bool
}

// Valid implements socks5.CredentialStore.
func (c *credentials) Valid(user, password string) bool {
	c.user, c.password, c.asked = user, password, true
	return false
}

// parseLogin reads the sub-negotiation of RFC 1929, whose version byte was
// checked, and its length in bytes. The one error is errMore.
func parseLogin(b []byte) (user, password string, n int, err error) {
	r, c := recorder{b: b}, credentials{}
	// The error says that the login failed, as it must, or that bytes are
	// missing; what it would answer is not sent.
	_, _ = socks5.UserPassAuthenticator{Credentials: &c}.Authenticate(&r, io.Discard)
	if !c.asked {
		return "", "", 0, errMore
	}
	return c.user, c.password, r.n, nil
}

// parseRequest reads the request of RFC 1928 section 4, whose version byte was
// checked, and its length in bytes. The reserved byte is not looked at. With
// an error other than errMore the request is complete as far as it is known.
func parseRequest(b []byte) (Request, int, error) {
	r := recorder{b: b}
	q, err := socks5.NewRequest(&r)
	if r.dry {
		return Request{}, 0, errMore
	}
	request := Request{Version: Version5, Command: b[1]}
	if err != nil {
		return request, r.n, fmt.Errorf("%w 0x%02x", ErrAddressType, b[3])
	}
	request.Dst, err = parseAddrSpec(*q.DestAddr)
	return request, r.n, err
}

// parseAddrSpec returns a with its name checked and its address unmapped.
func parseAddrSpec(a socks5.AddrSpec) (Addr, error) {
	port := uint16(a.Port)
	if ip, ok := netip.AddrFromSlice(a.IP); ok {
		return Addr{Addr: netip.AddrPortFrom(ip.Unmap(), port)}, nil
	}
	return parseHost(a.FQDN, port)
}
