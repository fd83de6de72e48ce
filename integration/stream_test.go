//go:build linux

package integration

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// echoed writes text and reads as many bytes.
func echoed(t testing.TB, c net.Conn, text string) string {
	t.Helper()
	got, err := tryEcho(c, text)
	if err != nil {
		t.Fatalf("echo: %v", err)
	}
	return got
}

func tryEcho(c net.Conn, text string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return "", err
	}
	return string(b), c.SetDeadline(time.Time{})
}

// rest reads to the end of the stream.
func rest(t testing.TB, c net.Conn) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("to the end: %v after %q", err, b)
	}
	return string(b)
}

// reset ends the connection with RST.
func reset(t testing.TB, c *net.TCPConn) {
	t.Helper()
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Error(err)
	}
}

// TestHalfCloseByClient sends, ends its direction, and gets the answer that the
// server gives only then.
func TestHalfCloseByClient(t *testing.T) {
	r := newRig(t)
	s := r.Server.ServeTCP(t, "0.0.0.0:80", func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if err == nil {
			_, _ = io.WriteString(c, "got "+string(b)) // the client tells
		}
	})
	r.serve(mainConfig)
	c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), s.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "abc"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := rest(t, c); got != "got abc" {
		t.Errorf("answer is %q, want %q", got, "got abc")
	}
}

// TestBigHalfClose sends 8 MiB and an end, and then gets 1 MiB.
func TestBigHalfClose(t *testing.T) {
	r := newRig(t)
	up, down := randomBytes(1, 8<<20), randomBytes(2, 1<<20)
	got := make(chan []byte, 1)
	s := r.Server.ServeTCP(t, "0.0.0.0:80", func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // compared below
		got <- b
		_, _ = c.Write(down) // compared below
	})
	r.serve(mainConfig)
	c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), s.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(up); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b := rest(t, c); b != string(down) {
		t.Errorf("%d bytes came down, want the %d sent", len(b), len(down))
	}
	if b := within(t, got); !bytes.Equal(b, up) {
		t.Errorf("%d bytes went up, want the %d sent", len(b), len(up))
	}
	if e := r.log.wait(t, 1, "flow")[0]; e.number("in") != len(down) || e.number("out") != len(up) {
		t.Errorf("the log counts in %d, out %d, want %d, %d", e.number("in"), e.number("out"), len(down), len(up))
	}
}

func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// TestHalfCloseByServer lets the server end its direction first.
func TestHalfCloseByServer(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 1)
	s := r.Server.ServeTCP(t, "0.0.0.0:80", func(c *net.TCPConn) {
		_ = c.CloseWrite() // the client sees it or fails
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	r.serve(mainConfig)
	c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), s.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if b := rest(t, c); b != "" {
		t.Errorf("read %q, want the end", b)
	}
	if _, err := io.WriteString(c, "and on"); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if b := within(t, got); b != "and on" {
		t.Errorf("the server got %q, want %q", b, "and on")
	}
}

// within receives from ch, with patience.
func within[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing in %v", patience)
		panic("unreachable")
	}
}

// TestResetPasses resets one side and wants RST on the other, in under 100 ms,
// before, during and after data.
func TestResetPasses(t *testing.T) {
	r := newRig(t)
	ends := make(chan error, 1)
	accepted, release := make(chan *net.TCPConn, 1), make(chan struct{})
	s := r.Server.ServeTCP(t, "0.0.0.0:80", func(c *net.TCPConn) {
		accepted <- c
		_, err := io.Copy(io.Discard, c)
		ends <- err
		if err == nil {
			<-release
		}
	})
	t.Cleanup(func() { close(release) })
	r.serve(mainConfig)
	open := func(t *testing.T) (client, server *net.TCPConn) {
		t.Helper()
		client, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), s.Addr.Port()))
		if err != nil {
			t.Fatal(err)
		}
		return client, within(t, accepted)
	}
	for _, data := range []string{"", "x"} {
		t.Run("by the client after "+data, func(t *testing.T) {
			client, _ := open(t)
			if _, err := io.WriteString(client, data); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			reset(t, client)
			wantReset(t, within(t, ends), start)
		})
		t.Run("by the server after "+data, func(t *testing.T) {
			client, server := open(t)
			if _, err := io.WriteString(server, data); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, len(data))); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			reset(t, server)
			_ = client.SetReadDeadline(start.Add(patience))
			_, err := client.Read(make([]byte, 1))
			wantReset(t, err, start)
			within(t, ends)
		})
	}
	t.Run("by the server after the client's end", func(t *testing.T) {
		client, server := open(t)
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := within(t, ends); err != nil {
			t.Errorf("the server saw %v, want the end", err)
		}
		start := time.Now()
		reset(t, server)
		_ = client.SetReadDeadline(start.Add(patience)) // of an open connection
		_, err := client.Read(make([]byte, 1))
		wantReset(t, err, start)
	})
}

// wantReset wants an error of a reset, in a bounded time. The bound is ten times
// what a reset takes on a busy machine.
func wantReset(t *testing.T, err error, since time.Time) {
	t.Helper()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other side saw %v, want a reset", err)
	}
	if d := time.Since(since); d > time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestHalfClosedIdleEnds lets a half-closed flow idle: its own timer ends it.
func TestHalfClosedIdleEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	release := make(chan struct{})
	s := r.Server.ServeTCP(t, "0.0.0.0:80", func(*net.TCPConn) { <-release })
	t.Cleanup(func() { close(release) })
	r.serve(mainConfig + "\n[timeouts]\nhalf_closed = \"1s\"\n")
	dst := at(nstest.ServerV4(1), s.Addr.Port())
	whole, err := r.through("127.0.0.1:1080", dst)
	if err != nil {
		t.Fatal(err)
	}
	half, err := r.through("127.0.0.1:1080", dst)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = half.SetReadDeadline(start.Add(patience)) // of an open connection
	if _, err := half.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the half-closed flow ended with %v after %v, want an end after 1s", err, patience)
	}
	if d := time.Since(start); d < 900*time.Millisecond {
		t.Errorf("the half-closed flow ended after %v, want 1s", d)
	}
	_ = whole.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // of an open connection
	if _, err := whole.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the whole flow beside it ended too: %v", err)
	}
}
