package udprelay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// TestFixedPort has two forwards share S:port, since their peers differ.
func TestFixedPort(t *testing.T) {
	e, _ := newEngine(t)
	port := freePort(t, "127.0.0.2")
	d := always(t, dialer.Use{Source: source("voip", "127.0.0.2")})
	want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)
	for range 2 {
		p := newPeer(t, "127.0.0.1:0", false)
		f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr), SourcePort: port})
		echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "hello")
		if saw := p.sources(t, 1)[0]; saw != want {
			t.Errorf("the peer saw %v, want %v", saw, want)
		}
	}
	if n := e.Stats().Owners; n != 1 {
		t.Errorf("%d owners, want 1", n)
	}
}

// TestPortOfRule fixes the port by a rule, and holds it only while a flow lives.
func TestPortOfRule(t *testing.T) {
	e, _ := newEngine(t)
	port := freePort(t, "127.0.0.2")
	p := newPeer(t, "127.0.0.1:0", false)
	d := byRules(t, []dialer.Rule{{Use: dialer.Use{Source: source("voip", "127.0.0.2")}, SourcePort: port}})
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr)})
	c := open(t, "127.0.0.1:0")
	for i := range 20 { // the port is closed and opened again at once
		echo(t, c, addrPort(f.conn), fmt.Sprint(i))
		if saw := p.sources(t, i+1)[i]; saw.Port() != port {
			t.Fatalf("the peer saw %v, want port %d", saw, port)
		}
		e.Flows.CloseAll(flows.ErrClosed)
		if n := e.Stats().Owners; n != 0 {
			t.Fatalf("%d owners without a flow", n)
		}
	}
}

func TestClash(t *testing.T) {
	e, lines := newEngine(t)
	port := freePort(t, "127.0.0.2")
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("voip", "127.0.0.2")}), Target: to(p.addr), SourcePort: port})
	first, second := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	echo(t, first, addrPort(f.conn), "1")
	send(t, second, addrPort(f.conn), "never relayed")
	until(t, "the second client is refused", func() bool { return dropped(e, Refused) == 1 })
	echo(t, first, addrPort(f.conn), "2")
	for _, part := range []string{ErrPortTaken.Error(), "source_port", addrPort(first).String(), "client=" + addrPort(second).String()} {
		if !strings.Contains(lines.String(), part) {
			t.Errorf("no %q in the log: %s", part, lines)
		}
	}
	if n := len(p.sources(t, 2)); n != 2 {
		t.Errorf("the peer saw %d datagrams, want 2", n)
	}
}

// TestHoldSame holds no port where each client names the source by the address it asks,
// and does not warn of one that is missing.
func TestHoldSame(t *testing.T) {
	e, lines := newEngine(t)
	f := forward(t, e, "127.0.0.1:0", &Settings{
		Dialer: always(t, dialer.Use{Same: true}), Target: to(netip.MustParseAddrPort("127.0.0.2:5060")), SourcePort: freePort(t, "127.0.0.1"),
	})
	if f.isMissing() || lines.String() != "" {
		t.Errorf("missing: %v, log: %s", f.isMissing(), lines)
	}
}

// TestHold keeps a fixed port from the start to the end of the forward that names it.
func TestHold(t *testing.T) {
	e, lines := newEngine(t)
	port := freePort(t, "127.0.0.2")
	held := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)
	isFree := func() bool {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(held))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	p := newPeer(t, "127.0.0.1:0", false)
	s := Settings{Dialer: always(t, dialer.Use{Source: source("voip", "127.0.0.2")}), Target: to(p.addr), SourcePort: port}
	f := forward(t, e, "127.0.0.1:0", &s)
	if isFree() {
		t.Error("the port is free after Serve")
	}
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "1")
	e.Flows.CloseAll(flows.ErrClosed)
	if isFree() {
		t.Error("the port is free without a flow")
	}
	again := s
	f.Set(&again)
	if isFree() {
		t.Error("the port is free without a flow, after Set")
	}
	other := s
	other.SourcePort = 0
	f.Set(&other)
	until(t, "the port is given back", isFree)
	squatter := open(t, held.String())
	f.Set(&s)
	if lines.count("source port is not there yet") != 1 {
		t.Errorf("log: %s", lines)
	}
	send(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "x")
	until(t, "refused", func() bool { return dropped(e, Refused) == 1 })
	if lines.count("ss -ulnp") != 2 || lines.count(dialer.ErrPorts.Error()) != 2 {
		t.Errorf("log: %s", lines)
	}
	squatter.Close()
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "the port is taken for the next flow")
	f.Close()
	until(t, "the port is given back", isFree)
}

