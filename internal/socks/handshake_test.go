package socks_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/hostname"
	"github.com/srcproxy/srcproxy/internal/socks"
)

const (
	hello   = "\x05\x01\x00"
	helloOK = "\x05\x00"
	toE     = "\x05\x01\x00\x01\xcb\x00\x71\x05\x00\x50" // CONNECT 203.0.113.5:80
	no      = "\x00\x01\x00\x00\x00\x00\x00\x00"         // what follows REP in a refusal

	helloUsers   = "\x05\x01\x02"
	helloUsersOK = "\x05\x02"
	loginNo      = "\x01\x01"
)

var (
	open  = socks.Handshake{SOCKS4: true}
	users = socks.Handshake{SOCKS4: true, Users: true}
)

func addr(s string) socks.Addr { return socks.Addr{Addr: netip.MustParseAddrPort(s)} }

func name(s string, port uint16) socks.Addr {
	return socks.Addr{Name: s, Addr: netip.AddrPortFrom(netip.Addr{}, port)}
}

func field(s string) string { return string([]byte{byte(len(s))}) + s }

// login is a sub-negotiation of RFC 1929.
func login(user, password string) string { return "\x01" + field(user) + field(password) }

// connect is a greeting and a CONNECT to a name, port 80.
func connect(name string) string { return hello + "\x05\x01\x00\x03" + field(name) + "\x00\x50" }

func asks(user, password string) string { return user + ":" + password + "\n" }

func long(n int) string { return strings.Repeat("a", n) }

// row is one conversation; n is the number of its byte case in the list of
// protocol faults that the project keeps, 0 for none.
type row struct {
	n     int
	name  string
	h     socks.Handshake
	in    string
	sent  string
	end   socks.Kind
	rest  string // what of in is not taken, for a request
	dst   socks.Addr
	asked string
	err   error
}

func runRows(t *testing.T, rows []row) {
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			got, err := driveCut(t, tt.h, []byte(tt.in))
			if got.Sent != tt.sent || got.End != tt.end || got.Asked != tt.asked {
				t.Errorf("case %d: got % x, end %d, asked %q\nwant % x, end %d, asked %q",
					tt.n, got.Sent, got.End, got.Asked, tt.sent, tt.end, tt.asked)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("case %d: got error %v, want %v", tt.n, err, tt.err)
			}
			if tt.end != socks.StepRequest {
				return
			}
			if got.Request.Dst != tt.dst {
				t.Errorf("case %d: got destination %v, want %v", tt.n, got.Request.Dst, tt.dst)
			}
			if rest := tt.in[got.Read:]; rest != tt.rest {
				t.Errorf("case %d: left %q, want %q", tt.n, rest, tt.rest)
			}
		})
	}
}

func TestGreeting(t *testing.T) {
	var every strings.Builder
	every.WriteString("\x05\xff")
	for i := range 255 {
		every.WriteString(string([]byte{byte(i)}))
	}
	runRows(t, []row{
		{n: 1, name: "no login", h: open, in: hello, sent: helloOK, end: socks.StepMore},
		{n: 2, name: "password", h: users, in: "\x05\x02\x00\x02", sent: helloUsersOK, end: socks.StepMore},
		{n: 3, name: "no login where users are", h: users, in: hello + toE, sent: "\x05\xff", end: socks.StepClose, err: socks.ErrMethod},
		{n: 4, name: "no methods", h: open, in: "\x05\x00", sent: "\x05\xff", end: socks.StepClose, err: socks.ErrMethod},
		{n: 4, name: "no methods where users are", h: users, in: "\x05\x00", sent: "\x05\xff", end: socks.StepClose, err: socks.ErrMethod},
		{n: 5, name: "method FF", h: open, in: "\x05\x01\xff", sent: "\x05\xff", end: socks.StepClose, err: socks.ErrMethod},
		{n: 6, name: "GSSAPI", h: open, in: "\x05\x01\x01", sent: "\x05\xff", end: socks.StepClose, err: socks.ErrMethod},
		{name: "password where no users are", h: open, in: "\x05\x01\x02", sent: "\x05\xff", end: socks.StepClose, err: socks.ErrMethod},
		{n: 7, name: "every method", h: open, in: every.String(), sent: helloOK, end: socks.StepMore},
		{n: 7, name: "every method, users", h: users, in: every.String(), sent: helloUsersOK, end: socks.StepMore},
		{n: 9, name: "version 0", h: open, in: "\x00\x01\x00", end: socks.StepClose, err: socks.ErrVersion},
		{n: 9, name: "version 6", h: open, in: "\x06\x01\x00", end: socks.StepClose, err: socks.ErrVersion},
		{n: 9, name: "HTTP", h: open, in: "GET /", end: socks.StepClose, err: socks.ErrVersion},
		{n: 9, name: "TLS", h: open, in: "\x16\x03\x01", end: socks.StepClose, err: socks.ErrVersion},
		{n: 10, name: "too few methods", h: open, in: "\x05\x02\x00", end: socks.StepMore},
		{n: 10, name: "version alone", h: open, in: "\x05", end: socks.StepMore},
		{name: "zero value", h: socks.Handshake{}, in: hello, sent: helloOK, end: socks.StepMore},
	})
}

