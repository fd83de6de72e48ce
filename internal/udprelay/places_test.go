package udprelay

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// limited returns an engine with these limits.
func limited(t *testing.T, b egress.Bounds) (*Engine, *record) {
	t.Helper()
	e, lines := newEngine(t)
	e.Limits = new(egress.Limits)
	e.Limits.Set(&b)
	return e, lines
}

// wantLimited sends text from one more client, which must not be relayed.
func wantLimited(t *testing.T, e *Engine, lines *record, send func(), text string) {
	t.Helper()
	before := dropped(e, Limited)
	send()
	until(t, "a datagram is dropped for the limit", func() bool { return dropped(e, Limited) == before+1 })
	if !strings.Contains(lines.String(), text) {
		t.Errorf("the log lacks %q:\n%s", text, lines)
	}
}

// TestLimitOfClient drops and counts the flows that one client has too many.
func TestLimitOfClient(t *testing.T) {
	e, lines := limited(t, egress.Bounds{PerClient: egress.Bound{Connections: 2}})
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, useOf("wan1", "127.0.0.2")), Target: to(p.addr)})
	asked := addrPort(f.conn)
	for range 2 {
		echo(t, open(t, "127.0.0.9:0"), asked, "x")
	}
	third := open(t, "127.0.0.9:0")
	wantLimited(t, e, lines, func() { send(t, third, asked, "y") }, "limits.per_client.connections = 2, of 127.0.0.9/32")
	echo(t, open(t, "127.0.0.8:0"), asked, "another client")
	if n := len(p.sources(t, 3)); n != 3 {
		t.Errorf("the peer saw %d datagrams, want 3", n)
	}
	e.Flows.All()[0].Close(flows.ErrClosed)
	echo(t, third, asked, "z")
}

// TestLimitOfClientInPool asks no further member of a pool: none has more for the client.
func TestLimitOfClientInPool(t *testing.T) {
	e, lines := limited(t, egress.Bounds{PerClient: egress.Bound{Connections: 1}})
	p := newPeer(t, "127.0.0.1:0", false)
	pool := &dialer.Pool{Name: "both", Of: []dialer.Member{{Source: source("wan1", "127.0.0.2")}, {Source: source("wan2", "127.0.0.3")}}}
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Pool: pool}), Target: to(p.addr)})
	echo(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
	wantLimited(t, e, lines, func() { send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "y") }, "limits.per_client.connections = 1, of 127.0.0.9/32")
	if strings.Contains(lines.String(), "no other member") {
		t.Errorf("the other member was asked:\n%s", lines)
	}
}

// TestPoolPassesFullOver takes the members that have places.
func TestPoolPassesFullOver(t *testing.T) {
	e, lines := limited(t, egress.Bounds{Sources: map[string]egress.Bound{"wan1": {Connections: 1}, "wan2": {Connections: 2}}})
	p := newPeer(t, "127.0.0.1:0", false)
	pool := &dialer.Pool{Name: "both", Of: []dialer.Member{{Source: source("wan1", "127.0.0.2")}, {Source: source("wan2", "127.0.0.3")}}}
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Pool: pool}), Target: to(p.addr)})
	for range 3 {
		echo(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
	}
	count := make(map[netip.Addr]int)
	for _, saw := range p.sources(t, 3) {
		count[saw.Addr()]++
	}
	if count[netip.MustParseAddr("127.0.0.2")] != 1 || count[netip.MustParseAddr("127.0.0.3")] != 2 {
		t.Errorf("the peer was called from %v, want 1 and 2 times", count)
	}
	wantLimited(t, e, lines, func() { send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "y") }, `limit = 2, of source \"wan2\"`)
}

// TestLimitOfSource counts the flows of forwards and the destinations of associations.
func TestLimitOfSource(t *testing.T) {
	e, lines := limited(t, egress.Bounds{Sources: map[string]egress.Bound{"wan1": {Connections: 3}}})
	d := always(t, useOf("wan1", "127.0.0.2"))
	var peers []*peer
	for i := range 4 {
		peers = append(peers, newPeer(t, fmt.Sprintf("127.0.0.1%d:0", i), false))
	}
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(peers[0].addr)})
	asked := addrPort(f.conn)
	echo(t, open(t, "127.0.0.9:0"), asked, "x")
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	through(t, c, a, peers[1].addr, "x")
	through(t, c, a, peers[2].addr, "x")
	const text = `limit = 3, of source \"wan1\"`
	wantLimited(t, e, lines, func() { send(t, c, a.Addr(), datagram(peers[3].addr, "y")) }, text)
	client := open(t, "127.0.0.8:0")
	wantLimited(t, e, lines, func() { send(t, client, asked, "y") }, text)
	through(t, c, a, peers[1].addr, "what there is goes on")

	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	echo(t, client, asked, "z")
	echo(t, open(t, "127.0.0.8:0"), asked, "z")
	last := open(t, "127.0.0.8:0")
	wantLimited(t, e, lines, func() { send(t, last, asked, "y") }, text)
	e.Flows.CloseAll(flows.ErrClosed)
	echo(t, last, asked, "z")
}

// TestPortErrorGivesThePlacesBack counts no flow that found no port.
func TestPortErrorGivesThePlacesBack(t *testing.T) {
	e, lines := limited(t, egress.Bounds{PerSource: egress.Bound{Connections: 2}, PerClient: egress.Bound{Connections: 2}})
	port := freePort(t, "127.0.0.2")
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, useOf("wan1", "127.0.0.2")), Target: to(p.addr), SourcePort: port})
	first := open(t, "127.0.0.9:0")
	echo(t, first, addrPort(f.conn), "x")
	for range 5 {
		before := dropped(e, Refused)
		send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "y")
		until(t, "it is refused for its port", func() bool { return dropped(e, Refused) == before+1 })
	}
	if n := dropped(e, Limited); n != 0 {
		t.Errorf("%d were dropped for a limit:\n%s", n, lines)
	}
}

// TestSameOfForward leaves from the address that each client has asked; loopback, which
// this test has alone, is refused.
func TestSameOfForward(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Same: true}), Target: to(p.addr)})
	send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
	until(t, "it is refused", func() bool { return dropped(e, Refused) == 1 })
	if want := "same: the client connected to 127.0.0.1, which is loopback"; !strings.Contains(lines.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, lines)
	}
	s := &Settings{Name: "x", Dialer: f.settings.Load().Dialer, Target: to(netip.MustParseAddrPort("203.0.113.1:53"))}
	q := s.query(key{from: netip.MustParseAddrPort("192.0.2.9:1"), asked: netip.MustParseAddr("198.51.100.7")}, 53)
	if dec := s.Dialer.Decide(q); dec.Err != nil || dec.Addr != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("got %v, %v, want the address that was asked", dec.Addr, dec.Err)
	}
}
