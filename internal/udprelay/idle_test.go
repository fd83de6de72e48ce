package udprelay

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// TestIdle ends a flow when nothing has come from either side for the idle time.
func TestIdle(t *testing.T) {
	e, lines := newEngine(t)
	ticks := new(clock)
	e.now = ticks.now
	p := newPeer(t, "127.0.0.1:0", true)
	const idle = time.Minute
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr), Idle: idle})
	c := open(t, "127.0.0.1:0")
	send(t, c, addrPort(f.conn), "1")
	src := p.sources(t, 1)[0]
	live := func() bool {
		e.expire()
		return e.Stats().Flows == 1
	}
	ticks.advance(idle - 1)
	if !live() {
		t.Fatal("ended before its time")
	}
	send(t, p.UDPConn, src, "an answer counts")
	receive(t, c)
	ticks.advance(idle - 1)
	if !live() {
		t.Fatal("ended in spite of the answer")
	}
	send(t, c, addrPort(f.conn), "2")
	p.sources(t, 2)
	ticks.advance(idle - 1)
	if !live() {
		t.Fatal("ended in spite of the client's datagram")
	}
	ticks.advance(1)
	if live() {
		t.Fatal("lives on")
	}
	until(t, "the flow's line", func() bool { return lines.count("msg=flow") == 1 })
	if lines.count("err=") != 0 {
		t.Errorf("want a clean end, log: %s", lines)
	}
	if n := e.Stats().Owners; n != 0 {
		t.Errorf("%d owners without a flow", n)
	}
}

// TestSweeper ends an idle flow by real time.
func TestSweeper(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	s := Settings{Dialer: always(t, dialer.Use{Kernel: true}), Target: to(p.addr)}
	f := forward(t, e, "127.0.0.1:0", &s)
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "1")
	short := s
	short.Idle = 50 * time.Millisecond
	f.Set(&short)
	until(t, "the flow ends", func() bool { return e.Stats().Flows == 0 })
}

func TestInterval(t *testing.T) {
	e, _ := newEngine(t)
	if e.once.Do(e.setUp); e.interval() != time.Second {
		t.Errorf("without a forward: %v", e.interval())
	}
	for idle, want := range map[time.Duration]time.Duration{time.Hour: time.Second, 4 * time.Second: time.Second / 2, 1: 10 * time.Millisecond, 0: time.Second} {
		f := forward(t, e, "127.0.0.1:0", &Settings{Idle: idle})
		if got := e.interval(); got != want {
			t.Errorf("idle %v: %v, want %v", idle, got, want)
		}
		f.Close()
	}
}

// TestEviction starts flows beyond the limits: the one that has been idle for the
// longest time goes, not the one that came first.
func TestEviction(t *testing.T) {
	for _, tt := range []struct {
		name       string
		limit, max int
	}{{"forward", 3, 0}, {"engine", 0, 3}} {
		t.Run(tt.name, func(t *testing.T) {
			e, lines := newEngine(t)
			ticks := new(clock)
			e.now = ticks.now
			e.SetMaxFlows(tt.max)
			p := newPeer(t, "127.0.0.1:0", false)
			f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr), Limit: tt.limit})
			cs := make([]*net.UDPConn, 5)
			use := func(i int) {
				if cs[i] == nil {
					cs[i] = open(t, "127.0.0.1:0")
				}
				ticks.advance(time.Second)
				echo(t, cs[i], addrPort(f.conn), fmt.Sprint(i))
			}
			for _, i := range []int{0, 1, 2, 0, 1, 3, 0, 4} {
				use(i)
			}
			for i, want := range []bool{true, false, false, true, true} {
				got := f.flow(key{addrPort(cs[i]), netip.MustParseAddr("127.0.0.1")}) != nil
				if got != want {
					t.Errorf("flow %d lives: %v, want %v", i, got, want)
				}
			}
			if s := e.Stats(); s.Evicted != 2 || s.Flows != 3 || s.Owners != 3 {
				t.Errorf("stats %+v", s)
			}
			if lines.count(ErrEvicted.Error()) != 2 {
				t.Errorf("log: %s", lines)
			}
		})
	}
}

// TestMaxFlows evicts from another forward, and shrinks to a lower bound.
func TestMaxFlows(t *testing.T) {
	e, _ := newEngine(t)
	ticks := new(clock)
	e.now = ticks.now
	p := newPeer(t, "127.0.0.1:0", false)
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2")})
	a := forward(t, e, "127.0.0.1:0", &Settings{Name: "a", Dialer: d, Target: to(p.addr)})
	b := forward(t, e, "127.0.0.1:0", &Settings{Name: "b", Dialer: d, Target: to(p.addr)})
	for range 4 {
		ticks.advance(1)
		echo(t, open(t, "127.0.0.1:0"), addrPort(a.conn), "x")
	}
	e.SetMaxFlows(2)
	ticks.advance(1)
	echo(t, open(t, "127.0.0.1:0"), addrPort(b.conn), "x")
	e.mu.Lock()
	if len(a.idle) != 1 || len(b.idle) != 1 || e.count != 2 {
		t.Errorf("%d and %d flows, want one each", len(a.idle), len(b.idle))
	}
	e.mu.Unlock()
}

