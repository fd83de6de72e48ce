package udprelay

import (
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestAssociateStrangers drops what comes from others than the client and those it
// has sent to.
func TestAssociateStrangers(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c, other := open(t, "127.0.0.9:0"), open(t, "127.0.0.8:0")
	send(t, other, a.Addr(), datagram(p.addr, "another address"))
	through(t, c, a, p.addr, "ping")
	second := open(t, "127.0.0.9:0")
	send(t, second, a.Addr(), datagram(p.addr, "another port"))
	through(t, c, a, p.addr, "ping")
	if n := dropped(e, NotClient); n != 2 {
		t.Errorf("%d are counted as not the client's, want 2", n)
	}
	from := p.sources(t, 2)[0]
	send(t, other, from, "a stranger outside")
	until(t, "the stranger is dropped", func() bool { return dropped(e, Stranger) == 1 })
	through(t, c, a, p.addr, "ping")
	if n := p.count(); n != 3 {
		t.Errorf("the peer got %d datagrams, want 3", n)
	}
}

// TestAssociateFilter tells who may answer.
func TestAssociateFilter(t *testing.T) {
	for _, tt := range []struct {
		filter            Filter
		port, addr, local bool // from another port, another address, to another address of ours
	}{
		{FilterAddress, true, false, true},
		{FilterAddressAndPort, false, false, true},
		{FilterNone, true, true, false},
	} {
		t.Run(tt.filter.String(), func(t *testing.T) {
			e, _ := newEngine(t)
			p := newPeer(t, "127.0.0.11:0", false)
			a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), func(s *AssociateSettings) { s.Filter = tt.filter })
			c := open(t, "127.0.0.9:0")
			through(t, c, a, p.addr, "ping")
			at := p.sources(t, 1)[0]
			elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), at.Port())
			for _, from := range []struct {
				name, address string
				to            netip.AddrPort
				in            bool
			}{
				{"another port", "127.0.0.11:0", at, tt.port},
				{"another address", "127.0.0.12:0", at, tt.addr},
			} {
				s := open(t, from.address)
				before := dropped(e, Stranger)
				send(t, s, from.to, from.name)
				if from.in {
					if got, who := hear(t, c, a); got != from.name || who != addrPort(s) {
						t.Errorf("got %q from %v, want %q from %v", got, who, from.name, addrPort(s))
					}
					continue
				}
				until(t, from.name+" is dropped", func() bool { return dropped(e, Stranger) == before+1 })
			}
			before := dropped(e, Stranger)
			send(t, p.UDPConn, elsewhere, "to another address of ours")
			if tt.local {
				hear(t, c, a)
			} else {
				until(t, "it is dropped", func() bool { return dropped(e, Stranger) == before+1 })
			}
		})
	}
}

// TestAssociateKernel leaves the source to the kernel where a rule says so; with the
// filter none, everybody may answer then.
func TestAssociateKernel(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	d := always(t, dialer.Use{Kernel: true})
	a := associate(t, e, d, func(s *AssociateSettings) { s.Filter = FilterNone })
	c, other := open(t, "127.0.0.9:0"), open(t, "127.0.0.12:0")
	through(t, c, a, p.addr, "ping")
	at := p.sources(t, 1)[0]
	if want := kernelSource(p.addr); at.Addr() != want {
		t.Errorf("the peer was called from %v, want the kernel's %v", at, want)
	}
	send(t, other, at, "anybody")
	if got, from := hear(t, c, a); got != "anybody" || from != addrPort(other) {
		t.Errorf("got %q from %v", got, from)
	}
}

func TestParseFilter(t *testing.T) {
	for _, f := range []Filter{FilterAddress, FilterAddressAndPort, FilterNone} {
		if got, err := ParseFilter(f.String()); got != f || err != nil {
			t.Errorf("ParseFilter(%q) = %v, %v", f, got, err)
		}
	}
	if f, err := ParseFilter("all"); err == nil {
		t.Errorf("ParseFilter took a word that is none, as %v", f)
	}
}

// TestAssociatePort takes datagrams from the announced port only.
func TestAssociatePort(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	c, other := open(t, "127.0.0.9:0"), open(t, "127.0.0.9:0")
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), func(s *AssociateSettings) { s.Port = addrPort(c).Port() })
	send(t, other, a.Addr(), datagram(p.addr, "first, but not announced"))
	until(t, "it is dropped", func() bool { return dropped(e, NotClient) == 1 })
	through(t, c, a, p.addr, "ping")
}

// TestAssociateIdle lets destinations be silent: those that answer stay, the others are
// forgotten, and so nothing comes in from them any more. A name is looked up again.
func TestAssociateIdle(t *testing.T) {
	e, _ := newEngine(t)
	clock := new(clock)
	e.now = clock.now
	silent, talking := newPeer(t, "127.0.0.11:0", false), newPeer(t, "127.0.0.12:0", false)
	d := always(t, useOf("wan1", "127.0.0.2"))
	names := &resolver{names: map[string][]netip.Addr{"silent.example": {silent.addr.Addr()}}}
	d.Resolver = names
	a := associate(t, e, d, func(s *AssociateSettings) { s.Idle = 80 * time.Millisecond })
	c := open(t, "127.0.0.9:0")
	byName := func() {
		t.Helper()
		send(t, c, a.Addr(), named("silent.example", silent.addr.Port(), "hello"))
		if _, from := hear(t, c, a); from != silent.addr {
			t.Fatalf("an answer of %v, want %v", from, silent.addr)
		}
	}
	byName()
	byName()
	through(t, c, a, talking.addr, "hello")
	outside := talking.sources(t, 1)[0]
	clock.advance(79 * time.Millisecond)
	send(t, talking.UDPConn, outside, "I talk")
	hear(t, c, a)
	clock.advance(2 * time.Millisecond)
	until(t, "the silent one is forgotten", func() bool { return e.Stats().Destinations == 1 })
	send(t, silent.UDPConn, outside, "too late")
	until(t, "it is not let in", func() bool { return dropped(e, Stranger) == 1 })
	send(t, talking.UDPConn, outside, "I still talk")
	if got, _ := hear(t, c, a); got != "I still talk" {
		t.Errorf("got %q", got)
	}
	if n := names.asked.Load(); n != 1 {
		t.Errorf("%d look-ups, want 1", n)
	}
	byName()
	if n := names.asked.Load(); n != 2 {
		t.Errorf("%d look-ups, want 2", n)
	}
}
