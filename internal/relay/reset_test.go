package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestResetIsPassedOn(t *testing.T) {
	ends := func(r *rig, flip bool) (a, b net.Conn, side Side) {
		if flip {
			return r.server, r.client, Server
		}
		return r.client, r.server, Client
	}
	tests := []struct {
		name  string
		setup func(t *testing.T, a, b net.Conn)
	}{
		{"at once", func(*testing.T, net.Conn, net.Conn) {}},
		{"mid-stream", func(t *testing.T, a, b net.Conn) { mustWrite(t, a, "x"); want(t, b, "x") }},
		{"after own FIN", func(t *testing.T, a, b net.Conn) {
			if err := a.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("got %d, %v", n, err)
			}
		}},
		{"bulk towards it", func(t *testing.T, a, b net.Conn) {
			go func() { _, _ = io.Copy(b, zeros{}) }()
			if _, err := io.CopyN(io.Discard, a, 8<<20); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/flip=%t", tt.name, flip), func(t *testing.T) {
				r := start(t, tcpPair(t), tcpPair(t), Options{})
				a, b, side := ends(r, flip)
				tt.setup(t, a, b)
				began := time.Now()
				Reset(a)
				err := r.result(t)
				var e *Error
				if !errors.As(err, &e) || e.Side != side || !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
					t.Errorf("Stream: got %v, want a reset by the %s", err, side)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("took %v", took)
				}
				if err := lastError(b); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("the other peer: got %v, want ECONNRESET", err)
				}
			})
		}
	}
}

func TestStopFromOutside(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop func(net.Conn)
		want error
	}{
		{"close", func(c net.Conn) { _ = c.Close() }, nil},
		{"reset", Reset, unix.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, tcpPair(t), tcpPair(t), Options{Idle: time.Hour})
			mustWrite(t, r.client, "x")
			want(t, r.server, "x")
			for _, c := range r.near {
				tt.stop(c)
			}
			if err := r.result(t); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Stream: got %v, want net.ErrClosed", err)
			}
			if tt.want == nil {
				return
			}
			for _, c := range []net.Conn{r.client, r.server} {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, tt.want) {
					t.Errorf("peer: got %v, want %v", err, tt.want)
				}
			}
		})
	}
}

// TestResetOfTLS shows that Reset reaches the socket below.
func TestResetOfTLS(t *testing.T) {
	p := tcpPair(t)
	Reset(tls.Server(p[1], &tls.Config{}))
	if _, err := p[0].Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %v, want ECONNRESET", err)
	}
}

// lastError reads and writes until c fails.
func lastError(c net.Conn) error {
	if _, err := io.Copy(io.Discard, c); err != nil {
		return err
	}
	for { // after an end of file only a write meets the reset
		if _, err := c.Write([]byte("x")); err != nil {
			if errors.Is(err, unix.EPIPE) {
				return unix.ECONNRESET
			}
			return err
		}
	}
}
