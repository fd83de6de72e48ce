package socks_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/internal/socks"
)

func TestAppendReply(t *testing.T) {
	r4 := socks.Request{Version: socks.Version4}
	r5 := socks.Request{Version: socks.Version5}
	tests := []struct {
		name  string
		r     socks.Request
		rep   socks.Reply
		bound string
		want  string
	}{
		{"IPv4", r5, socks.ReplySucceeded, "192.0.2.1:1080", "\x05\x00\x00\x01\xc0\x00\x02\x01\x04\x38"},
		{"IPv4-mapped", r5, socks.ReplySucceeded, "[::ffff:192.0.2.1]:1080", "\x05\x00\x00\x01\xc0\x00\x02\x01\x04\x38"},
		{"IPv6", r5, socks.ReplySucceeded, "[2001:db8::1]:1080", "\x05\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x04\x38"},
		{"IPv6 with a zone", r5, socks.ReplySucceeded, "[fe80::1%eth0]:1", "\x05\x00\x00\x04\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"},
		{"refusal", r5, socks.ReplyTTLExpired, "", "\x05\x06\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"zero request", socks.Request{}, socks.ReplyNotAllowed, "", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"4", r4, socks.ReplySucceeded, "192.0.2.1:1080", "\x00\x5a\x04\x38\xc0\x00\x02\x01"},
		{"4, IPv4-mapped", r4, socks.ReplySucceeded, "[::ffff:192.0.2.1]:1080", "\x00\x5a\x04\x38\xc0\x00\x02\x01"},
		{"4, IPv6", r4, socks.ReplySucceeded, "[2001:db8::1]:1080", "\x00\x5a\x04\x38\x00\x00\x00\x00"},
		{"4, refusal", r4, socks.ReplyHostUnreachable, "", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var bound netip.AddrPort
			if tt.bound != "" {
				bound = netip.MustParseAddrPort(tt.bound)
			}
			if got := string(tt.r.AppendReply([]byte("x"), tt.rep, bound)); got != "x"+tt.want {
				t.Errorf("got % x, want % x", got[1:], tt.want)
			}
		})
	}
}