func TestLogin(t *testing.T) {
	good := helloUsers + login(goodUser, goodPassword)
	ok := helloUsersOK + "\x01\x00"
	failed := helloUsersOK + loginNo
	asked := asks(goodUser, goodPassword)
	runRows(t, []row{
		{n: 11, name: "good", h: users, in: good, sent: ok, end: socks.StepMore, asked: asked},
		{n: 12, name: "good and a request", h: users, in: good + toE + "ping", sent: ok, end: socks.StepRequest, asked: asked, dst: addr("203.0.113.5:80"), rest: "ping"},
		{n: 13, name: "wrong and a request", h: users, in: helloUsers + login(goodUser, "x") + toE, sent: failed, end: socks.StepClose, asked: asks(goodUser, "x")},
		{n: 14, name: "wrong, then right", h: users, in: helloUsers + login(goodUser, "x") + login(goodUser, goodPassword), sent: failed, end: socks.StepClose, asked: asks(goodUser, "x")},
		{n: 15, name: "request instead", h: users, in: helloUsers + toE, sent: helloUsersOK, end: socks.StepClose, err: socks.ErrVersion},
		{n: 16, name: "version 5", h: users, in: helloUsers + "\x05" + login(goodUser, goodPassword)[1:], sent: helloUsersOK, end: socks.StepClose, err: socks.ErrVersion},
		{n: 17, name: "both empty", h: users, in: helloUsers + login("", ""), sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{n: 17, name: "empty user", h: users, in: helloUsers + login("", "x"), sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{n: 17, name: "empty password", h: users, in: helloUsers + login(goodUser, "") + toE, sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{n: 18, name: "NUL after the password", h: users, in: helloUsers + login(goodUser, goodPassword+"\x00"), sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{n: 18, name: "NUL x after the user", h: users, in: helloUsers + login(goodUser+"\x00x", goodPassword), sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{n: 19, name: "password less a byte", h: users, in: helloUsers + login(goodUser, goodPassword[1:]), sent: failed, end: socks.StepClose, asked: asks(goodUser, goodPassword[1:])},
		{n: 20, name: "longest", h: users, in: helloUsers + login(long(255), long(255)), sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{name: "longest that bcrypt counts", h: users, in: helloUsers + login(long(255), long(72)), sent: failed, end: socks.StepClose, asked: asks(long(255), long(72))},
		{name: "a byte more than bcrypt counts", h: users, in: helloUsers + login(goodUser, long(73)), sent: failed, end: socks.StepClose, err: socks.ErrLogin},
		{name: "cut", h: users, in: helloUsers + login(goodUser, goodPassword)[:10], sent: helloUsersOK, end: socks.StepMore},
	})
}

func TestConnect(t *testing.T) {
	mapped := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x05"
	v6 := "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	refusal := func(rep socks.Reply) string { return helloOK + "\x05" + string([]byte{byte(rep)}) + no }
	refused := func(n int, name, in string, rep socks.Reply, err error) row {
		return row{n: n, name: name, h: open, in: in, sent: refusal(rep), end: socks.StepClose, err: err}
	}
	served := func(n int, name, in, rest string, dst socks.Addr) row {
		return row{n: n, name: name, h: open, in: in, sent: helloOK, end: socks.StepRequest, dst: dst, rest: rest}
	}
	runRows(t, []row{
		served(37, "IPv4 and payload", hello+toE+"ping", "ping", addr("203.0.113.5:80")),
		served(39, "payload like a request", hello+toE+hello+toE, hello+toE, addr("203.0.113.5:80")),
		served(0, "IPv6", hello+"\x05\x01\x00\x04"+v6+"\x01\xbb", "", addr("[2001:db8::1]:443")),
		served(32, "IPv4-mapped is unmapped", hello+"\x05\x01\x00\x04"+mapped+"\x00\x50", "", addr("203.0.113.5:80")),
		served(33, "NAT64 stays as it is", connect("64:ff9b::203.0.113.5"), "", addr("[64:ff9b::cb00:7105]:80")),
		served(0, "name", connect("Server.Example."), "", name("server.example", 80)),
		served(34, "name that is an address", connect("203.0.113.5"), "", addr("203.0.113.5:80")),
		served(34, "name that is an address with a dot", connect("203.0.113.5.")+"ping", "ping", addr("203.0.113.5:80")),
		served(36, "name that is a mapped address", connect("::ffff:203.0.113.5"), "", addr("203.0.113.5:80")),
		served(0, "reserved byte", hello+"\x05\x01\x07"+toE[3:], "", addr("203.0.113.5:80")),
		{n: 43, name: "BIND", h: open, in: hello + "\x05\x02\x00\x01\xcb\x00\x71\x05\x00\x00", sent: helloOK, end: socks.StepRequest, dst: addr("203.0.113.5:0")},
		{n: 46, name: "ASSOCIATE", h: open, in: hello + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", sent: helloOK, end: socks.StepRequest, dst: addr("0.0.0.0:0")},

		refused(22, "empty name", connect(""), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(23, "name of 255", connect(long(255)), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(24, "NUL in a name", connect("\x00.example"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(24, "NUL after a name", connect("server.example\x00.test"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(25, "CR LF", connect("a\r\nb"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(25, "ESC", connect("\x1b[2J"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(25, "%n", connect("%n"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(25, "<img>", connect("<img>"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(26, "command 00", hello+"\x05\x00"+toE[2:], socks.ReplyCommandNotSupported, socks.ErrCommand),
		refused(26, "command 04", hello+"\x05\x04"+toE[2:], socks.ReplyCommandNotSupported, socks.ErrCommand),
		refused(26, "command FF, bad name", hello+"\x05\xff\x00\x03\x00\x00\x50", socks.ReplyCommandNotSupported, socks.ErrCommand),
		refused(26, "command FF, address type FF", hello+"\x05\xff\x00\xff", socks.ReplyCommandNotSupported, socks.ErrCommand),
		refused(27, "address type 00", hello+"\x05\x01\x00\x00"+toE[4:], socks.ReplyAddressNotSupported, socks.ErrAddressType),
		refused(27, "address type 02", hello+"\x05\x01\x00\x02"+toE[4:], socks.ReplyAddressNotSupported, socks.ErrAddressType),
		refused(27, "address type FF", hello+"\x05\x01\x00\xff"+toE[4:], socks.ReplyAddressNotSupported, socks.ErrAddressType),
		{n: 28, name: "version 4", h: open, in: hello + "\x04" + toE[1:], sent: helloOK, end: socks.StepClose, err: socks.ErrVersion},
		{n: 28, name: "version 0", h: open, in: hello + "\x00" + toE[1:], sent: helloOK, end: socks.StepClose, err: socks.ErrVersion},
		{n: 29, name: "name missing", h: open, in: hello + "\x05\x01\x00\x03\x09", sent: helloOK, end: socks.StepMore},
		{n: 29, name: "port missing", h: open, in: (hello + toE)[:11], sent: helloOK, end: socks.StepMore},
		refused(31, "0.0.0.0", hello+"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x50", socks.ReplyHostUnreachable, socks.ErrUnspecified),
		refused(31, "::", connect("::"), socks.ReplyHostUnreachable, socks.ErrUnspecified),
		refused(31, "::ffff:0.0.0.0", connect("::ffff:0.0.0.0"), socks.ReplyHostUnreachable, socks.ErrUnspecified),
		refused(35, "hexadecimal", connect("0x7f000009"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(35, "one number", connect("2130706441"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(35, "octal", connect("0177.0.0.011"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(35, "two parts", connect("127.9"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(36, "brackets", connect("[::1]"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(36, "zone", connect("::1%lo"), socks.ReplyHostUnreachable, hostname.ErrInvalid),
		refused(0, "port 0", hello+toE[:8]+"\x00\x00", socks.ReplyRefused, socks.ErrPort),
		refused(0, "BIND with an empty name", hello+"\x05\x02\x00\x03\x00\x00\x50", socks.ReplyHostUnreachable, hostname.ErrInvalid),
	})
}

func TestSOCKS4(t *testing.T) {
	const (
		e        = "\x04\x01\x00\x50\xcb\x00\x71\x05"
		a        = "\x04\x01\x00\x50\x00\x00\x00\x01"
		rejected = "\x00\x5b\x00\x00\x00\x00\x00\x00"
	)
	served := func(n int, name, in, rest string, dst socks.Addr) row {
		return row{n: n, name: name, h: open, in: in, end: socks.StepRequest, dst: dst, rest: rest}
	}
	refused := func(n int, name string, h socks.Handshake, in string, err error) row {
		return row{n: n, name: name, h: h, in: in, sent: rejected, end: socks.StepClose, err: err}
	}
	runRows(t, []row{
		served(57, "CONNECT", e+"\x00ping", "ping", addr("203.0.113.5:80")),
		served(57, "user", e+"alice\x00", "", addr("203.0.113.5:80")),
		served(57, "longest user", e+long(255)+"\x00", "", addr("203.0.113.5:80")),
		served(58, "4a", a+"\x00Server.Example\x00ping", "ping", name("server.example", 80)),
		served(58, "4a with an address", a+"\x00203.0.113.5.\x00", "", addr("203.0.113.5:80")),
		served(58, "4a with IPv6", a+"\x00::1\x00", "", addr("[::1]:80")),
		served(0, "BIND", "\x04\x02\x00\x00\xcb\x00\x71\x05\x00", "", addr("203.0.113.5:0")),
		{n: 59, name: "user without end", h: open, in: e + long(1000), end: socks.StepClose, err: socks.ErrTooLong},
		{n: 59, name: "user of 256", h: open, in: e + long(256) + "\x00", end: socks.StepClose, err: socks.ErrTooLong},
		{n: 59, name: "name without end", h: open, in: a + "\x00" + long(1000), end: socks.StepClose, err: socks.ErrTooLong},
		{n: 59, name: "both longest", h: open, in: a + long(255) + "\x00" + long(256), end: socks.StepClose, err: socks.ErrTooLong},
		refused(59, "longest name", open, a+"\x00"+long(255)+"\x00", hostname.ErrInvalid),
		refused(60, "CONNECT where users are", users, e+"alice\x00", socks.ErrSOCKS4),
		refused(60, "4a where users are", users, a+"\x00server.example\x00", socks.ErrSOCKS4),
		refused(60, "BIND where users are", users, "\x04\x02\x00\x00\xcb\x00\x71\x05\x00", socks.ErrSOCKS4),
		refused(0, "not served", socks.Handshake{}, e+"\x00", socks.ErrSOCKS4),
		refused(0, "ASSOCIATE", open, "\x04\x03"+e[2:]+"\x00", socks.ErrCommand),
		refused(0, "command 00", open, "\x04\x00"+e[2:]+"\x00", socks.ErrCommand),
		refused(22, "4a, empty name", open, a+"\x00\x00", hostname.ErrInvalid),
		refused(25, "4a, ESC", open, a+"\x00\x1b\x00", hostname.ErrInvalid),
		refused(31, "0.0.0.0", open, "\x04\x01\x00\x50\x00\x00\x00\x00\x00", socks.ErrUnspecified),
		refused(35, "4a, two parts", open, a+"\x00127.9\x00", hostname.ErrInvalid),
		refused(0, "port 0", open, "\x04\x01\x00\x00\xcb\x00\x71\x05\x00", socks.ErrPort),
		{name: "cut", h: open, in: e + "alic", end: socks.StepMore},
	})
}

func TestSOCKS4User(t *testing.T) {
	got, err := drive(t, open, []byte("\x04\x01\x00\x50\xcb\x00\x71\x05alice\x00"))
	want := socks.Request{Version: socks.Version4, Command: socks.CommandConnect, Dst: addr("203.0.113.5:80"), User: "alice"}
	if got.Request != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got.Request, err, want)
	}
}

// TestOrder breaks the order of calls: nothing may be let in by it.
func TestOrder(t *testing.T) {
	h := users
	if got := string(h.Login(true)); got != loginNo {
		t.Errorf("Login before StepLogin replies % x, want % x", got, loginNo)
	}
	if s, err := h.Next([]byte(hello)); s.Kind != socks.StepClose || !errors.Is(err, socks.ErrOrder) {
		t.Errorf("Next after it = %+v, %v, want StepClose", s, err)
	}

	h = users
	for _, in := range []string{helloUsers, login(goodUser, goodPassword)} {
		if _, err := h.Next([]byte(in)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := h.Next([]byte(toE)); s.Kind != socks.StepClose || !errors.Is(err, socks.ErrOrder) {
		t.Errorf("Next before Login = %+v, %v, want StepClose", s, err)
	}
	if got := string(h.Login(true)); got != loginNo {
		t.Errorf("Login after it replies % x, want % x", got, loginNo)
	}
}
