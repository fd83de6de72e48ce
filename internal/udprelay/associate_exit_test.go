package udprelay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestAssociateRelayPorts binds within the range, on the address asked alone, until
// all are taken.
func TestAssociateRelayPorts(t *testing.T) {
	e, _ := newEngine(t)
	first := freePort(t, "127.0.0.1")
	r := dialer.PortRange{Lo: first, Hi: first}
	d := always(t, useOf("wan1", "127.0.0.2"))
	a := associate(t, e, d, func(s *AssociateSettings) { s.Ports = r })
	if want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), first); a.Addr() != want {
		t.Errorf("the relay is %v, want %v", a.Addr(), want)
	}
	if got := boundTo(a.relay).Addr(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the relay is bound to %v, want the address asked", got)
	}
	s := *a.settings
	if _, err := e.Associate(t.Context(), &s); err == nil || !strings.Contains(err.Error(), r.String()) {
		t.Errorf("a second one on one port: %v, want an error that names the range", err)
	}
	if n := e.Stats().Associations; n != 1 {
		t.Errorf("%d associations, want 1", n)
	}
}

// TestAssociateOwnSockets gives a source with ports, a rule with a fixed port, and a
// prefix a socket of their own.
func TestAssociateOwnSockets(t *testing.T) {
	e, _ := newEngine(t)
	free, narrow, fixed, wide := newPeer(t, "127.0.0.11:0", false), newPeer(t, "127.0.0.12:0", false), newPeer(t, "127.0.0.13:0", false), newPeer(t, "127.0.0.14:0", false)
	port, own := freePort(t, "127.0.0.3"), freePort(t, "127.0.0.4")
	ports := source("narrow", "127.0.0.3")
	ports.Ports = dialer.PortRange{Lo: port, Hi: port}
	prefix := &dialer.Source{Name: "wide", Prefix: netip.MustParsePrefix("127.7.0.0/16")}
	to := func(p *peer) []dialer.Match {
		return []dialer.Match{dialer.MatchPrefix(netip.PrefixFrom(p.addr.Addr(), 32))}
	}
	d := byRules(t, []dialer.Rule{
		{Name: "free", To: to(free), Use: useOf("wan1", "127.0.0.2")},
		{Name: "narrow", To: to(narrow), Use: dialer.Use{Source: ports}},
		{Name: "fixed", To: to(fixed), SourcePort: own, Use: useOf("wan2", "127.0.0.4")},
		{Name: "wide", To: to(wide), Use: dialer.Use{Source: prefix}},
	})
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	for _, p := range []*peer{free, narrow, fixed, wide, fixed, narrow} {
		through(t, c, a, p.addr, "ping")
	}
	if got, want := narrow.sources(t, 2), netip.AddrPortFrom(ports.Addrs[0], port); got[0] != want || got[1] != want {
		t.Errorf("narrow was called from %v, want %v", got, want)
	}
	if got, want := fixed.sources(t, 2), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), own); got[0] != want || got[1] != want {
		t.Errorf("fixed was called from %v, want %v", got, want)
	}
	if got := wide.sources(t, 1)[0]; !prefix.Prefix.Contains(got.Addr()) {
		t.Errorf("wide was called from %v, want one of %v", got, prefix.Prefix)
	}
	a.mu.RLock()
	n := len(a.exits)
	a.mu.RUnlock()
	if n != 4 {
		t.Errorf("%d sockets, want 4", n)
	}
}

// TestAssociateManyExits sends from a prefix with ports, of which each address needs a
// socket of its own, to more destinations than there may be sockets, one after the other.
func TestAssociateManyExits(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "0.0.0.0:0", true)
	port := freePort(t, "127.0.0.3")
	wide := &dialer.Source{Name: "wide", Prefix: netip.MustParsePrefix("127.7.0.0/16"), Ports: dialer.PortRange{Lo: port, Hi: port}}
	a := associate(t, e, always(t, dialer.Use{Source: wide}), func(s *AssociateSettings) { s.MaxDestinations = maxExits / 2 })
	c := open(t, "127.0.0.9:0")
	const all = 2 * maxExits
	for i := range all {
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, 0, byte(i)}), p.addr.Port())
		send(t, c, a.Addr(), datagram(dst, "x"))
	}
	until(t, "all are sent, or refused", func() bool { return p.count()+dropped(e, Refused) == all })
	if n := dropped(e, Refused); n != 0 {
		t.Errorf("%d datagrams were refused:\n%s", n, lines)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if len(a.exits) > maxExits {
		t.Errorf("%d sockets, want no more than %d", len(a.exits), maxExits)
	}
}