// TestFlood keeps live flows while clients without number come by.
func TestFlood(t *testing.T) {
	e, _ := newEngine(t)
	e.Flows.SetLogging(false, false)
	e.SetMaxFlows(50)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr)})
	live := open(t, "127.0.0.1:0")
	for i := range 500 {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addrPort(f.conn)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("flood")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		echo(t, live, addrPort(f.conn), fmt.Sprint(i))
	}
	if s := e.Stats(); s.Flows > 50 || s.Owners > 50 || s.Evicted < 400 {
		t.Errorf("stats %+v", s)
	}
	if n := e.Flows.Len(); n > 50 {
		t.Errorf("%d flows are registered", n)
	}
}

// TestHeap compares oldest with a search through all flows.
func TestHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var h idleHeap
	var all []*flow
	for step := range 3000 {
		now := time.Duration(step)
		switch n := r.IntN(10); {
		case n < 3 || len(all) == 0:
			fl := new(flow)
			fl.use(now)
			h.add(fl)
			all = append(all, fl)
		case n < 8:
			all[r.IntN(len(all))].use(now)
		case n < 9:
			i := r.IntN(len(all))
			h.remove(all[i])
			all = append(all[:i], all[i+1:]...)
		}
		var want *flow
		for _, fl := range all {
			if want == nil || fl.lastUsed() < want.lastUsed() {
				want = fl
			}
		}
		if got := h.oldest(); got != want && (got == nil || want == nil || got.lastUsed() != want.lastUsed()) {
			t.Fatalf("step %d: got %v, want %v", step, got, want)
		}
	}
	for len(h) > 0 {
		heap.Pop(&h)
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	client := func(i int) refusal {
		return refusal{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), "listener", "rule"}
	}
	for _, tt := range []struct {
		at   time.Duration
		of   refusal
		want bool
	}{
		{0, client(1), true},
		{0, client(1), false},
		{500 * time.Millisecond, client(2), true},
		{999 * time.Millisecond, client(1), false},
		{time.Second, client(1), true},
		{time.Second, client(2), false}, // half a second only
		{1500 * time.Millisecond, client(2), true},
	} {
		if got := l.allow(tt.of, tt.at); got != tt.want {
			t.Errorf("%v at %v: %v, want %v", tt.of.client, tt.at, got, tt.want)
		}
	}
	n := 0
	for i := range 1000 {
		if l.allow(refusal{netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), "listener", "rule"}, time.Hour) {
			n++
		}
	}
	if n != maxRefusals || len(l.last) != maxRefusals {
		t.Errorf("%d lines in a second, %d kept, want %d", n, len(l.last), maxRefusals)
	}
}

// TestConcurrent starts, uses, ends and evicts flows of several forwards at once.
func TestConcurrent(t *testing.T) {
	e, _ := newEngine(t)
	e.Flows.SetLogging(false, false)
	e.SetMaxFlows(20)
	p, q := newPeer(t, "127.0.0.1:0", false), newPeer(t, "[::1]:0", false)
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2", "::1")})
	fs := []*Forward{
		forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr), Idle: 20 * time.Millisecond}),
		forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(q.addr), Limit: 5}),
		forward(t, e, "[::]:0", &Settings{Dialer: d, Target: to(p.addr)}),
	}
	stop := make(chan struct{})
	var all, meddler sync.WaitGroup
	meddler.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			e.Flows.CloseAll(flows.ErrClosed)
			e.Stats()
			fs[0].Set(fs[0].settings.Load())
		}
	})
	for i := range 6 {
		all.Go(func() {
			for range 30 {
				c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(at(fs[i%3], "127.0.0.1")))
				if err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					c.Write([]byte("x")) // may be lost to the meddler
				}
				c.Close()
			}
		})
	}
	all.Wait()
	close(stop)
	meddler.Wait()
	e.SetMaxFlows(0)
	c := open(t, "127.0.0.1:0")
	until(t, "an answer", func() bool { // the peer's buffer may be full still
		send(t, c, at(fs[2], "127.0.0.1"), "x")
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, _, err := c.ReadFromUDPAddrPort(make([]byte, 8))
		return err == nil && n == 1
	})
	if err := fs[1].Close(); err != nil {
		t.Error(err)
	}
}
