package inbound

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// limit bounds every wait of these tests.
const limit = 20 * time.Second

// sourceAddr is what the rigs dial from unless a test says otherwise.
var sourceAddr = netip.MustParseAddr("127.0.0.2")

// rig is a listener with its own log, registry and budget.
type rig struct {
	*Listener
	s    *Settings
	log  *journal
	stop context.CancelFunc // ends the context of the listener
}

// start serves a mixed listener on loopback, after change had its say.
func start(t *testing.T, change func(*Settings)) *rig {
	t.Helper()
	log := &journal{changed: make(chan struct{})}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	registry := &flows.Registry{Log: logger}
	registry.SetLogging(true, true)
	s := &Settings{
		Name:      "office",
		Dialer:    &dialer.Dialer{Table: from(t, sourceAddr)},
		Handshake: limit,
		Shared:    &Shared{Flows: registry, Descriptors: NewDescriptors(4096), Log: logger},
	}
	if change != nil {
		change(s)
	}
	ctx, stop := context.WithCancel(t.Context())
	l, err := Listen(ctx, netip.MustParseAddrPort("127.0.0.1:0"), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Serve()
	t.Cleanup(func() {
		stop()
		_ = l.Close() // a test may have closed it
		s.Shared.Flows.CloseAll(nil)
		l.Wait()
		if n := len(s.Shared.Descriptors.slots); n != 0 {
			t.Errorf("%d descriptors were not given back", n)
		}
		if a, b := s.Shared.Connections.n.Load(), l.gate.n.Load(); a != 0 || b != 0 {
			t.Errorf("%d and %d connections are still counted", a, b)
		}
		if n := len(l.waiting); n != 0 {
			t.Errorf("%d connections are still noted", n)
		}
	})
	return &rig{Listener: l, s: s, log: log, stop: stop}
}

// from returns a table that sends everything from addrs.
func from(t *testing.T, addrs ...netip.Addr) *dialer.Table {
	t.Helper()
	table, err := dialer.NewTable(nil, dialer.Use{Source: &dialer.Source{Name: "wan1", Addrs: addrs}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// dial opens a connection to the listener.
func (r *rig) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	return dialTCP(t, r.Addr().String())
}

func dialTCP(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// server accepts connections on loopback and hands each to serve, which has to return
// before the test ends. The peers' addresses go to seen.
type server struct {
	ln   net.Listener
	seen chan netip.AddrPort
}

func serve(t *testing.T, handle func(*net.TCPConn)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ln: ln, seen: make(chan netip.AddrPort, 2000)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.seen <- addrPort(c.RemoteAddr())
			running.Go(func() {
				defer func() { _ = c.Close() }() // handle may have closed it
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return s
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c) // the client checks what comes
}

func (s *server) addr() netip.AddrPort { return addrPort(s.ln.Addr()) }

// closedPort returns an address on which nobody listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return addrPort(ln.Addr())
}

// connect5 is a SOCKS 5 CONNECT for an address, connectName one for a name.
func connect5(a netip.AddrPort) string {
	return "\x05\x01\x00\x01" + string(a.Addr().AsSlice()) + port(a)
}

func connectName(name string) string {
	return "\x05\x01\x00\x03" + string(rune(len(name))) + name + "\x01\xbb"
}

func port(a netip.AddrPort) string { return string([]byte{byte(a.Port() >> 8), byte(a.Port())}) }

func connectHTTP(authority string) string {
	return fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority)
}

const (
	hello5 = "\x05\x01\x00" // greeting with the method none
	ok5    = "\x05\x00"
)

// mustSend writes to c.
func mustSend(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// mustGet reads exactly what is wanted.
func mustGet(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

// mustReply reads a SOCKS 5 reply with an IPv4 address and returns the address.
func mustReply(t testing.TB, c net.Conn, rep byte) netip.AddrPort {
	t.Helper()
	mustGet(t, c, string([]byte{5, rep, 0, 1}))
	var b [6]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), uint16(b[4])<<8|uint16(b[5]))
}

// rest returns what still comes before the end, and how it ended.
func rest(c net.Conn) (string, error) {
	b, err := io.ReadAll(c)
	return string(b), err
}

// mustEnd wants a clean end without another byte.
func mustEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if got, err := rest(c); got != "" || err != nil {
		t.Fatalf("got %q, %v, want the end", got, err)
	}
}

// eventually waits until check returns no complaint.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		complaint := check()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(complaint)
		}
		<-time.After(time.Millisecond)
	}
}

// line is one line of the log.
type line map[string]any

func (l line) has(key, value string) bool { return fmt.Sprint(l[key]) == value }

// journal keeps the lines of a log. It is safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	lines   []line
	changed chan struct{} // closed with the next line
}

func (j *journal) Write(b []byte) (int, error) {
	var l line
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&l); err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, l)
	close(j.changed)
	j.changed = make(chan struct{})
	return len(b), nil
}

// all returns the lines with that message so far.
func (j *journal) all(msg string) (out []line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if l.has("msg", msg) {
			out = append(out, l)
		}
	}
	return out
}

// wait returns the first n lines with that message once they are there.
func (j *journal) wait(t testing.TB, msg string, n int) []line {
	t.Helper()
	timeout := time.After(limit)
	for {
		j.mu.Lock()
		changed := j.changed
		j.mu.Unlock()
		if got := j.all(msg); len(got) >= n {
			return got[:n]
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("got %v, want %d lines %q", j.all(msg), n, msg)
		}
	}
}

// resolver answers each name when it is told to, and notes how lookups ended.
type resolver struct {
	asked  chan string
	answer chan []netip.Addr
	ended  chan error // the cause of a lookup that was cancelled
}

func newResolver() *resolver {
	return &resolver{
		asked:  make(chan string, 10),
		answer: make(chan []netip.Addr, 10),
		ended:  make(chan error, 10),
	}
}

func (r *resolver) LookupNetIP(ctx context.Context, _, name string) ([]netip.Addr, error) {
	r.asked <- name
	select {
	case a := <-r.answer:
		return a, nil
	case <-ctx.Done():
		r.ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
}

// within returns the next value of ch, and fails when none comes in time.
func within[T any](t testing.TB, ch <-chan T, d time.Duration) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(d):
		t.Fatalf("nothing came within %v", d)
	}
	return v
}

// isReset reports whether the peer reset the connection.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
