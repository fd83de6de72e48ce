package udprelay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// TestSamePort sends through forwards of one listener whose target has no port: what
// comes to a port goes to that port, from that port.
func TestSamePort(t *testing.T) {
	e, _ := newEngine(t)
	target := netip.MustParseAddr("127.0.0.20")
	s := &Settings{
		Dialer:   always(t, dialer.Use{Source: source("rtp", "127.0.0.10")}),
		Target:   dialer.Flow{Dst: netip.AddrPortFrom(target, 0)},
		SamePort: true,
	}
	clients := []*net.UDPConn{open(t, "127.0.0.3:0"), open(t, "127.0.0.4:0")}
	for i := range 10 {
		p := newPeer(t, "127.0.0.20:0", false)
		f := forward(t, e, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.addr.Port()).String(), s)
		if n := e.Stats().Owners; n != i+1 {
			t.Fatalf("%d owners before the first datagram of forward %d", n, i)
		}
		echo(t, clients[0], at(f, "127.0.0.1"), fmt.Sprint("port ", i))
		if got, want := p.sources(t, 1)[0], netip.AddrPortFrom(netip.MustParseAddr("127.0.0.10"), p.addr.Port()); got != want {
			t.Errorf("came from %v, want %v", got, want)
		}
		send(t, clients[1], at(f, "127.0.0.1"), "a second client")
		until(t, "the second client is refused", func() bool { return dropped(e, Refused) == i+1 })
	}
	if s := e.Stats(); s.Flows != 10 || s.Owners != 10 {
		t.Errorf("%d flows on %d owners, want 10 on 10", s.Flows, s.Owners)
	}
}

// TestLimitOfListener has two forwards of a listener share its limit.
func TestLimitOfListener(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.20:0", false)
	s := &Settings{Name: "both", Limit: 3, Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.10")}), Target: to(p.addr)}
	a, b := forward(t, e, "127.0.0.1:0", s), forward(t, e, "127.0.0.1:0", s)
	other := forward(t, e, "127.0.0.1:0", &Settings{Name: "other", Dialer: s.Dialer, Target: s.Target})
	echo(t, open(t, "127.0.0.3:0"), at(other, "127.0.0.1"), "x")
	for i := range 4 {
		f := a
		if i%2 == 1 {
			f = b
		}
		echo(t, open(t, "127.0.0.3:0"), at(f, "127.0.0.1"), "x")
	}
	if s := e.Stats(); s.Flows != 4 || s.Evicted != 1 {
		t.Errorf("%d flows, %d evicted, want 3 of the listener and 1 of the other, 1 evicted", s.Flows, s.Evicted)
	}
}

// TestDSCP has two forwards with different marks leave from one port.
func TestDSCP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		e, _ := newEngine(t)
		port := freePort(t, host)
		d := always(t, dialer.Use{Source: source("s", host)})
		for _, dscp := range []uint8{46, 24, 0} {
			far, client := classConn(t, host), classConn(t, host)
			s := &Settings{Name: fmt.Sprint("mark ", dscp), Dialer: d, Target: to(boundTo(far)), SourcePort: port, DSCP: dscp}
			f := forward(t, e, netip.AddrPortFrom(netip.MustParseAddr(host), 0).String(), s)
			m := pktinfo.Message{Buf: []byte("x"), N: 1, Addr: pktinfo.Addr{Peer: at(f, host)}}
			if err := client.WriteMsg(&m); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*pktinfo.Conn{far, client} {
				got := pktinfo.Message{Buf: make([]byte, 10)}
				if err := c.ReadMsg(&got); err != nil {
					t.Fatal(err)
				}
				if got.TrafficClass != dscp<<2 {
					t.Errorf("%s: got class %#x, want %#x", host, got.TrafficClass, dscp<<2)
				}
				if c == far {
					got.TrafficClass = 0
					if err := c.WriteMsg(&got); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if n := e.Stats().Owners; n != 1 {
			t.Errorf("%d owners, want 1", n)
		}
	}
}

// classConn opens a socket that tells the traffic class of what comes in.
func classConn(t *testing.T, host string) *pktinfo.Conn {
	t.Helper()
	lc := pktinfo.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) {
			if netip.MustParseAddr(host).Is4() {
				inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
			} else {
				inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
			}
		})
		return errors.Join(err, inner)
	}}
	c, err := lc.Listen(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(host), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // only this closes it
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDSCPOfAssociation marks what an association sends, to either side.
func TestDSCPOfAssociation(t *testing.T) {
	e, _ := newEngine(t)
	far, client := classConn(t, "127.0.0.1"), classConn(t, "127.0.0.1")
	d := always(t, dialer.Use{Source: source("s", "127.0.0.10")})
	a := associate(t, e, d, func(s *AssociateSettings) {
		s.Flow.Client = boundTo(client)
		s.DSCP = 34
	})
	text := datagram(boundTo(far), "x")
	m := pktinfo.Message{Buf: []byte(text), N: len(text), Addr: pktinfo.Addr{Peer: a.Addr()}}
	if err := client.WriteMsg(&m); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*pktinfo.Conn{far, client} {
		got := pktinfo.Message{Buf: make([]byte, 100)}
		if err := c.ReadMsg(&got); err != nil {
			t.Fatal(err)
		}
		if got.TrafficClass != 34<<2 {
			t.Errorf("got class %#x, want %#x", got.TrafficClass, 34<<2)
		}
		if c == far {
			got.TrafficClass = 0
			if err := c.WriteMsg(&got); err != nil {
				t.Fatal(err)
			}
		}
	}
}
