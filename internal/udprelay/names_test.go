package udprelay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

func byName(name string, p *peer) dialer.Flow {
	return dialer.Flow{Name: name, Dst: netip.AddrPortFrom(netip.Addr{}, p.addr.Port())}
}

func TestName(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	r := &resolver{names: map[string][]netip.Addr{"sip.example": {netip.MustParseAddr("::ffff:127.0.0.1")}}}
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2")})
	d.Resolver = r
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("sip.example", p)})
	c := open(t, "127.0.0.1:0")
	for i := range 3 {
		echo(t, c, addrPort(f.conn), fmt.Sprint(i))
	}
	if n := r.asked.Load(); n != 1 {
		t.Errorf("resolved %d times, want once", n)
	}
	if i := e.Flows.All()[0].Info; i.Name != "sip.example" || i.Dst != p.addr {
		t.Errorf("info %+v", i)
	}
	for _, a := range p.sources(t, 3) {
		if a.Addr().String() != "127.0.0.2" {
			t.Errorf("the peer saw %v", a)
		}
	}
}

// TestNameSlow keeps the first datagrams, in order, and holds up nobody else.
func TestNameSlow(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	r := &resolver{names: map[string][]netip.Addr{"slow.example": {p.addr.Addr()}}, gate: make(chan struct{})}
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2")})
	d.Resolver = r
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("slow.example", p)})
	c := open(t, "127.0.0.1:0")
	for i := range maxQueued + 2 {
		send(t, c, addrPort(f.conn), fmt.Sprint(i))
	}
	until(t, "two are too many", func() bool { return dropped(e, Waiting) == 2 })
	f.Set(&Settings{Dialer: d, Target: to(p.addr)})
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "not held up")
	close(r.gate)
	for i := range maxQueued {
		if got, _ := receive(t, c); got != fmt.Sprint(i) {
			t.Fatalf("answer %d is %q", i, got)
		}
	}
	f.names.mu.Lock()
	defer f.names.mu.Unlock()
	if len(f.names.waiting) != 0 || f.names.bytes != 0 {
		t.Errorf("%d flows and %d bytes wait", len(f.names.waiting), f.names.bytes)
	}
}

// TestNameBounds has more clients, and more bytes, wait than may.
func TestNameBounds(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	d := always(t, dialer.Use{Kernel: true})
	d.Resolver = &resolver{gate: make(chan struct{})}
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("slow.example", p)})
	for i := range maxWaiting + 3 {
		send(t, open(t, "127.0.0.1:0"), addrPort(f.conn), fmt.Sprint(i))
	}
	until(t, "three clients are too many", func() bool { return dropped(e, Waiting) == 3 })
	f.names.mu.Lock()
	var o *opening
	for _, w := range f.names.waiting {
		o = &w.opening
	}
	queued := f.names.bytes
	f.names.bytes = maxQueuedBytes - 1
	f.names.mu.Unlock()
	f.wait(o, make([]byte, 2))
	f.wait(o, make([]byte, 1))
	if n := dropped(e, Waiting); n != 4 {
		t.Errorf("%d dropped, want 4: the bytes are too many", n)
	}
	f.names.mu.Lock()
	defer f.names.mu.Unlock()
	f.names.bytes = queued + 1
}

func TestNameFails(t *testing.T) {
	e, lines := newEngine(t)
	ticks := new(clock)
	e.now = ticks.now
	p := newPeer(t, "127.0.0.1:0", false)
	r := &resolver{names: map[string][]netip.Addr{}}
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2")})
	d.Resolver = r
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("new.example", p)})
	c := open(t, "127.0.0.1:0")
	send(t, c, addrPort(f.conn), "1")
	until(t, "it is dropped", func() bool { return dropped(e, Unresolved) == 1 })
	if lines.count("no such host") != 1 || lines.count("name=new.example") != 1 {
		t.Errorf("log: %s", lines)
	}
	r.mu.Lock()
	r.names["new.example"] = []netip.Addr{p.addr.Addr()}
	r.mu.Unlock()
	send(t, c, addrPort(f.conn), "2")
	until(t, "no look-up so soon", func() bool { return dropped(e, Unresolved) == 2 })
	ticks.advance(lookupPause)
	echo(t, c, addrPort(f.conn), "3")
	f.Set(&Settings{Dialer: d, Target: byName("other.example", p)})
	other := open(t, "127.0.0.1:0")
	send(t, other, addrPort(f.conn), "4")
	until(t, "it is dropped", func() bool { return dropped(e, Unresolved) == 3 })
	f.Set(&Settings{Dialer: d, Target: byName("new.example", p)})
	echo(t, other, addrPort(f.conn), "new settings are tried at once")
	if n := r.asked.Load(); n != 4 {
		t.Errorf("%d look-ups, want 4", n)
	}
}

// TestNameJudged judges each address of a name, and takes the first that may be used.
func TestNameJudged(t *testing.T) {
	inside, outside := dialer.MatchPrefix(netip.MustParsePrefix("127.0.0.1/32")), dialer.MatchPrefix(netip.MustParsePrefix("127.0.0.9/32"))
	rules := []dialer.Rule{
		{Name: "inside", To: []dialer.Match{inside}, Use: dialer.Use{}},
		{Name: "outside", To: []dialer.Match{outside}, Use: dialer.Use{Source: source("s", "127.0.0.2")}},
	}
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.9:0", false)
	d := byRules(t, rules)
	d.Resolver = &resolver{names: map[string][]netip.Addr{
		"both.example": {netip.MustParseAddr("127.0.0.1"), p.addr.Addr()},
		"in.example":   {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.5")},
	}}
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("both.example", p)})
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "1")
	g := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("in.example", p)})
	send(t, open(t, "127.0.0.1:0"), addrPort(g.conn), "2")
	until(t, "it is refused", func() bool { return dropped(e, Refused) == 1 })
	if lines.count(`rule \"inside\": denied`) != 1 || lines.count("default: denied") != 1 {
		t.Errorf("want both reasons, log: %s", lines)
	}
	h := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{}), Target: byName("denied.example", p)})
	send(t, open(t, "127.0.0.1:0"), addrPort(h.conn), "3")
	until(t, "it is refused", func() bool { return dropped(e, Refused) == 2 })
}

// TestNameAtClose closes a forward while a name is being resolved.
func TestNameAtClose(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	d := always(t, dialer.Use{Kernel: true})
	d.Resolver = &resolver{gate: make(chan struct{})}
	d.Timeout = time.Hour
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: byName("slow.example", p)})
	send(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "1")
	until(t, "it waits", func() bool {
		f.names.mu.Lock()
		defer f.names.mu.Unlock()
		return len(f.names.waiting) == 1
	})
	f.Close()
	if dropped(e, Draining) != 1 || lines.count("msg=flow") != 0 {
		t.Errorf("%+v, log: %s", e.Stats(), lines)
	}
}
