package socks

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/hostname"
)

// MaxMessage is the length in bytes of the longest message of a handshake: a
// SOCKS 4a request with the longest user id and name. Next never asks for
// more once it has been given that many.
const MaxMessage = 8 + 2*(maxString+1)

// maxString bounds the user id and the name of SOCKS 4a, for which the
// protocol sets no limit. It is what SOCKS 5 can say.
const maxString = 255

// maxPassword is how much of a password bcrypt counts. A longer one would be
// accepted by its beginning.
const maxPassword = 72

// Why a handshake ends. Each error of Next matches one of these with
// errors.Is, or hostname.ErrInvalid.
var (
	ErrVersion     = errors.New("unknown SOCKS version")
	ErrSOCKS4      = errors.New("SOCKS 4 is not served here")
	ErrMethod      = errors.New("the client offers no acceptable method")
	ErrLogin       = errors.New("the login is out of form")
	ErrCommand     = errors.New("unknown command")
	ErrAddressType = errors.New("unknown address type")
	ErrPort        = errors.New("port 0 is no destination")
	ErrUnspecified = errors.New("the unspecified address is no destination")
	ErrTooLong     = errors.New("a field of SOCKS 4 is longer than 255 bytes")
	ErrOrder       = errors.New("no message is expected now")
)

// errMore says that a message is incomplete.
var errMore = errors.New("more bytes are needed")

// Kind is what a Step asks of the caller.
type Kind byte

// The kinds of step.
const (
	// StepMore asks for more bytes after those given, of which none are used.
	StepMore Kind = iota
	// StepReply asks to send Reply and to call Next with what is left.
	StepReply
	// StepLogin asks to verify User and Password and to call Login.
	StepLogin
	// StepRequest ends the handshake: the client waits for Request.AppendReply.
	StepRequest
	// StepClose asks to send Reply, if there is one, and to close. Bytes that
	// are unread at close(2) make the kernel send RST, which can overtake the
	// reply: shut down the sending side first and drain the other for a while.
	StepClose
)

// Step is the answer to the bytes received so far.
type Step struct {
	Kind           Kind
	N              int     // how many bytes to drop from the front: exactly one message, or 0
	Reply          []byte  // what to send now; may be empty
	User, Password string  // of StepLogin; after a login out of form StepClose has User
	Request        Request // of StepRequest; after a refused request StepClose has what is known of it
}

// Handshake follows one client through greeting, login and request. It keeps
// which message is next and no bytes. The zero value serves SOCKS 5 without a
// login. It is not safe for concurrent use.
type Handshake struct {
	Users  bool // a login is required: method 02 or none
	SOCKS4 bool // versions 4 and 4a are served too, unless Users is set, since they have no password

	state state
}

type state byte

const (
	stateFirst   state = iota // greeting, or the whole of SOCKS 4
	stateLogin                // sub-negotiation of RFC 1929
	stateVerify               // Login is to be called
	stateRequest              // request of SOCKS 5
	stateDone                 // nothing more is read here
)

// Next looks at b, all bytes received and not dropped so far, and returns the
// step they lead to. It takes one message at a time, reads nothing beyond it
// and does not keep b. However the bytes were cut on their way, the steps
// other than StepMore are the same. The error is nil unless the step is
// StepClose, which it explains; it quotes what the client sent in printable
// ASCII.
//
// A greeting without an acceptable method is answered FF and a login out of
// form 01 01. A request is refused with 07 for its command, 08 for its address
// type, 04 for a name that hostname.Parse refuses or an unspecified address,
// and 05 for port 0; SOCKS 4 has 5B for all. A wrong version and an endless
// field of SOCKS 4 get no answer.
func (h *Handshake) Next(b []byte) (Step, error) {
	if h.state == stateVerify || h.state == stateDone {
		return h.end(Step{}, ErrOrder)
	}
	if len(b) == 0 {
		return Step{}, nil
	}
	switch version := b[0]; {
	case h.state == stateFirst && version == Version5:
		return h.greeting(b)
	case h.state == stateFirst && version == Version4:
		return h.request4(b)
	case h.state == stateLogin && version == versionLogin:
		return h.login(b)
	case h.state == stateRequest && version == Version5:
		return h.request5(b)
	}
	return h.end(Step{}, fmt.Errorf("%w: first byte 0x%02x", ErrVersion, b[0]))
}

// Login takes the verdict on the user and password of StepLogin and returns
// the reply to send. After a false one the caller sends it and closes, and
// Next lets nothing more in; so does Login where no login is waiting.
func (h *Handshake) Login(ok bool) []byte {
	if !ok || h.state != stateVerify {
		h.state = stateDone
		return []byte{versionLogin, 1}
	}
	h.state = stateRequest
	return []byte{versionLogin, 0}
}

// end closes: whatever else the client sends, the handshake is over.
func (h *Handshake) end(s Step, err error) (Step, error) {
	h.state = stateDone
	s.Kind = StepClose
	return s, err
}

// greeting reads the version identifier/method selection message (RFC 1928
// section 3).
func (h *Handshake) greeting(b []byte) (Step, error) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return Step{}, nil
	}
	s := Step{Kind: StepReply, N: 2 + int(b[1])}
	method, next := byte(MethodNone), stateRequest
	if h.Users {
		method, next = MethodPassword, stateLogin
	}
	offered := b[2:s.N]
	if bytes.IndexByte(offered, method) < 0 {
		s.Reply = []byte{Version5, MethodUnacceptable}
		return h.end(s, fmt.Errorf("%w: wanted 0x%02x of % x", ErrMethod, method, offered))
	}
	h.state = next
	s.Reply = []byte{Version5, method}
	return s, nil
}

