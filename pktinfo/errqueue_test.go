//go:build linux

package pktinfo_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/pktinfo"
	"golang.org/x/sys/unix"
)

// deaf returns addresses at which nobody listens.
func deaf(t *testing.T, host string, n int) (as []netip.AddrPort) {
	t.Helper()
	for range n {
		c := udpClient(t)
		defer c.Close() // after the last is open: all ports differ
		as = append(as, portAt(c, host))
	}
	return as
}

// TestErrorQueue sends to deaf and to healthy peers in turn: each healthy one
// must get all, and each error must be charged to the peer that refused.
func TestErrorQueue(t *testing.T) {
	tests := []struct{ network, host, local string }{
		{"udp4", "127.0.0.1", "127.0.0.2"},
		{"udp", "127.0.0.1", "127.0.0.2"},
		{"udp", "::1", "::1"},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.host, func(t *testing.T) {
			const n = 40
			errs := make(chan pktinfo.SocketError, 10*n)
			lc := pktinfo.ListenConfig{Errors: true, OnError: func(e pktinfo.SocketError) { errs <- e }}
			c := big(t, lc, tt.network)
			healthy := big(t, pktinfo.ListenConfig{}, "udp")
			dead := deaf(t, tt.host, n)
			local := netip.MustParseAddr(tt.local)
			var ms []pktinfo.Message
			for _, d := range dead {
				ms = append(ms, messages(1, 9, pktinfo.Addr{Peer: d, Local: local})...)
				ms = append(ms, messages(2, 9, pktinfo.Addr{Peer: portAt(healthy, tt.host), Local: local})...)
			}
			if sent, err := c.WriteBatch(ms); sent != len(ms) || err != nil {
				t.Fatalf("WriteBatch = %d, %v", sent, err)
			}
			for i := range ms {
				if err := c.WriteMsg(&ms[i]); err != nil {
					t.Fatalf("WriteMsg %d: %v", i, err)
				}
			}
			readAll(t, healthy, 2*2*n)
			checkReader(t, c, healthy, local)
			checkErrors(t, errs, dead, local)
		})
	}
}

// checkReader wants a read to pass over pending errors.
func checkReader(t *testing.T, c, healthy *pktinfo.Conn, local netip.Addr) {
	t.Helper()
	write(t, healthy, "fine", at(c, local.String()))
	if got, _ := read(t, c); got != "fine" {
		t.Errorf("got %q", got)
	}
}

func checkErrors(t *testing.T, errs <-chan pktinfo.SocketError, dead []netip.AddrPort, local netip.Addr) {
	t.Helper()
	refused := map[netip.AddrPort]bool{}
	for len(errs) > 0 {
		e := <-errs
		if !errors.Is(&e, unix.ECONNREFUSED) || e.Local != local || e.Offender != dead[0].Addr() || e.MTU != 0 {
			t.Errorf("got %+v", e)
		}
		refused[e.Peer] = true
	}
	for _, d := range dead {
		if !refused[d] {
			t.Errorf("no error for %v", d)
		}
		delete(refused, d)
	}
	for a := range refused {
		t.Errorf("error charged to %v", a)
	}
}

// TestErrorWakesReader wants an ICMP error to be reported while a read waits,
// and the read to go on.
func TestErrorWakesReader(t *testing.T) {
	for _, wait := range []bool{false, true} {
		errs := make(chan pktinfo.SocketError, 10)
		lc := pktinfo.ListenConfig{Errors: true, OnError: func(e pktinfo.SocketError) { errs <- e }}
		c := listen(t, &lc, "udp", ":0")
		done := make(chan error)
		go func() {
			m := pktinfo.Message{Buf: make([]byte, 9)}
			var err error
			if wait {
				err = c.WaitRead()
			}
			done <- errors.Join(err, c.ReadMsg(&m))
		}()
		for _, d := range deaf(t, "127.0.0.1", 3) {
			write(t, c, "x", &pktinfo.Addr{Peer: d})
			if e := receive(t, errs); e.Peer != d {
				t.Errorf("got %+v, want %v", e, d)
			}
		}
		select {
		case err := <-done:
			t.Fatalf("the read ended: %v", err)
		default:
		}
		write(t, c, "end", at(c, "127.0.0.1"))
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	}
}

// TestErrorWithoutReader wants a batch to report the error that one of its own
// datagrams caused, when nobody reads: sendmmsg stops there and does not say so.
func TestErrorWithoutReader(t *testing.T) {
	errs := make(chan pktinfo.SocketError, 200)
	lc := pktinfo.ListenConfig{Errors: true, OnError: func(e pktinfo.SocketError) { errs <- e }}
	c, healthy := listen(t, &lc, "udp4", ":0"), big(t, pktinfo.ListenConfig{}, "udp")
	dead := deaf(t, "127.0.0.1", 1)[0]
	ms := append(messages(1, 9, pktinfo.Addr{Peer: dead}), messages(1, 9, pktinfo.Addr{Peer: portAt(healthy, "127.0.0.1")})...)
	for range 100 { // the answer may come late
		if n, err := c.WriteBatch(ms); n != len(ms) || err != nil {
			t.Fatal(n, err)
		}
		if len(errs) > 0 {
			return
		}
	}
	t.Error("no error was reported")
}

// TestOwnErrors wants an error of this host to be returned and not reported.
func TestOwnErrors(t *testing.T) {
	errs := make(chan pktinfo.SocketError, 10)
	lc := pktinfo.ListenConfig{Errors: true, OnError: func(e pktinfo.SocketError) { errs <- e }}
	c := listen(t, &lc, "udp", ":0")
	if _, err := c.WriteTo(make([]byte, 65508), at(c, "127.0.0.1")); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("got %v, want EMSGSIZE", err)
	}
	write(t, c, "x", at(c, "127.0.0.1"))
	if got, _ := read(t, c); got != "x" || len(errs) != 0 {
		t.Errorf("got %q, %d errors", got, len(errs))
	}
}
