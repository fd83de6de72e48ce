package udprelay

import (
	"net"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// onePort is a pool whose first member has one port, and the last all of them.
func onePort(t *testing.T, retry bool, between ...*dialer.Source) *dialer.Dialer {
	t.Helper()
	first := source("first", "127.0.0.2")
	port := freePort(t, "127.0.0.2")
	first.Ports = dialer.PortRange{Lo: port, Hi: port}
	of := []dialer.Member{{Source: first}}
	for _, s := range append(between, source("last", "127.0.0.3")) {
		of = append(of, dialer.Member{Source: s})
	}
	return always(t, dialer.Use{Pool: &dialer.Pool{Name: "p", Of: of, Retry: retry}})
}

// TestRetry has the last member of a pool take the flows for which the first has no port,
// and the second no address. The first one's flow stays.
func TestRetry(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: onePort(t, true, source("gone", "192.0.2.1")), Target: to(p.addr)})
	clients := []*net.UDPConn{open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")}
	for range 2 {
		for _, c := range clients {
			echo(t, c, addrPort(f.conn), "hello")
		}
	}
	seen := make(map[netip.Addr]int)
	for _, from := range p.sources(t, 6) {
		seen[from.Addr()]++
	}
	if seen[netip.MustParseAddr("127.0.0.2")] != 2 || seen[netip.MustParseAddr("127.0.0.3")] != 4 {
		t.Errorf("the peer saw %v", seen)
	}
	if n := lines.count("msg=flow"); n != 0 {
		t.Errorf("%d flows have ended: %s", n, lines)
	}
}

// TestNoRetry refuses it where the pool does not say retry, and names the source.
func TestNoRetry(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: onePort(t, false), Target: to(p.addr)})
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "hello")
	send(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "too many")
	until(t, "the second is refused", func() bool { return dropped(e, Refused) == 1 })
	if lines.count(`source \"first\" has none left`) != 1 || len(p.sources(t, 1)) != 1 {
		t.Errorf("log: %s", lines)
	}
}

// TestAssociateRetry is TestRetry for an association whose source has no port to bind.
func TestAssociateRetry(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	d := onePort(t, true)
	dec := d.Decide(dialer.Flow{Network: "udp", Dst: p.addr})
	squatter := open(t, netip.AddrPortFrom(dec.Addr, dec.Ports.Lo).String())
	a := associate(t, e, d, nil)
	through(t, open(t, "127.0.0.9:0"), a, p.addr, "hello")
	if from := p.sources(t, 1)[0]; from.Addr() != netip.MustParseAddr("127.0.0.3") {
		t.Errorf("the peer saw %v while %v was taken", from, squatter.LocalAddr())
	}
}
