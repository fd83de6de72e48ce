package udprelay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

func TestForwardLeavesFromSource(t *testing.T) {
	for _, tt := range []struct {
		name, listen, peer, client string
		use                        dialer.Use
		want                       string
	}{
		{"v4", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", dialer.Use{Source: source("s", "127.0.0.2")}, "127.0.0.2"},
		{"v6", "[::1]:0", "[::1]:0", "[::1]:0", dialer.Use{Source: source("s", "::1")}, "::1"},
		{"v6 to v4", "[::1]:0", "127.0.0.1:0", "[::1]:0", dialer.Use{Source: source("s", "127.0.0.3", "::1")}, "127.0.0.3"},
		{"kernel", "127.0.0.1:0", "127.0.0.9:0", "127.0.0.1:0", dialer.Use{Kernel: true}, "127.0.0.1"},
		{"kernel v6", "127.0.0.1:0", "[::1]:0", "127.0.0.1:0", dialer.Use{Kernel: true}, "::1"},
		{"range", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", dialer.Use{Source: &dialer.Source{
			Name:  "r",
			First: netip.MustParseAddr("127.0.0.77"), Last: netip.MustParseAddr("127.0.0.77"),
		}}, "127.0.0.77"},
		{"prefix", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", dialer.Use{Source: &dialer.Source{
			Name:   "p",
			Prefix: netip.MustParsePrefix("127.0.0.78/32"),
		}}, "127.0.0.78"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, lines := newEngine(t)
			p := newPeer(t, tt.peer, false)
			f := forward(t, e, tt.listen, &Settings{Dialer: always(t, tt.use), Target: to(p.addr)})
			c := open(t, tt.client)
			echo(t, c, addrPort(f.conn), "hello")
			echo(t, c, addrPort(f.conn), "again")
			saw := p.sources(t, 2)
			if saw[0].Addr().String() != tt.want || saw[0] != saw[1] {
				t.Errorf("the peer saw %v, want twice from %s", saw, tt.want)
			}
			live := e.Flows.All()
			if len(live) != 1 {
				t.Fatalf("%d flows, want 1", len(live))
			}
			want := flows.Info{
				Listener: "the forward", Client: addrPort(c), Network: "udp", Dst: p.addr,
				Rule: "the rule", Source: tt.use.String(), Src: saw[0],
			}
			if live[0].Info != want {
				t.Errorf("info %+v, want %+v", live[0].Info, want)
			}
			until(t, "counted", func() bool { return live[0].Up.Load() == 10 && live[0].Down.Load() == 10 })
			if s := e.Stats(); s.Up != 2 || s.Down != 2 || s.Flows != 1 || s.Owners != 1 {
				t.Errorf("stats %+v", s)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if lines.count("msg=flow") != 1 || lines.count("in=10 out=10") != 1 {
				t.Errorf("log: %s", lines)
			}
		})
	}
}

// TestSizes relays datagrams whole, the empty and the largest one included.
func TestSizes(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr)})
	c := open(t, "127.0.0.1:0")
	for _, n := range []int{0, 1, 2, 4, 1472, 4096, 9000, 65507} {
		echo(t, c, addrPort(f.conn), strings.Repeat("x", n))
	}
}