// TestAssociateSharedPort has two associations and a forward leave from one fixed port:
// each gets the answers of its own peer. The same peer is for one of them, until that
// ends.
func TestAssociateSharedPort(t *testing.T) {
	e, lines := newEngine(t)
	outside := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), freePort(t, "127.0.0.4"))
	d := byRules(t, []dialer.Rule{{Name: "fixed", SourcePort: outside.Port(), Use: useOf("wan2", "127.0.0.4")}})
	var peers []*peer
	for i := range 3 {
		peers = append(peers, newPeer(t, fmt.Sprintf("127.0.0.%d:0", 11+i), false))
	}
	a := associate(t, e, d, nil)
	b := associate(t, e, d, func(s *AssociateSettings) { s.Flow.Client = netip.MustParseAddrPort("127.0.0.10:1") })
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(peers[2].addr)})
	first, second, third := open(t, "127.0.0.9:0"), open(t, "127.0.0.10:0"), open(t, "127.0.0.1:0")
	for _, text := range []string{"hello", "", strings.Repeat("x", 65507-headerIPv4)} {
		through(t, first, a, peers[0].addr, text)
		through(t, second, b, peers[1].addr, text)
		echo(t, third, addrPort(f.conn), text)
	}
	for i, p := range peers {
		for _, from := range p.sources(t, 3) {
			if from != outside {
				t.Errorf("peer %d was called from %v, want %v", i, from, outside)
			}
		}
	}
	if s := e.Stats(); s.Owners != 1 {
		t.Errorf("%d owners, want 1", s.Owners)
	}
	send(t, second, b.Addr(), datagram(peers[0].addr, "never"))
	until(t, "it is refused", func() bool { return dropped(e, Refused) == 1 })
	if lines.count(ErrPortTaken.Error()) != 1 {
		t.Errorf("log: %s", lines)
	}
	send(t, open(t, "127.0.0.20:0"), outside, "from a stranger")
	until(t, "a stranger is dropped", func() bool { return dropped(e, Stranger) == 1 })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	through(t, second, b, peers[0].addr, "it is mine now")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	through(t, second, b, peers[2].addr, "and this one")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); s.Owners != 0 {
		t.Errorf("%d owners, want 0", s.Owners)
	}
	open(t, outside.String()) // it is free
}

// TestAssociateLoop refuses destinations that are the relay's own sockets.
func TestAssociateLoop(t *testing.T) {
	e, lines := newEngine(t)
	d := always(t, useOf("wan1", "127.0.0.2"))
	a, b := associate(t, e, d, nil), associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	own := []netip.AddrPort{
		a.Addr(),
		b.Addr(),
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), a.exits[exitKey{}].at.Port()),
		netip.AddrPortFrom(netip.MustParseAddr("::1"), b.exits[exitKey{}].at.Port()),
	}
	for _, dst := range own[:3] {
		send(t, c, a.Addr(), datagram(dst, "round"))
	}
	until(t, "all are refused", func() bool { return dropped(e, Refused) == 3 })
	if !e.isOurs(own[3]) {
		t.Errorf("%v is not taken for ours", own[3])
	}
	if lines.count(ErrLoop.Error()) == 0 {
		t.Errorf("no line tells of the loop:\n%s", lines)
	}
}

// TestAssociateEnds closes an association: its sockets are closed, and the engine
// knows it no more.
func TestAssociateEnds(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c := open(t, "127.0.0.9:0")
	through(t, c, a, p.addr, "ping")
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s := e.Stats(); s.Associations != 0 || s.Destinations != 0 || len(e.associations.sockets) != 0 {
		t.Errorf("%d associations, %d destinations and %d sockets after Close", s.Associations, s.Destinations, len(e.associations.sockets))
	}
	// Its port is free.
	again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestAssociateRefusedBind says why there is no relay.
func TestAssociateRefusedBind(t *testing.T) {
	e, _ := newEngine(t)
	_, err := e.Associate(t.Context(), &AssociateSettings{Local: netip.MustParseAddr("192.0.2.1")})
	if err == nil || !strings.Contains(err.Error(), unix.EADDRNOTAVAIL.Error()) {
		t.Errorf("an address that is not here: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Associate(t.Context(), &AssociateSettings{Local: netip.MustParseAddr("127.0.0.1")}); err == nil {
		t.Error("a closed engine opens associations")
	}
}
