package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/srcproxy/srcproxy/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait of these tests.
const limit = 20 * time.Second

// program is a running server whose configuration a test can exchange.
type program struct {
	t      *testing.T
	reload chan os.Signal
	stop   context.CancelFunc
	done   chan error
	addrs  []net.Addr
	log    *journal

	mu   sync.Mutex
	text string
}

// run serves text until the test ends. The options can be changed before.
func run(t *testing.T, text string, change ...func(*Options)) *program {
	t.Helper()
	p := &program{t: t, reload: make(chan os.Signal, 1), done: make(chan error, 1), text: text}
	p.log = &journal{changed: make(chan struct{})}
	ready := make(chan []net.Addr, 1)
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	o := Options{
		Load:   p.load,
		Reload: p.reload,
		Stderr: p.log,
		Ready:  func(_ *config.Config, a []net.Addr) { ready <- a },
	}
	for _, c := range change {
		c(&o)
	}
	go func() { p.done <- Run(ctx, o) }()
	select {
	case p.addrs = <-ready:
	case err := <-p.done:
		cancel()
		t.Fatal(err)
	case <-time.After(limit):
		cancel()
		t.Fatal("the server is not ready")
	}
	t.Cleanup(func() {
		cancel()
		if err := within(t, p.done, limit); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *program) load() (*config.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return config.Parse("srcproxy.toml", []byte(p.text))
}

// change reloads with text and returns the line that acknowledges it.
func (p *program) change(text, msg string) line {
	p.t.Helper()
	p.mu.Lock()
	p.text = text
	p.mu.Unlock()
	n := len(p.log.all(msg))
	p.reload <- syscall.SIGHUP
	return p.log.wait(p.t, msg, n+1)[n]
}

// end stops the program and waits; the cleanup finds the same verdict.
func (p *program) end() {
	p.t.Helper()
	p.stop()
	err := within(p.t, p.done, limit)
	p.done <- err
}

// mixed is a configuration with one listener on that address.
func mixed(addr string) string {
	return fmt.Sprintf("default = \"127.0.0.2\"\n[timeouts]\ndrain = \"20s\"\n[[listen]]\nname = \"office\"\nmixed = %q\n", addr)
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		// Below the ephemeral ports: one of those may be somebody's local port by the time it is used.
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if ln, err := net.Listen("tcp", addr); err == nil {
			_ = ln.Close() // only its number is wanted
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// echoServer answers on loopback with what it gets, until the test ends.
func echoServer(t *testing.T) *net.TCPAddr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				_, _ = io.Copy(c, c) // the client checks what comes
				_ = c.Close()        // likewise
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close() // the end of the test
		running.Wait()
	})
	return ln.Addr().(*net.TCPAddr)
}

// through opens a flow to target by the proxy at addr.
func through(addr string, target *net.TCPAddr) (*net.TCPConn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(limit)) // it is open
	ask := "\x05\x01\x00\x05\x01\x00\x01" + string(target.IP.To4()) + string([]byte{byte(target.Port >> 8), byte(target.Port)})
	if _, err := io.WriteString(c, ask); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	var reply [2 + 10]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil || reply[3] != 0 {
		return nil, errors.Join(fmt.Errorf("reply %x: %w", reply, err), c.Close())
	}
	return c.(*net.TCPConn), nil
}

func mustAddr(t *testing.T, s string) *net.TCPAddr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustThrough(t *testing.T, addr string, target *net.TCPAddr) *net.TCPConn {
	t.Helper()
	c, err := through(addr, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	return c
}

// mustEcho wants a flow to work.
func mustEcho(t *testing.T, c net.Conn) {
	t.Helper()
	got := make([]byte, 4)
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("got %q, %v, want an echo", got, err)
	}
}

func within[T any](t testing.TB, ch <-chan T, d time.Duration) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(d):
		t.Errorf("nothing came within %v", d)
	}
	return v
}

// line is one line of the log.
type line map[string]any

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
		if l["msg"] == msg {
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
			t.Fatalf("got %v, want %d lines %q", j.lines, n, msg)
		}
	}
}

func (l line) text(key string) string { return strings.TrimSpace(fmt.Sprint(l[key])) }