// TestAsked has a client ask each of 8 addresses of a wildcard listener.
func TestAsked(t *testing.T) {
	v4 := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8"}
	for _, tt := range []struct {
		listen string
		asked  []string
	}{
		{"0.0.0.0:0", v4},
		{"[::]:0", append([]string{"::1"}, v4...)},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			e, _ := newEngine(t)
			p := newPeer(t, "127.0.0.1:0", false)
			f := forward(t, e, tt.listen, &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr)})
			c := open(t, "127.0.0.1:0")
			c6 := open(t, "[::1]:0")
			for round := range 2 {
				for _, a := range tt.asked {
					from := c
					if a == "::1" {
						from = c6
					}
					echo(t, from, at(f, a), fmt.Sprint(a, round))
				}
			}
			if n := e.Stats().Flows; n != len(tt.asked) {
				t.Errorf("%d flows, want %d", n, len(tt.asked))
			}
			saw := p.sources(t, 2*len(tt.asked))
			slices.SortFunc(saw, netip.AddrPort.Compare)
			if n := len(slices.Compact(saw)); n != len(tt.asked) {
				t.Errorf("the peer saw %d ports, want one for each flow: %d", n, len(tt.asked))
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings Settings
		use      dialer.Use
		want     string
	}{
		{"deny", Settings{}, dialer.Use{}, "denied"},
		{"family", Settings{}, dialer.Use{Source: source("six", "::1")}, "no IPv4 address"},
		{"absent", Settings{}, dialer.Use{Source: source("gone", "192.0.2.1")}, "192.0.2.1 is not on this host"},
		{"client", Settings{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.8/29")}}, dialer.Use{Kernel: true}, ErrNotAllowed.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, lines := newEngine(t)
			e.now = new(clock).now
			p := newPeer(t, "127.0.0.1:0", false)
			s := tt.settings
			s.Dialer, s.Target = always(t, tt.use), to(p.addr)
			f := forward(t, e, "127.0.0.1:0", &s)
			c := open(t, "127.0.0.1:0")
			for range 50 {
				send(t, c, addrPort(f.conn), "x")
			}
			until(t, "50 datagrams are dropped", func() bool { return dropped(e, Refused) == 50 })
			if lines.count("msg=flow") != 1 || lines.count(tt.want) != 1 {
				t.Errorf("want one line with %q, got: %s", tt.want, lines)
			}
			if s := e.Stats(); s.Up != 0 || s.Owners != 0 {
				t.Errorf("stats %+v, want nothing sent and no socket", s)
			}
		})
	}
}

func TestAllowed(t *testing.T) {
	s := &Settings{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/30"), netip.MustParsePrefix("fe80::/10")}}
	for client, want := range map[string]bool{"127.0.0.3": true, "127.0.0.4": false, "fe80::1%3": true, "::1": false} {
		if got := s.allows(netip.MustParseAddr(client)); got != want {
			t.Errorf("%s: %v, want %v", client, got, want)
		}
	}
}

func TestSet(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("a", "127.0.0.2")}), Target: to(p.addr)})
	first, second := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	echo(t, first, addrPort(f.conn), "1")
	f.Set(&Settings{Name: "new", Dialer: always(t, dialer.Use{Source: source("b", "127.0.0.3")}), Target: to(p.addr)})
	echo(t, first, addrPort(f.conn), "2")
	echo(t, second, addrPort(f.conn), "3")
	saw := p.sources(t, 3)
	if saw[0] != saw[1] || saw[2].Addr().String() != "127.0.0.3" {
		t.Errorf("the peer saw %v", saw)
	}
}

func TestDrain(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Kernel: true}), Target: to(p.addr)})
	first, second := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	echo(t, first, addrPort(f.conn), "1")
	f.Drain()
	send(t, second, addrPort(f.conn), "no")
	until(t, "the new client is dropped", func() bool { return dropped(e, Draining) == 1 })
	echo(t, first, addrPort(f.conn), "2")
	if n := e.Stats().Flows; n != 1 {
		t.Errorf("%d flows", n)
	}
}

func TestClose(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Kernel: true}), Target: to(p.addr)})
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "1")
	a := addrPort(f.conn)
	waited := make(chan struct{})
	go func() { defer close(waited); f.Wait() }()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	<-waited
	if err := f.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if lines.count(flows.ErrClosed.Error()) != 1 {
		t.Errorf("log: %s", lines)
	}
	open(t, a.String()) // the port is free at once
	f.Serve()
	f.Set(f.settings.Load())
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := e.Listen(t.Context(), a, &Settings{}, nil); !isClosed(err) {
		t.Errorf("Listen after Close: %v", err)
	}
}

// TestCloseByRegistry ends a flow as an operator does; the next datagram starts a new one.
func TestCloseByRegistry(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("a", "127.0.0.2")}), Target: to(p.addr)})
	c := open(t, "127.0.0.1:0")
	echo(t, c, addrPort(f.conn), "1")
	e.Flows.CloseAll(flows.ErrDrained)
	if e.Flows.Len() != 0 || e.Stats().Owners != 0 || lines.count(flows.ErrDrained.Error()) != 1 {
		t.Errorf("%d flows, %+v, log: %s", e.Flows.Len(), e.Stats(), lines)
	}
	echo(t, c, addrPort(f.conn), "2")
}

