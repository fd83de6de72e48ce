package udprelay

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds each wait for something that is to happen.
const limit = 5 * time.Second

// record keeps the lines of the log.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *record) count(s string) int { return strings.Count(r.String(), s) }

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Duration
}

func (c *clock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t += d
}

// newEngine returns an engine whose flows leave their lines in the record.
func newEngine(t testing.TB) (*Engine, *record) {
	t.Helper()
	lines := new(record)
	log := slog.New(slog.NewTextHandler(lines, nil))
	e := &Engine{Flows: &flows.Registry{Log: log}, Log: log}
	e.Flows.SetLogging(true, true)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if n := e.Flows.Len(); n != 0 {
			t.Errorf("%d flows are registered after Close", n)
		}
		if s := e.Stats(); s.Flows != 0 || s.Owners != 0 {
			t.Errorf("after Close: %d flows, %d owners", s.Flows, s.Owners)
		}
	})
	return e, lines
}

// source returns a Source with that name and address, and perhaps the other family's.
func source(name string, addrs ...string) *dialer.Source {
	s := &dialer.Source{Name: name}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
	}
	return s
}

// always returns a Dialer by which all flows leave by u.
func always(t testing.TB, u dialer.Use) *dialer.Dialer {
	t.Helper()
	return byRules(t, []dialer.Rule{{Name: "the rule", Use: u}})
}

func byRules(t testing.TB, rules []dialer.Rule) *dialer.Dialer {
	t.Helper()
	table, err := dialer.NewTable(rules, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	return &dialer.Dialer{Table: table}
}

// forward serves s on address.
func forward(t testing.TB, e *Engine, address string, s *Settings) *Forward {
	t.Helper()
	if s.Name == "" {
		s.Name = "the forward"
	}
	f, err := e.Listen(t.Context(), netip.MustParseAddrPort(address), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Serve()
	return f
}

func to(p netip.AddrPort) dialer.Flow { return dialer.Flow{Dst: p} }

func addrPort(c interface{ LocalAddr() net.Addr }) netip.AddrPort {
	p := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// at returns address with the port that f listens on.
func at(f *Forward, address string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), f.port)
}

// peer is a far end that records who has spoken, and sends every datagram back.
type peer struct {
	*net.UDPConn
	addr netip.AddrPort
	mute bool // sends nothing back
	mu   sync.Mutex
	saw  []netip.AddrPort
	got  [][]byte
	news chan struct{}
}

func newPeer(t testing.TB, address string, mute bool) *peer {
	t.Helper()
	c := open(t, address)
	p := &peer{UDPConn: c, addr: addrPort(c), mute: mute, news: make(chan struct{}, 1)}
	done := make(chan struct{})
	go p.serve(done)
	t.Cleanup(func() { c.Close(); <-done })
	return p
}

func (p *peer) serve(done chan struct{}) {
	defer close(done)
	b := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.saw = append(p.saw, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		p.got = append(p.got, bytes.Clone(b[:n]))
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
		if !p.mute {
			p.WriteToUDPAddrPort(b[:n], from)
		}
	}
}

// sources returns the addresses from which n datagrams came.
func (p *peer) sources(t testing.TB, n int) []netip.AddrPort {
	t.Helper()
	deadline := time.After(limit)
	for {
		p.mu.Lock()
		saw := append([]netip.AddrPort(nil), p.saw...)
		p.mu.Unlock()
		if len(saw) >= n {
			return saw
		}
		select {
		case <-p.news:
		case <-deadline:
			t.Fatalf("the peer saw %d datagrams, want %d", len(saw), n)
		}
	}
}

// open returns a socket for a client, closed with the test.
func open(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t testing.TB, c *net.UDPConn, to netip.AddrPort, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next datagram and where it came from.
func receive(t testing.TB, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return string(b[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// echo sends text to asked, and wants it back from there.
func echo(t testing.TB, c *net.UDPConn, asked netip.AddrPort, text string) {
	t.Helper()
	send(t, c, asked, text)
	if got, from := receive(t, c); got != text || from != asked {
		t.Fatalf("asked %v: got %.20q from %v, want %.20q", asked, got, from, text)
	}
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func dropped(e *Engine, d Drop) int { return int(e.Stats().Dropped[d]) }

// freePort returns a port that is free on address now.
func freePort(t testing.TB, address string) uint16 {
	t.Helper()
	for range 100 {
		// Below the ephemeral ports: one of those may be somebody's local port by the time it is used.
		port := uint16(10000 + rand.IntN(20000))
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), port)))
		if err == nil {
			c.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// resolver answers from a map; a missing name is not found.
type resolver struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	asked atomic.Int32
	gate  chan struct{} // if set, look-ups of "slow.example" wait for its close
}

func (r *resolver) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if host == "slow.example" {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked.Add(1)
	if a := r.names[host]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}
