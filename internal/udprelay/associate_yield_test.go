package udprelay

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// TestYieldRelay has a forward want the port as its source port that the kernel gave to
// the relay of an association. The association ends, and the forward gets the port.
func TestYieldRelay(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	d := always(t, useOf("wan1", "127.0.0.2"))
	s := &AssociateSettings{
		Flow:   dialer.Flow{Network: "udp", Listener: "office", Client: netip.AddrPortFrom(clientAddr, 1)},
		Dialer: func() *dialer.Dialer { return d },
		Local:  netip.MustParseAddr("127.0.0.2"),
	}
	a, err := e.Associate(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	entry := e.Flows.Open(flows.Info{Network: "udp", Client: s.Flow.Client}, func(error) { close(ended) })
	a.Serve(entry)
	through(t, open(t, "127.0.0.9:0"), a, p.addr, "hello")
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr), SourcePort: a.Addr().Port()})
	<-ended
	if err := a.Close(); err != nil { // as its owner does when its connection is closed
		t.Fatal(err)
	}
	entry.Done(nil)
	until(t, "the port is held", func() bool { return e.Stats().Owners == 1 })
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "hello")
	if saw := p.sources(t, 2)[1]; saw != a.Addr() {
		t.Errorf("the peer saw %v, want %v", saw, a.Addr())
	}
	if lines.count(ErrDisplaced.Error()) != 1 {
		t.Errorf("log: %s", lines)
	}
}

// TestYieldExit has a forward want a port of a range from which an association has taken
// it. The association goes on from the other one.
func TestYieldExit(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	port := freePort(t, "127.0.0.4")
	batch := source("batch", "127.0.0.4")
	batch.Ports = dialer.PortRange{Lo: port, Hi: port + 1}
	a := associate(t, e, always(t, dialer.Use{Source: batch}), nil)
	c := open(t, "127.0.0.9:0")
	through(t, c, a, p.addr, "hello")
	taken := p.sources(t, 1)[0]
	f := forward(t, e, "127.0.0.1:0", &Settings{
		Dialer: always(t, useOf("voip", "127.0.0.4")), Target: to(p.addr), SourcePort: taken.Port(),
	})
	until(t, "the port is held", func() bool { return e.Stats().Owners == 1 })
	echo(t, open(t, "127.0.0.1:0"), addrPort(f.conn), "from the fixed port")
	through(t, c, a, p.addr, "from the other one")
	saw := p.sources(t, 3)
	if saw[1] != taken || saw[2] == taken || !batch.Ports.Contains(saw[2].Port()) {
		t.Errorf("the peer saw %v, want the second from %v and the third from another port of %v", saw, taken, batch.Ports)
	}
}
