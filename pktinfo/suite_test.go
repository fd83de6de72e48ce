//go:build linux

package pktinfo_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/pktinfo"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds each wait for something that is to happen.
const limit = 5 * time.Second

// maker opens a socket, and says at which address it can be reached.
type maker struct {
	name string
	open func(t *testing.T) (net.PacketConn, net.Addr)
}

func at(c net.PacketConn, host string) net.Addr {
	p := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), p))
}

// makers are the sockets over which the suite runs; *net.UDPConn is the
// reference for what a net.PacketConn does.
func makers() []maker {
	ours := func(network, address, host string) func(*testing.T) (net.PacketConn, net.Addr) {
		return func(t *testing.T) (net.PacketConn, net.Addr) {
			c := listen(t, &pktinfo.ListenConfig{}, network, address)
			return c, at(c, host)
		}
	}
	return []maker{
		{"reference", func(t *testing.T) (net.PacketConn, net.Addr) {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c, c.LocalAddr()
		}},
		{"v4", ours("udp4", "127.0.0.1:0", "127.0.0.1")},
		{"v4 wildcard", ours("udp4", "0.0.0.0:0", "127.0.0.5")},
		{"v6", ours("udp6", "[::1]:0", "::1")},
		{"dual-stack by v4", ours("udp", ":0", "127.0.0.6")},
		{"dual-stack by v6", ours("udp", ":0", "::1")},
		{"errors", func(t *testing.T) (net.PacketConn, net.Addr) {
			c := listen(t, &pktinfo.ListenConfig{Errors: true}, "udp", ":0")
			return c, at(c, "127.0.0.7")
		}},
		{"taken over", func(t *testing.T) (net.PacketConn, net.Addr) {
			u, err := net.ListenUDP("udp", nil)
			if err != nil {
				t.Fatal(err)
			}
			c, err := pktinfo.New(u)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c, at(c, "::1")
		}},
	}
}

func listen(t testing.TB, lc *pktinfo.ListenConfig, network, address string) *pktinfo.Conn {
	t.Helper()
	c, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(4 * limit)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPacketConn(t *testing.T) {
	cases := []struct {
		name string
		run  func(t *testing.T, m maker)
	}{
		{"round trip", testRoundTrip},
		{"sizes", testSizes},
		{"truncation", testTruncation},
		{"past deadline", testPastDeadline},
		{"deadline while waiting", testPresentDeadline},
		{"future deadline", testFutureDeadline},
		{"close unblocks", testClose},
		{"concurrent use", testConcurrent},
		{"errors of writes", testWriteErrors},
	}
	for _, m := range makers() {
		t.Run(m.name, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.run(t, m) })
			}
		})
	}
}

func testRoundTrip(t *testing.T, m maker) {
	server, addr := m.open(t)
	client, _ := m.open(t)
	write(t, client, "ask", addr)
	got, from := read(t, server)
	if got != "ask" {
		t.Fatalf("server got %q", got)
	}
	write(t, server, "answer", from)
	got, from = read(t, client)
	if got != "answer" {
		t.Errorf("client got %q", got)
	}
	if from.String() != addr.String() {
		t.Errorf("answer from %v, want %v", from, addr)
	}
	if from.Network() != "udp" {
		t.Errorf("network %q", from.Network())
	}
}

func write(t *testing.T, c net.PacketConn, s string, to net.Addr) {
	t.Helper()
	if n, err := c.WriteTo([]byte(s), to); n != len(s) || err != nil {
		t.Fatalf("WriteTo(%v) = %d, %v", to, n, err)
	}
}

func read(t *testing.T, c net.PacketConn) (string, net.Addr) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), from
}

func testSizes(t *testing.T, m maker) {
	server, addr := m.open(t)
	for _, n := range []int{0, 1, 1472, 1473, 9000, 65507} {
		want := bytes.Repeat([]byte{byte(n), 7}, n/2+1)[:n]
		write(t, server, string(want), addr)
		if got, _ := read(t, server); got != string(want) {
			t.Errorf("%d bytes sent, %d came", n, len(got))
		}
	}
}

