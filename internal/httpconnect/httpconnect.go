// Package httpconnect is the wire format of HTTP CONNECT (RFC 9110 section
// 9.3.6, RFC 9112) from the proxy's side: the one request that opens a tunnel,
// and the responses to it.
//
// It is pure: Parse looks at the bytes received so far, AppendResponse writes
// what to send. Nothing here opens, dials, waits or logs.
package httpconnect

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Limits of a request. A request beyond them is answered with status 431.
const (
	MaxHeader = 16 << 10 // bytes up to and including the empty line
	MaxFields = 100      // header fields
)

// ErrMore says that the header is not complete yet.
var ErrMore = errors.New("httpconnect: more bytes are needed")

// Error is a request that is refused, and the status to refuse it with.
type Error struct {
	Status int
	Reason string // printable ASCII; never has credentials
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("httpconnect: %d: %s", e.Status, e.Reason) }

// Request is a CONNECT request. Its destination is an address or a name.
type Request struct {
	// Addr is the destination, never port 0 and never an unspecified address.
	// With a Name its address is the zero netip.Addr and only the port counts.
	// It is never IPv4-mapped and has no zone.
	Addr netip.AddrPort
	Name string // as hostname.Parse returns it

	// HasLogin says that Proxy-Authorization holds a Basic login to verify:
	// User and Password are not empty, have no control characters, and the
	// password has no more than the 72 bytes that bcrypt counts. Without it
	// the answer is 407 where a login is required, and User is at most worth a
	// log line: the name in a login that was out of form.
	HasLogin       bool
	User, Password string
}

// Parse reads the request at the start of b, all bytes received so far, and
// returns it with the length of its header in bytes. What follows the header
// belongs to the tunnel, whatever Content-Length and Transfer-Encoding say: a
// CONNECT request has no content.
//
// The error is ErrMore while the header is incomplete, which it never is after
// MaxHeader bytes, or an *Error. Bytes that break the framing of HTTP/1 are
// refused as soon as they are seen, and the returned length is 0. A method
// other than CONNECT (405), another version than HTTP/1.0 and 1.1 (505) and a
// bad authority (400) are refused once the header is complete, with its
// length, so that nothing of it is left unread. The first fault in the request
// counts, however its bytes were cut on their way.
//
// Parse is strict where readers of HTTP disagree: lines end with CR LF; no
// folded lines, no empty line before the request, no space around a field's
// name; Host and Proxy-Authorization stand at most once. HTTP/1.1 without Host
// is let in against RFC 9112 section 3.2, since many small clients send that
// and nothing here looks at Host. Parse does not keep b.
func Parse(b []byte) (Request, int, error) {
	var p parser
	err := p.header(b[:min(len(b), MaxHeader)])
	switch {
	case errors.Is(err, ErrMore) && len(b) < MaxHeader:
		return Request{}, 0, ErrMore
	case p.fault != nil && err == nil:
		return Request{}, p.n, p.fault
	case p.fault != nil:
		return Request{}, 0, p.fault
	case errors.Is(err, ErrMore):
		return Request{}, 0, &Error{431, "the header is longer than 16 KiB"}
	case err != nil:
		return Request{}, 0, err
	}
	return p.request, p.n, nil
}

// parser goes through a header line by line.
type parser struct {
	request     Request
	n           int    // bytes of the lines read
	fields      int    // header fields read
	host, login bool   // the field was there
	fault       *Error // of the request line; reported at the end of the header
}

// header reads lines up to the empty one.
func (p *parser) header(b []byte) error {
	for first := true; ; first = false {
		line, err := cutLine(b[p.n:])
		if err != nil {
			return err
		}
		p.n += len(line) + len("\r\n")
		switch {
		case first:
			err = p.requestLine(line)
		case len(line) == 0:
			return nil
		default:
			err = p.field(line)
		}
		if err != nil {
			return err
		}
	}
}

// cutLine returns the first line of b without its CR LF. Control characters
// are refused in a line that is still incomplete too.
func cutLine(b []byte) ([]byte, error) {
	end := indexControl(b)
	switch {
	case end < 0:
		return nil, ErrMore
	case b[end] == '\n':
		return nil, bad("a line ends without CR")
	case b[end] != '\r':
		return nil, bad("control character 0x%02x", b[end])
	case end+1 == len(b):
		return nil, ErrMore
	case b[end+1] != '\n':
		return nil, bad("a CR without LF")
	}
	return b[:end], nil
}

// indexControl returns where the first control character but HTAB stands.
func indexControl(b []byte) int {
	for i, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}

func bad(format string, args ...any) *Error {
	return &Error{400, fmt.Sprintf(format, args...)}
}

// isToken tells whether b is a token of RFC 9110 section 5.6.2.
func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