func TestLoop(t *testing.T) {
	for _, u := range []dialer.Use{{Kernel: true}, {Source: source("a", "127.0.0.2")}} {
		t.Run(u.String(), func(t *testing.T) {
			e, lines := newEngine(t)
			a := forward(t, e, "127.0.0.1:0", &Settings{Name: "a", Dialer: always(t, dialer.Use{})})
			b := forward(t, e, "127.0.0.1:0", &Settings{Name: "b", Dialer: always(t, u), Target: to(addrPort(a.conn))})
			a.Set(&Settings{Name: "a", Dialer: always(t, u), Target: to(addrPort(b.conn))})
			send(t, open(t, "127.0.0.1:0"), addrPort(a.conn), "round and round")
			until(t, "the third flow is refused", func() bool { return dropped(e, Refused) == 1 })
			if n := e.Stats().Flows; n != 2 || lines.count(ErrLoop.Error()) != 1 {
				t.Errorf("%d flows, log: %s", n, lines)
			}
		})
	}
}

// TestChain leads through two forwards, which is no loop.
func TestChain(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	d := always(t, dialer.Use{Source: source("a", "127.0.0.2")})
	b := forward(t, e, "127.0.0.1:0", &Settings{Name: "b", Dialer: d, Target: to(p.addr)})
	a := forward(t, e, "127.0.0.1:0", &Settings{Name: "a", Dialer: d, Target: to(addrPort(b.conn))})
	echo(t, open(t, "127.0.0.1:0"), addrPort(a.conn), "through both")
}

func TestStranger(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("a", "127.0.0.2")}), Target: to(p.addr)})
	c := open(t, "127.0.0.1:0")
	echo(t, c, addrPort(f.conn), "1")
	src := p.sources(t, 1)[0]
	send(t, open(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), p.addr.Port()).String()), src, "same port, other address")
	send(t, open(t, "127.0.0.1:0"), src, "other port, same address")
	until(t, "both are dropped", func() bool { return dropped(e, Stranger) == 2 })
	echo(t, c, addrPort(f.conn), "2") // and not what the strangers sent
}

// TestICMP has one flow of an owner lead to a closed port while another one works.
func TestICMP(t *testing.T) {
	e, lines := newEngine(t)
	ticks := new(clock)
	e.now = ticks.now
	p := newPeer(t, "127.0.0.1:0", false)
	d := always(t, dialer.Use{Source: source("a", "127.0.0.2")})
	closed := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t, "127.0.0.1"))
	bad := forward(t, e, "127.0.0.1:0", &Settings{Name: "bad", Dialer: d, Target: to(closed)})
	good := forward(t, e, "127.0.0.1:0", &Settings{Name: "good", Dialer: d, Target: to(p.addr)})
	c, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	for i := range 200 {
		send(t, b, addrPort(bad.conn), "nobody is there")
		echo(t, c, addrPort(good.conn), fmt.Sprint(i))
	}
	if s := e.Stats(); s.Owners != 1 || s.Flows != 2 || s.Dropped[Unsent] != 0 {
		t.Errorf("stats %+v, want one owner, two flows and all sent", s)
	}
	until(t, "the errors are counted", func() bool { return e.Stats().ICMP >= 100 })
	until(t, "both flows end", func() bool { // a datagram may still be on its way
		ticks.advance(defaultIdle)
		e.expire()
		return lines.count("msg=flow") == 2
	})
	for line := range strings.SplitSeq(strings.TrimSpace(lines.String()), "\n") {
		if strings.Contains(line, "ICMP errors") != strings.Contains(line, "listener=bad") {
			t.Errorf("charged to the wrong flow: %s", line)
		}
	}
}

func TestListenErrors(t *testing.T) {
	e, _ := newEngine(t)
	held := open(t, "127.0.0.1:0")
	_, err := e.Listen(t.Context(), addrPort(held), &Settings{}, nil)
	if !isInUse(err) || !strings.Contains(err.Error(), "ss -ulnp") {
		t.Errorf("error %v, want EADDRINUSE with a cure", err)
	}
	if _, err := e.Listen(t.Context(), netip.MustParseAddrPort("192.0.2.1:53"), &Settings{}, nil); err == nil {
		t.Error("listens on an address that is not here")
	}
	var f *Forward
	if f, err = e.Listen(t.Context(), netip.AddrPort{}, &Settings{}, nil); err != nil {
		t.Fatal(err)
	}
	if a := f.Addr().(*net.UDPAddr); !a.IP.IsUnspecified() || a.Port == 0 {
		t.Errorf("listens on %v", a)
	}
}
