package socks_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/srcproxy/srcproxy/internal/hostname"
	"github.com/srcproxy/srcproxy/internal/socks"
)

var errInvalidHost = hostname.ErrInvalid

func checkIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func FuzzHandshake(f *testing.F) {
	for _, in := range []string{
		hello + toE, connect("server.example") + "ping", connect("127.9"), helloUsers + login(goodUser, goodPassword) + toE,
		helloUsers + login("", ""), "\x04\x01\x00\x50\xcb\x00\x71\x05alice\x00", "\x04\x01\x00\x50\x00\x00\x00\x01\x00server.example\x00", "GET /",
		hello + "\x05\x03\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00",
	} {
		f.Add([]byte(in), uint16(3), true, true)
		f.Add([]byte(in), uint16(7), false, true)
		f.Add([]byte(in), uint16(7), true, false)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16, users, socks4 bool) {
		h := socks.Handshake{Users: users, SOCKS4: socks4}
		whole, err := drive(t, h, in)
		at := min(int(cut), len(in))
		if got, _ := drive(t, h, in[:at], in[at:]); got != whole {
			t.Fatalf("cut at %d:\ngot  %+v\nwant %+v", at, got, whole)
		}
		checkOutcome(t, h, in, whole, err)
		if whole.End == socks.StepMore {
			checkMore(t, h, in)
		}
	})
}

// checkOutcome holds what is true of every end.
func checkOutcome(t *testing.T, h socks.Handshake, in []byte, o outcome, err error) {
	t.Helper()
	for i := range len(o.Err) {
		if o.Err[i] < ' ' || o.Err[i] > '~' {
			t.Fatalf("error %q has byte %#02x", o.Err, o.Err[i])
		}
	}
	if o.End != socks.StepRequest {
		return
	}
	if err != nil || h.Users && o.Asked != asks(goodUser, goodPassword) {
		t.Fatalf("%+v, %v: let in", o, err)
	}
	dst := o.Request.Dst
	if dst.Addr.Addr().IsValid() == (dst.Name != "") || dst.Addr.Addr().Is4In6() {
		t.Fatalf("destination %+v", dst)
	}
	if o.Request.Command == socks.CommandConnect && (dst.Port() == 0 || dst.Addr.Addr().IsUnspecified()) {
		t.Fatalf("destination %v", dst)
	}
	if got, _ := drive(t, h, in[:o.Read]); got != o {
		t.Fatalf("without what follows it: got %+v, want %+v", got, o)
	}
}

// checkMore wants that some longer input is answered, in bounded bytes.
func checkMore(t *testing.T, h socks.Handshake, in []byte) {
	t.Helper()
	before, _ := drive(t, h, in)
	for _, filler := range []byte{0, 'a'} {
		more := bytes.Repeat([]byte{filler}, socks.MaxMessage)
		if after, _ := drive(t, h, in, more); after.Read > before.Read || after.End == socks.StepClose {
			return
		}
	}
	t.Fatalf("% x: no longer input is answered", in)
}

func FuzzDatagram(f *testing.F) {
	for _, in := range []string{"\x00\x00\x00" + toE[3:] + "ping", "\x00\x00\x00\x03\x0eserver.example\x00\x35x", "\x00\x00\x01", "\x00\x00\x00\x03\xff\x41\x41"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := socks.ParseDatagram(in)
		if err != nil {
			return
		}
		if len(in)-len(d.Payload) > socks.MaxDatagramHeader || !bytes.HasSuffix(in, d.Payload) {
			t.Fatalf("%q leaves the payload %q", in, d.Payload)
		}
		again, err := socks.ParseDatagram(socks.AppendDatagram(nil, d.Dst, d.Payload))
		if err != nil || again.Dst != d.Dst || !bytes.Equal(again.Payload, d.Payload) {
			t.Fatalf("%+v comes back as %+v, %v", d, again, err)
		}
	})
}