// TestBeside takes S:port beside our own wildcard listener with that port, and leaves
// it to nobody else.
func TestBeside(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	d := always(t, dialer.Use{Source: source("voip", "127.0.0.2")})
	f := forward(t, e, "0.0.0.0:0", &Settings{Dialer: d, Target: to(p.addr)})
	f.Set(&Settings{Dialer: d, Target: to(p.addr), SourcePort: f.port})
	c := open(t, "127.0.0.1:0")
	echo(t, c, at(f, "127.0.0.3"), "hello")
	if saw := p.sources(t, 1)[0]; saw != at(f, "127.0.0.2") {
		t.Errorf("the peer saw %v", saw)
	}
	for _, c := range []*pktinfo.Conn{f.conn, e.owners[at(f, "127.0.0.2")].conn} {
		if option(t, c, unix.SOL_SOCKET, unix.SO_REUSEADDR) != 0 {
			t.Errorf("%v may be bound beside", c.LocalAddr())
		}
	}
	reuse := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setReuseAddr(c, 1) }}
	for _, a := range []string{"127.0.0.2", "127.0.0.4", "0.0.0.0"} {
		if c, err := reuse.ListenPacket(t.Context(), "udp", at(f, a).String()); !isInUse(err) {
			t.Errorf("another socket on %s: %v", a, err)
			if err == nil {
				c.Close()
			}
		}
	}
}

func option(t *testing.T, c *pktinfo.Conn, level, name int) (v int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) { v, inner = unix.GetsockoptInt(int(fd), level, name) })
	if err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return v
}

// TestOptions looks at what the sockets of owners may do: fragment, and, for prefixes
// only, send from addresses that are on no interface.
func TestOptions(t *testing.T) {
	e, _ := newEngine(t)
	e.once.Do(e.setUp)
	for _, tt := range []struct {
		source   *dialer.Source
		freeBind int
	}{
		{source("plain", "127.0.0.2"), 0},
		{&dialer.Source{Name: "free", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.3")}, FreeBind: true}, 1},
		{&dialer.Source{Name: "prefix", Prefix: netip.MustParsePrefix("192.0.2.7/32")}, 1},
	} {
		d := always(t, dialer.Use{Source: tt.source})
		p := netip.MustParseAddrPort("127.0.0.1:9")
		dec := d.Decide(dialer.Flow{Network: "udp", Dst: p})
		r := routeOf(&dec, p, 0)
		r.counts = e.tallies.of("the forward")
		e.mu.Lock()
		o, err := e.ownerFor(r)
		e.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if got := option(t, o.conn, unix.IPPROTO_IP, unix.IP_FREEBIND); got != tt.freeBind {
			t.Errorf("%s: IP_FREEBIND %d, want %d", tt.source.Name, got, tt.freeBind)
		}
		if got := option(t, o.conn, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER); got != unix.IP_PMTUDISC_DONT {
			t.Errorf("%s: IP_MTU_DISCOVER %d", tt.source.Name, got)
		}
		e.mu.Lock()
		e.release(o)
		e.mu.Unlock()
	}
}

// TestSharedOwner has flows of one source to different peers share a port, and
// clients of one peer have a port each.
func TestSharedOwner(t *testing.T) {
	e, _ := newEngine(t)
	d := always(t, dialer.Use{Source: source("s", "127.0.0.2")})
	const clients, targets = 10, 5
	var fs []*Forward
	var ps []*peer
	for range targets {
		p := newPeer(t, "127.0.0.1:0", false)
		ps = append(ps, p)
		fs = append(fs, forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr)}))
	}
	for range clients {
		c := open(t, "127.0.0.1:0")
		for _, f := range fs {
			echo(t, c, addrPort(f.conn), fmt.Sprint(addrPort(c)))
		}
	}
	if s := e.Stats(); s.Flows != clients*targets || s.Owners != clients {
		t.Errorf("%d flows, %d owners, want %d and %d", s.Flows, s.Owners, clients*targets, clients)
	}
	for _, p := range ps {
		seen := map[netip.AddrPort]bool{}
		for _, a := range p.sources(t, clients) {
			if seen[a] {
				t.Errorf("4-tuple %v to %v twice", a, p.addr)
			}
			seen[a] = true
		}
	}
}