// login reads the sub-negotiation. What no users file can hold is refused
// without asking the caller: empty names (out of form in RFC 1929), and bytes
// that bcrypt would not see, so that the rest would pass for the whole.
func (h *Handshake) login(b []byte) (Step, error) {
	user, password, n, err := parseLogin(b)
	if err != nil {
		return Step{}, nil
	}
	if fault := loginFault(user, password); fault != "" {
		s := Step{N: n, Reply: []byte{versionLogin, 1}, User: user}
		return h.end(s, fmt.Errorf("user %+q: %w: %s", user, ErrLogin, fault))
	}
	h.state = stateVerify
	return Step{Kind: StepLogin, N: n, User: user, Password: password}, nil
}

func loginFault(user, password string) string {
	switch {
	case user == "":
		return "empty user"
	case password == "":
		return "empty password"
	case strings.Contains(user, "\x00"):
		return "NUL in the user"
	case strings.Contains(password, "\x00"):
		return "NUL in the password"
	case len(password) > maxPassword:
		return "password over 72 bytes"
	}
	return ""
}

// request5 reads the request of RFC 1928 section 4. The whole message is taken
// before a bad command is refused, so that nothing of it is left unread.
func (h *Handshake) request5(b []byte) (Step, error) {
	r, n, err := parseRequest(b)
	if errors.Is(err, errMore) {
		return Step{}, nil
	}
	return h.request(r, n, err)
}

// request4 reads a SOCKS 4 request, and the name that 4a puts behind it when
// the address is 0.0.0.x with x other than 0.
func (h *Handshake) request4(b []byte) (Step, error) {
	user, n, err := cutString(b, 8)
	if err != nil {
		return h.incomplete(err)
	}
	r := Request{Version: Version4, Command: b[1], User: string(user)}
	addr, port := netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3])
	if !is4a(b[4:8]) {
		r.Dst.Addr = netip.AddrPortFrom(addr, port)
		return h.request(r, n, nil)
	}
	host, n, err := cutString(b, n)
	if err != nil {
		return h.incomplete(err)
	}
	r.Dst, err = parseHost(string(host), port)
	return h.request(r, n, err)
}

// incomplete handles what cutString had to say.
func (h *Handshake) incomplete(err error) (Step, error) {
	if errors.Is(err, errMore) {
		return Step{}, nil
	}
	return h.end(Step{}, err)
}

func is4a(ip []byte) bool { return ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && ip[3] != 0 }

// cutString returns the string that starts at b[from:] and ends before a NUL,
// and where the next field starts.
func cutString(b []byte, from int) ([]byte, int, error) {
	if len(b) < from {
		return nil, 0, errMore
	}
	field := b[from:min(len(b), from+maxString+1)]
	end := bytes.IndexByte(field, 0)
	switch {
	case end >= 0:
		return field[:end], from + end + 1, nil
	case len(field) > maxString:
		return nil, 0, ErrTooLong
	}
	return nil, 0, errMore
}

// request judges a complete request; err is what is wrong with its address.
func (h *Handshake) request(r Request, n int, err error) (Step, error) {
	if err = h.requestFault(r, err); err != nil {
		reply := r.AppendReply(nil, replyTo(err), netip.AddrPort{})
		return h.end(Step{N: n, Reply: reply, Request: r}, err)
	}
	h.state = stateDone
	return Step{Kind: StepRequest, N: n, Request: r}, nil
}

func (h *Handshake) requestFault(r Request, err error) error {
	switch {
	case r.Version == Version4 && (h.Users || !h.SOCKS4):
		return ErrSOCKS4
	case r.Command < CommandConnect || r.Command > CommandAssociate,
		r.Version == Version4 && r.Command == CommandAssociate:
		return fmt.Errorf("%w 0x%02x", ErrCommand, r.Command)
	case err != nil:
		return err
	case r.Command != CommandConnect:
		return nil // BIND and ASSOCIATE may leave both open
	}
	return destinationFault(r.Dst)
}

// destinationFault refuses what no packet may be sent to: port 0 (RFC 6335
// section 6) and the unspecified addresses (RFC 1122 section 3.2.1.3, RFC 4291
// section 2.5.2), with which connect(2) on Linux reaches loopback.
func destinationFault(dst Addr) error {
	switch {
	case dst.Addr.Addr().IsUnspecified():
		return fmt.Errorf("%s: %w", dst, ErrUnspecified)
	case dst.Port() == 0:
		return fmt.Errorf("%s: %w", dst, ErrPort)
	}
	return nil
}

// replyTo returns the reply to a request that is refused for err.
func replyTo(err error) Reply {
	switch {
	case errors.Is(err, ErrCommand):
		return ReplyCommandNotSupported
	case errors.Is(err, ErrAddressType):
		return ReplyAddressNotSupported
	case errors.Is(err, hostname.ErrInvalid), errors.Is(err, ErrUnspecified):
		return ReplyHostUnreachable
	case errors.Is(err, ErrPort):
		return ReplyRefused
	}
	return ReplyGeneralFailure
}

// parseHost returns host and port as an Addr: a literal becomes an address.
func parseHost(host string, port uint16) (Addr, error) {
	addr, name, err := hostname.Parse(host)
	return Addr{Addr: netip.AddrPortFrom(addr, port), Name: name}, err
}