func testTruncation(t *testing.T, m maker) {
	server, addr := m.open(t)
	write(t, server, "123456", addr)
	write(t, server, "next", addr)
	b := make([]byte, 4)
	if n, _, err := server.ReadFrom(b); n != 4 || err != nil || string(b) != "1234" {
		t.Errorf("ReadFrom = %d %q, %v", n, b, err)
	}
	if got, _ := read(t, server); got != "next" {
		t.Errorf("got %q, want next", got)
	}
}

// wantTimeout checks what net promises of deadlines.
func wantTimeout(t *testing.T, err error) {
	t.Helper()
	var oe *net.OpError
	if !errors.As(err, &oe) || !oe.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || oe.Source == nil {
		t.Errorf("got %#v, want a timeout", err)
	}
}

func testPastDeadline(t *testing.T, m maker) {
	c, addr := m.open(t)
	write(t, c, "waits", addr)
	if err := c.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	_, _, err := c.ReadFrom(make([]byte, 10))
	wantTimeout(t, err)
	_, err = c.WriteTo([]byte("x"), addr)
	wantTimeout(t, err)
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, c); got != "waits" {
		t.Errorf("got %q", got)
	}
}

func testPresentDeadline(t *testing.T, m maker) {
	c, _ := m.open(t)
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, _, err := c.ReadFrom(make([]byte, 10))
	wantTimeout(t, err)
	if d := time.Since(start); d > limit {
		t.Errorf("took %v", d)
	}
}

func testFutureDeadline(t *testing.T, m maker) {
	c, addr := m.open(t)
	if err := c.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	write(t, c, "soon", addr)
	if got, _ := read(t, c); got != "soon" {
		t.Errorf("got %q", got)
	}
	// A deadline set by another goroutine ends a read that waits.
	done := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 10))
		done <- err
	}()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	wantTimeout(t, receive(t, done))
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatal("nothing within the limit")
		panic("not reached")
	}
}

func testClose(t *testing.T, m maker) {
	c, addr := m.open(t)
	done := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 10))
		done <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, after := c.ReadFrom(make([]byte, 10))
	_, write := c.WriteTo([]byte("x"), addr)
	for _, err := range []error{receive(t, done), after, write, c.Close(), c.SetDeadline(time.Time{})} {
		var oe *net.OpError
		if !errors.As(err, &oe) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %#v, want net.ErrClosed", err)
		}
	}
}

func testConcurrent(t *testing.T, m maker) {
	const writers, each = 4, 50
	c, addr := m.open(t)
	var wg sync.WaitGroup
	got := make(chan byte, writers*each)
	tokens := make(chan struct{}, 32) // no more on their way than the buffer holds
	for range 3 {
		wg.Go(func() {
			b := make([]byte, 10)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				if n != 1 {
					t.Errorf("%d bytes", n)
				}
				got <- b[0]
				<-tokens
			}
		})
	}
	for i := range writers {
		wg.Go(func() {
			for range each {
				tokens <- struct{}{}
				if _, err := c.WriteTo([]byte{byte(i)}, addr); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var counts [writers]int
	for range writers * each {
		counts[receive(t, got)]++
	}
	if counts != [writers]int{each, each, each, each} {
		t.Errorf("got %v", counts)
	}
	_ = c.Close()
	wg.Wait()
}

func testWriteErrors(t *testing.T, m maker) {
	c, addr := m.open(t)
	n, err := c.WriteTo(make([]byte, 65536), addr)
	var oe *net.OpError
	if n != 0 || !errors.Is(err, unix.EMSGSIZE) || !errors.As(err, &oe) {
		t.Fatalf("WriteTo = %d, %#v, want EMSGSIZE", n, err)
	}
	if oe.Op != "write" || oe.Source == nil || oe.Addr == nil || oe.Timeout() {
		t.Errorf("got %#v", oe)
	}
	write(t, c, "still alive", addr)
	if got, _ := read(t, c); got != "still alive" {
		t.Errorf("got %q", got)
	}
}