func TestPorts(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	s := source("batch", "127.0.0.2")
	lo := min(freePort(t, "127.0.0.2"), 65533)
	s.Ports = dialer.PortRange{Lo: lo, Hi: lo + 2}
	foreign := open(t, netip.AddrPortFrom(s.Addrs[0], lo+1).String())
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: s}), Target: to(p.addr)})
	for range 2 {
		echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "x")
	}
	for _, a := range p.sources(t, 2) {
		if !s.Ports.Contains(a.Port()) || a == addrPort(foreign) {
			t.Errorf("the peer saw %v", a)
		}
	}
	send(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "x")
	until(t, "the third is refused", func() bool { return dropped(e, Refused) == 1 })
	if lines.count(dialer.ErrPorts.Error()) != 1 || lines.count(s.Ports.String()) != 1 || lines.count("batch") == 0 {
		t.Errorf("log: %s", lines)
	}
}

// TestExhausted gives the port of a flow that has been silent to another client, but
// only once late answers have had their time.
func TestExhausted(t *testing.T) {
	e, _ := newEngine(t)
	ticks := new(clock)
	e.now = ticks.now
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr)})
	e.mu.Lock()
	e.maxOwners = 2
	e.mu.Unlock()
	first, second, third := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	echo(t, first, addrPort(f.conn), "1")
	echo(t, second, addrPort(f.conn), "2")
	send(t, third, addrPort(f.conn), "3")
	until(t, "refused", func() bool { return dropped(e, Refused) == 1 })
	ticks.advance(quiet)
	echo(t, second, addrPort(f.conn), "4")
	send(t, third, addrPort(f.conn), "5")
	until(t, "the first is evicted", func() bool { return e.Stats().Evicted == 1 && dropped(e, Refused) == 2 })
	ticks.advance(fullFor)
	echo(t, third, addrPort(f.conn), "6")
	echo(t, second, addrPort(f.conn), "7")
	if s := e.Stats(); s.Evicted != 1 || s.Owners != 2 {
		t.Errorf("stats %+v", s)
	}
}

// TestGone ends the flow whose source has left the host.
func TestGone(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr)})
	c := open(t, "127.0.0.1:0")
	echo(t, c, addrPort(f.conn), "1")
	fl := f.flow(key{addrPort(c), netip.MustParseAddr("127.0.0.1")})
	for _, err := range []error{unix.ENETUNREACH, unix.EPERM, unix.EINVAL} {
		fl.unsent(up, err, 1) // the source is there: it was something else
	}
	fl.unsent(down, unix.EINVAL, 1)
	if e.Stats().Flows != 1 || dropped(e, Unsent) != 4 {
		t.Fatalf("stats %+v", e.Stats())
	}
	ms := make([]pktinfo.Message, 3)
	for i := range ms {
		ms[i] = pktinfo.Message{Buf: []byte("x"), N: 1, Addr: fl.leg(up).addr}
	}
	ms[1].Addr.Local = netip.MustParseAddr("::1") // of the wrong family
	sent := len(p.sources(t, 1))
	e.deliver(fl.leg(up).conn, ms, []*flow{fl, fl, fl}, up)
	p.sources(t, sent+2) // one that cannot be sent does not stop the others
	receive(t, c)
	receive(t, c)
	// No address of 127.0.0.0/8 can be taken away, so the flow gets one that is not here:
	// the kernel's answer to the send is a real one.
	f.mu.Lock()
	fl.entry.Src = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), fl.entry.Src.Port())
	f.mu.Unlock()
	send(t, c, addrPort(f.conn), "2")
	until(t, "the flow's line", func() bool { return lines.count("msg=flow") == 1 })
	if lines.count(flows.ErrSourceDown.Error()) != 1 || lines.count("write udp 192.0.2.1:") != 1 {
		t.Errorf("log: %s", lines)
	}
	echo(t, c, addrPort(f.conn), "decided anew")
}

func TestExplain(t *testing.T) {
	r := &route{name: "s", source: netip.MustParseAddr("192.0.2.1"), peer: netip.MustParseAddrPort("192.0.2.9:9")}
	for _, tt := range []struct {
		port uint16
		err  error
		want error
	}{
		{0, unix.EADDRNOTAVAIL, dialer.ErrSourceDown},
		{0, unix.EADDRINUSE, dialer.ErrPorts},
		{5060, unix.EADDRINUSE, dialer.ErrPorts},
		{0, unix.EMFILE, dialer.ErrPorts},
		{0, unix.EACCES, unix.EACCES},
	} {
		err := explain(tt.err, r, netip.AddrPortFrom(r.source, tt.port))
		if !errors.Is(err, tt.want) || !errors.Is(err, tt.err) || !strings.Contains(err.Error(), `"s"`) {
			t.Errorf("%v: %v, want %v", tt.err, err, tt.want)
		}
	}
	if err := explain(nil, r, netip.AddrPort{}); err != nil {
		t.Error(err)
	}
}
