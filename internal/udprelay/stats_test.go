package udprelay

import (
	"errors"
	"net/netip"
	"reflect"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/sip"
)

// TestListeners counts by listener and source, also over the end of the flows and of
// one of the listeners.
func TestListeners(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	d := byRules(t, []dialer.Rule{
		{Listener: []string{"one"}, Use: dialer.Use{Source: source("s", "127.0.0.2")}},
		{Use: dialer.Use{Source: source("other", "127.0.0.3")}},
	})
	one := forward(t, e, "127.0.0.1:0", &Settings{Name: "one", Dialer: d, Target: to(p.addr)})
	two := forward(t, e, "127.0.0.1:0", &Settings{Name: "two", Dialer: d, Target: to(p.addr)})
	closed := forward(t, e, "127.0.0.1:0", &Settings{Name: "closed", Target: to(p.addr), Dialer: always(t, dialer.Use{})})
	c := open(t, "127.0.0.1:0")
	echo(t, c, addrPort(one.conn), "1")
	echo(t, c, addrPort(one.conn), "2")
	echo(t, c, addrPort(two.conn), "3")
	send(t, c, addrPort(closed.conn), "4")
	for _, from := range p.sources(t, 3)[2:] {
		send(t, p.UDPConn, from, "an answer")
		receive(t, c)
		send(t, c, from, "from a stranger")
	}
	one.Set(&Settings{Name: "renamed", Dialer: d, Target: to(p.addr)})
	echo(t, c, addrPort(one.conn), "5")
	until(t, "the one for nobody is refused", func() bool { return e.Stats().Dropped[Refused] == 1 })
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	want := []ListenerStats{
		{Listener: "closed", Dropped: [numDrops]uint64{Refused: 1}},
		{Listener: "one", Sources: []SourceStats{{"s", 3, 3}}},
		{Listener: "renamed"},
		{Listener: "two", Sources: []SourceStats{{"other", 1, 2}}, Dropped: [numDrops]uint64{Stranger: 1}},
	}
	until(t, "all is counted", func() bool {
		s := e.Stats()
		return s.Up == 4 && s.Down == 5 && s.Dropped[Stranger] == 1 && s.Dropped[Refused] == 1
	})
	if got := e.Listeners(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestOverflow fills the buffers of sockets, a forward's and an owner's: what their
// clients and peers do not get is counted, and stays so when the sockets are closed.
func TestOverflow(t *testing.T) {
	const n = 500
	e, _ := newEngine(t)
	e.control = smallBuffer
	p := newPeer(t, "127.0.0.1:0", true)
	f, err := e.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), &Settings{
		Name: "f", Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}), Target: to(p.addr),
	}, smallBuffer)
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, "127.0.0.1:0")
	for range n {
		send(t, c, addrPort(f.conn), "x")
	}
	lost := e.Listeners()[0].Dropped[Overflow]
	f.Serve()
	until(t, "the rest is relayed", func() bool { s := e.Stats(); return s.Up+s.Dropped[Overflow] == n })
	if lost == 0 || lost == n {
		t.Errorf("the kernel has dropped %d of %d, want a part", lost, n)
	}
	saw := p.sources(t, int(n-lost))
	// The owner reads nothing while its table is locked.
	o := f.flow(key{addrPort(c), netip.MustParseAddr("127.0.0.1")}).owner
	o.mu.Lock()
	for range n {
		send(t, p.UDPConn, saw[0], "x")
	}
	o.mu.Unlock()
	until(t, "the answers are relayed", func() bool { s := e.Stats(); return s.Up+s.Down+s.Dropped[Overflow] == 2*n })
	both := e.Stats().Dropped[Overflow]
	if both == lost {
		t.Errorf("the kernel has dropped none of %d answers", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := e.Stats().Dropped[Overflow]; got != both {
		t.Errorf("%d after the close, want %d", got, both)
	}
}

// smallBuffer gives a socket the smallest buffer there is.
func smallBuffer(_, _ string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) })
	return errors.Join(err, inner)
}

// TestTrunks counts what happens on a port that SIP clients share.
func TestTrunks(t *testing.T) {
	r := newTrunkRig(t, nil)
	phone, other := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	ask := sipText{method: "OPTIONS", branch: "one", call: "1", from: "x"}
	r.up(phone, ask)
	r.up(other, sipText{method: "OPTIONS", branch: "two", call: "2", from: "y"})
	r.down(phone, ask.answer(200, "p"))
	r.drops(Unmatched, 1, func() { send(r, r.provider, r.outside, ask.answer(200, "").String()[:20]) })
	got := r.engine.Trunks()
	if len(got) != 1 || got[0].Listener != "the forward" || got[0].Addr != r.outside || got[0].Clients != 2 ||
		got[0].SIP.Routed[sip.ByBranch] != 1 || got[0].SIP.Held.Transactions != 2 {
		t.Errorf("got %+v", got)
	}
	if l := r.engine.Listeners(); len(l) != 1 || l[0].Dropped[Unmatched] != 1 {
		t.Errorf("listeners %+v", l)
	}
}