func TestReplyString(t *testing.T) {
	seen := map[string]bool{}
	for rep := socks.ReplySucceeded; rep <= socks.ReplyAddressNotSupported+1; rep++ {
		s := rep.String()
		if s == "" || seen[s] {
			t.Errorf("%d has the words %q", byte(rep), s)
		}
		seen[s] = true
	}
	if got, want := socks.Reply(0x2a).String(), "reply 0x2a"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAddrString(t *testing.T) {
	for want, a := range map[string]socks.Addr{
		"server.example:80":  name("server.example", 80),
		"192.0.2.1:80":       addr("192.0.2.1:80"),
		"[2001:db8::1]:1080": addr("[2001:db8::1]:1080"),
	} {
		if got := a.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestAllocs bounds a whole handshake: most of it is armon's parser.
func TestAllocs(t *testing.T) {
	tests := []struct {
		name string
		h    socks.Handshake
		in   string
		want float64
	}{
		{"IPv4", open, hello + toE, 8},
		{"name", open, connect("server.example"), 9},
		{"login and IPv4", users, helloUsers + login(goodUser, goodPassword) + toE, 20},
		{"SOCKS4", open, "\x04\x01\x00\x50\xcb\x00\x71\x05\x00", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := []byte(tt.in)
			got := testing.AllocsPerRun(100, func() { handshake(t, tt.h, in) })
			if got > tt.want {
				t.Errorf("got %v allocations, want at most %v", got, tt.want)
			}
		})
	}
	t.Run("reply", func(t *testing.T) {
		r := socks.Request{Version: socks.Version5}
		buf, bound := make([]byte, 0, 64), netip.MustParseAddrPort("[2001:db8::1]:1080")
		if got := testing.AllocsPerRun(100, func() { r.AppendReply(buf, socks.ReplySucceeded, bound) }); got != 0 {
			t.Errorf("got %v allocations, want 0", got)
		}
	})
}

// handshake drives h over b to the request and does nothing else.
func handshake(t testing.TB, h socks.Handshake, b []byte) socks.Request {
	for {
		s, err := h.Next(b)
		if err != nil {
			t.Fatal(err)
		}
		b = b[s.N:]
		switch s.Kind {
		case socks.StepMore:
			t.Fatal("StepMore")
		case socks.StepLogin:
			h.Login(true)
		case socks.StepRequest:
			return s.Request
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	for name, in := range map[string]string{"IPv4": hello + toE, "name": connect("server.example"), "SOCKS4": "\x04\x01\x00\x50\xcb\x00\x71\x05\x00"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				handshake(b, open, []byte(in))
			}
		})
	}
}

func TestDatagram(t *testing.T) {
	const head = "\x00\x00\x00"
	tests := []struct {
		n    int
		name string
		in   string
		dst  socks.Addr
		want string
		err  error
	}{
		{n: 47, name: "IPv4", in: head + toE[3:] + "ping", dst: addr("203.0.113.5:80"), want: "ping"},
		{n: 48, name: "no payload", in: head + toE[3:], dst: addr("203.0.113.5:80")},
		{name: "IPv6", in: head + "\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x35x", dst: addr("[2001:db8::1]:53"), want: "x"},
		{name: "IPv4-mapped", in: head + "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x05\x00\x50x", dst: addr("203.0.113.5:80"), want: "x"},
		{name: "name", in: head + "\x03" + field("Server.Example.") + "\x00\x35x", dst: name("server.example", 53), want: "x"},
		{name: "name that is an address", in: head + "\x03" + field("203.0.113.5") + "\x00\x50x", dst: addr("203.0.113.5:80"), want: "x"},
		{n: 49, name: "fragment 1", in: "\x00\x00\x01" + toE[3:] + "x", err: socks.ErrFragment},
		{n: 49, name: "last fragment", in: "\x00\x00\x82" + toE[3:] + "x", err: socks.ErrFragment},
		{n: 50, name: "nothing", in: "", err: socks.ErrShort},
		{n: 50, name: "1 byte", in: "\x00", err: socks.ErrShort},
		{n: 50, name: "3 bytes", in: head, err: socks.ErrShort},
		{n: 50, name: "5 bytes", in: head + "\x01\xcb", err: socks.ErrShort},
		{n: 50, name: "no port", in: head + toE[3:8], err: socks.ErrShort},
		{n: 50, name: "half a port", in: head + toE[3:9], err: socks.ErrShort},
		{n: 51, name: "long name", in: head + "\x03\xff\x41\x41", err: socks.ErrShort},
		{n: 51, name: "name without length", in: head + "\x03", err: socks.ErrShort},
		{name: "empty name", in: head + "\x03\x00\x00\x35", err: errInvalidHost},
		{name: "address type", in: head + "\x02" + toE[4:], err: socks.ErrAddressType},
		{name: "port 0", in: head + toE[3:8] + "\x00\x00", err: socks.ErrPort},
		{name: "0.0.0.0", in: head + "\x01\x00\x00\x00\x00\x00\x35", err: socks.ErrUnspecified},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := socks.ParseDatagram([]byte(tt.in))
			checkIs(t, err, tt.err)
			if d.Dst != tt.dst || string(d.Payload) != tt.want {
				t.Errorf("case %d: got %v, %q, want %v, %q", tt.n, d.Dst, d.Payload, tt.dst, tt.want)
			}
			if err != nil {
				return
			}
			again, err := socks.ParseDatagram(socks.AppendDatagram(nil, d.Dst, d.Payload))
			if err != nil || again.Dst != d.Dst || !bytes.Equal(again.Payload, d.Payload) {
				t.Errorf("round trip gives %v, %q, %v", again.Dst, again.Payload, err)
			}
		})
	}
}

func TestDatagramAllocs(t *testing.T) {
	in, src := []byte("\x00\x00\x00"+toE[3:]+"ping"), addr("[2001:db8::1]:53")
	buf := make([]byte, 0, 1500)
	got := testing.AllocsPerRun(100, func() {
		d, err := socks.ParseDatagram(in)
		if err != nil {
			t.Fatal(err)
		}
		socks.AppendDatagram(buf, src, d.Payload)
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
