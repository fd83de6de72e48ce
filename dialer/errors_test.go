//go:build linux

package dialer_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

const errRefused = syscall.ECONNREFUSED

// controlFails is a Control that no dial may reach.
func controlFails(t *testing.T) func(string, string, syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		t.Errorf("a socket was made for %s", address)
		return errors.New("refused by the test")
	}
}

// closedPort returns an address on which nobody listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// opError wants a *net.OpError of this source and address.
func opError(t *testing.T, err error, source, addr string) {
	t.Helper()
	var oe *net.OpError
	if !errors.As(err, &oe) || oe != err {
		t.Fatalf("%v is a %T", err, err)
	}
	got := ""
	if oe.Source != nil {
		got = oe.Source.String()
	}
	if oe.Op != "dial" || got != source || oe.Addr == nil || oe.Addr.String() != addr {
		t.Errorf("%s from %q to %v, want from %q to %s", oe.Op, got, oe.Addr, source, addr)
	}
}

// TestRefusals wants for each reason its error, and that no socket is made.
func TestRefusals(t *testing.T) {
	d := &dialer.Dialer{
		Table: newTable(t, from(wan1),
			dialer.Rule{Name: "no", To: to("127.0.0.9"), Use: deny},
			dialer.Rule{To: to("127.0.0.8"), Use: from(six)},
			dialer.Rule{Name: "lte", To: to("127.0.0.7"), Use: from(wan2)}),
		State:   downs(wan2),
		Control: controlFails(t),
	}
	for _, tt := range []struct {
		dst  string
		want error
		rule string
		text []string
	}{
		{"127.0.0.9:80", dialer.ErrDenied, "no", []string{`rule "no"`, "denied"}},
		{"127.0.0.8:80", dialer.ErrNoSource, "rule 2", []string{"rule 2", `"six"`, "IPv4"}},
		{"127.0.0.7:80", dialer.ErrSourceDown, "lte", []string{`rule "lte"`, `"wan2"`, "no carrier"}},
		{"[::1]:80", dialer.ErrNoSource, "default", []string{"default", `"wan1"`, "IPv6"}},
	} {
		c, dec, err := d.DialFlow(t.Context(), tcp(tt.dst))
		if c != nil || dec.Rule != tt.rule {
			t.Errorf("%s: connection %v, rule %q", tt.dst, c, dec.Rule)
		}
		wantErr(t, err, tt.want)
		wantText(t, err, tt.text...)
		opError(t, err, "", tt.dst)
		r := (*dialer.RefusedError)(nil)
		if !errors.As(err, &r) || r.Flow.Dst.String() != tt.dst || r.Decision.Rule != tt.rule {
			t.Errorf("%v has %+v inside", err, r)
		}
		for _, other := range []error{dialer.ErrDenied, dialer.ErrNoSource, dialer.ErrSourceDown, dialer.ErrPorts} {
			if other != tt.want && errors.Is(err, other) {
				t.Errorf("%v is %v too", err, other)
			}
		}
	}
}

func TestConnectionRefused(t *testing.T) {
	dst := closedPort(t)
	d := &dialer.Dialer{Table: newTable(t, from(wan1))}
	err := refused(t, d, tcp(dst.String()))
	wantErr(t, err, errRefused)
	opError(t, err, "127.0.0.2:0", dst.String())
	if r := (*dialer.RefusedError)(nil); errors.As(err, &r) {
		t.Errorf("the far side's refusal is a %T", r)
	}
	if want := "dial tcp 127.0.0.2:0->" + dst.String() + ": connect: connection refused"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

// TestEveryAddressIsListed has one name with an address for each way to fail.
func TestEveryAddressIsListed(t *testing.T) {
	dst := closedPort(t)
	d := &dialer.Dialer{
		Table: newTable(t, from(wan1),
			dialer.Rule{Name: "private", To: to("127.0.0.9"), Use: deny},
			dialer.Rule{Name: "lte", To: to("127.0.0.8"), Use: from(wan2)}),
		State:    downs(wan2),
		Resolver: answers{"a.example": addrs("127.0.0.9", "127.0.0.8", "127.0.0.1", "::1")},
	}
	err := refused(t, d, tcp("a.example:"+port(dst)))
	for _, want := range []error{dialer.ErrDenied, dialer.ErrSourceDown, dialer.ErrNoSource, errRefused} {
		wantErr(t, err, want)
	}
	opError(t, err, "", "a.example:"+port(dst))
	wantText(t, err, "127.0.0.9:"+port(dst), `"private"`, "127.0.0.8:", `"lte"`, "127.0.0.2:0->127.0.0.1:", "[::1]:", "IPv6")
	if ne := net.Error(nil); !errors.As(err, &ne) || ne.Timeout() {
		t.Errorf("%v is a timeout", err)
	}
}

// TestEachAddressIsJudged connects by the one address that may be reached.
func TestEachAddressIsJudged(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	d := &dialer.Dialer{
		Table:    newTable(t, from(wan1), dialer.Rule{To: to("*.example"), Use: from(wan2)}, dialer.Rule{To: to("127.0.0.8/29"), Use: deny}),
		Resolver: answers{"a.example": addrs("::1", "127.0.0.9", "127.0.0.8", "127.0.0.1")},
		Control: func(_, address string, _ syscall.RawConn) error {
			if address != server.String() {
				t.Errorf("a socket was made for %s", address)
			}
			return nil
		},
	}
	saw, dec := dial(t, d, tcp("a.example:"+port(server)))
	if saw.Addr() != wan2.Addrs[0] || dec.Rule != "rule 1" {
		t.Errorf("the server saw %v by %+v", saw, dec)
	}
}

func TestTimeout(t *testing.T) {
	hole := blackHole(t, "127.0.0.1:0")
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Timeout: 50 * time.Millisecond}
	err := refused(t, d, tcp(hole.String()))
	wantErr(t, err, context.DeadlineExceeded)
	opError(t, err, "127.0.0.2:0", hole.String())
	if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
	d.Resolver = answers{"a.example": addrs("127.0.0.1", "::1")}
	d.Table = newTable(t, from(mail))
	f := tcp("a.example:" + port(hole))
	if ne := net.Error(nil); !errors.As(refused(t, d, f), &ne) || ne.Timeout() {
		t.Error("one address timed out and one refused: that is no timeout")
	}
	blackHole(t, "127.0.0.9:"+port(hole))
	d.Resolver = answers{"a.example": addrs("127.0.0.1", "127.0.0.9")}
	if ne := net.Error(nil); !errors.As(refused(t, d, f), &ne) || !ne.Timeout() {
		t.Error("all addresses timed out: that is a timeout")
	}
}

// TestSourceNotHere dials from addresses that no interface has.
func TestSourceNotHere(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	gone := &dialer.Source{Name: "gone", Addrs: addrs("192.0.2.1", "2001:db8::1")}
	d := &dialer.Dialer{Table: newTable(t, from(gone))}
	for _, dst := range []string{server.String(), "[::1]:" + port(server)} {
		err := refused(t, d, tcp(dst))
		wantErr(t, err, dialer.ErrSourceDown)
		wantErr(t, err, syscall.EADDRNOTAVAIL)
		wantText(t, err, `"gone"`, "default", "not on this host")
	}
}

// TestControlError hands the error of Control on, and binds nothing.
func TestControlError(t *testing.T) {
	errOwn := errors.New("no")
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Control: func(string, string, syscall.RawConn) error { return errOwn }}
	wantErr(t, refused(t, d, tcp("127.0.0.1:1")), errOwn)
}
