package dialer_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// datagram is one that a server got.
type datagram struct {
	peer netip.AddrPort
	text string
}

// serveUDP answers each datagram with the address of its peer, and hands on what came.
func serveUDP(t testing.TB, address string) (netip.AddrPort, <-chan datagram) {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := pc.(*net.UDPConn)
	got := make(chan datagram, 100)
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 100)
		for {
			n, peer, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			got <- datagram{peer, string(b[:n])}
			_, _ = c.WriteToUDPAddrPort([]byte(peer.String()), peer) // a peer that has gone
		}
	})
	t.Cleanup(func() {
		_ = c.Close() // ends the loop
		running.Wait()
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), got
}

// next returns the next datagram that a server got.
func next(t testing.TB, got <-chan datagram) datagram {
	t.Helper()
	select {
	case d := <-got:
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("the server got nothing")
	}
	return datagram{}
}

func write(t *testing.T, c net.PacketConn, text string, dst netip.AddrPort) {
	t.Helper()
	if n, err := c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(dst)); err != nil || n != len(text) {
		t.Fatalf("%d bytes written to %v: %v", n, dst, err)
	}
}

func TestDialUDP(t *testing.T) {
	server, got := serveUDP(t, "127.0.0.1:0")
	server6, got6 := serveUDP(t, "[::1]:0")
	d := &dialer.Dialer{Table: newTable(t, from(mail), dialer.Rule{Name: "tcp", Protocol: "tcp", Use: from(wan1)})}
	for _, tt := range []struct {
		network string
		dst     netip.AddrPort
		got     <-chan datagram
		want    string
	}{
		{"udp", server, got, "127.0.0.4"},
		{"udp4", server, got, "127.0.0.4"},
		{"udp", server6, got6, "::1"},
		{"udp", netip.MustParseAddrPort("[::ffff:127.0.0.1]:" + port(server)), got, "127.0.0.4"},
	} {
		c, err := d.DialContext(t.Context(), tt.network, tt.dst.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, text := range []string{"hello", ""} {
			if n, err := c.Write([]byte(text)); err != nil || n != len(text) {
				t.Fatalf("%d bytes of %q written: %v", n, text, err)
			}
			saw := next(t, tt.got)
			if saw.text != text || saw.peer.Addr() != netip.MustParseAddr(tt.want) || saw.peer.String() != c.LocalAddr().String() {
				t.Errorf("the server got %q from %v, want from %v", saw.text, saw.peer, c.LocalAddr())
			}
			b := make([]byte, 100)
			if n, err := c.Read(b); err != nil || string(b[:n]) != saw.peer.String() {
				t.Errorf("answer %q, %v", b[:n], err)
			}
		}
		p, ok := c.(net.PacketConn) // as the resolver of package net asks
		if !ok {
			t.Fatalf("%T is no net.PacketConn", c)
		}
		if n, err := p.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(tt.dst)); err == nil || n != 0 {
			t.Errorf("WriteTo on a connected socket wrote %d bytes", n)
		}
		if len(tt.got) != 0 {
			t.Error("WriteTo on a connected socket sent something")
		}
	}
}

func TestDialUDPRefused(t *testing.T) {
	server, got := serveUDP(t, "127.0.0.1:0")
	d := &dialer.Dialer{Table: newTable(t, deny, dialer.Rule{To: to("::1"), Use: from(wan1)}), Control: controlFails(t)}
	for dst, want := range map[string]error{server.String(): dialer.ErrDenied, "[::1]:53": dialer.ErrNoSource} {
		f := tcp(dst)
		f.Network = "udp"
		err := refused(t, d, f)
		wantErr(t, err, want)
		opError(t, err, "", dst)
		if oe := (*net.OpError)(nil); !errors.As(err, &oe) || oe.Net != "udp" || oe.Addr.Network() != "udp" {
			t.Errorf("%v is not of udp", err)
		}
	}
	if len(got) != 0 {
		t.Errorf("the server got %v", <-got)
	}
}

func TestDialUDPFixedPort(t *testing.T) {
	server, got := serveUDP(t, "127.0.0.1:0")
	fixed := freePort(t, "127.0.0.2")
	d := &dialer.Dialer{Table: newTable(t, deny, dialer.Rule{Protocol: "udp", Use: from(wan1), SourcePort: fixed})}
	c, err := d.Dial("udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if saw := next(t, got).peer; saw != netip.AddrPortFrom(wan1.Addrs[0], fixed) {
		t.Errorf("the server saw %v", saw)
	}
}

// TestPacketConn sends to three destinations from three sources by one socket.
func TestPacketConn(t *testing.T) {
	d := &dialer.Dialer{Table: newTable(t, deny,
		dialer.Rule{To: to("127.0.1.1"), Use: from(wan1)},
		dialer.Rule{To: to("127.0.1.2"), User: []string{"u"}, Use: from(wan2)},
		dialer.Rule{To: to("127.0.1.3", "::1"), Use: from(mail)},
		dialer.Rule{To: to("127.0.1.4"), Use: kernel},
	)}
	c := listen(t, d, dialer.Flow{User: "u"})
	own := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	for _, tt := range []struct{ listen, want string }{
		{"127.0.1.1:0", "127.0.0.2"}, {"127.0.1.2:0", "127.0.0.3"}, {"127.0.1.3:0", "127.0.0.4"}, {"[::1]:0", "::1"}, {"127.0.1.4:0", "127.0.0.1"},
	} {
		server, got := serveUDP(t, tt.listen)
		want := netip.AddrPortFrom(netip.MustParseAddr(tt.want), own)
		write(t, c, "hello", server)
		if saw := next(t, got); saw != (datagram{want, "hello"}) {
			t.Errorf("%v got %v, want from %v", server, saw, want)
		}
		b := make([]byte, 100)
		n, from, err := c.ReadFrom(b)
		if err != nil || string(b[:n]) != want.String() || from.String() != server.String() {
			t.Fatalf("read %q from %v: %v", b[:n], from, err)
		}
		at, ok := from.(*pktinfo.Addr)
		if !ok || at.Local != want.Addr() {
			t.Fatalf("ReadFrom gives %T %+v", from, from)
		}
		for _, again := range []net.Addr{from, &pktinfo.Addr{Peer: netip.AddrPortFrom(netip.AddrFrom16(server.Addr().As16()), server.Port())}} {
			if _, err := c.WriteTo([]byte("again"), again); err != nil {
				t.Fatal(err)
			}
			if saw := next(t, got); saw != (datagram{want, "again"}) {
				t.Errorf("WriteTo %v: %v got %v, want from %v", again, server, saw, want)
			}
			if _, from, err := c.ReadFrom(b); err != nil || from.String() != server.String() {
				t.Fatalf("answer from %v: %v", from, err)
			}
		}
	}
}

// listen opens a PacketConn whose datagrams belong to f.
func listen(t testing.TB, d *dialer.Dialer, f dialer.Flow) *dialer.PacketConn {
	t.Helper()
	c, err := d.ListenPacket(dialer.WithFlow(t.Context(), f), "udp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestPacketConnRefuses(t *testing.T) {
	server, got := serveUDP(t, "127.0.0.1:0")
	batch := &dialer.Source{Name: "batch", Addrs: addrs("127.0.0.2"), Ports: dialer.PortRange{Lo: 40000, Hi: 40010}}
	free := &dialer.Source{Name: "free", Addrs: addrs("127.0.0.2"), FreeBind: true}
	gone := &dialer.Source{Name: "gone", Addrs: addrs("192.0.2.1")}
	errGuard := errors.New("guarded")
	guard := func(dialer.Flow, dialer.Decision) error { return errGuard }
	for _, tt := range []struct {
		name string
		d    dialer.Dialer
		want error
	}{
		{"denied", dialer.Dialer{Table: newTable(t, deny)}, dialer.ErrDenied},
		{"family", dialer.Dialer{Table: newTable(t, from(six))}, dialer.ErrNoSource},
		{"down", dialer.Dialer{Table: newTable(t, from(wan1)), State: downs(wan1)}, dialer.ErrSourceDown},
		{"ports", dialer.Dialer{Table: newTable(t, from(batch))}, dialer.ErrPorts},
		{"free bind", dialer.Dialer{Table: newTable(t, from(free))}, dialer.ErrPorts},
		{"fixed port", dialer.Dialer{Table: newTable(t, deny, dialer.Rule{Use: from(wan1), SourcePort: 5060})}, dialer.ErrPorts},
		{"guard", dialer.Dialer{Guard: guard}, errGuard},
		{"not on this host", dialer.Dialer{Table: newTable(t, from(gone))}, syscall.ENETUNREACH},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := listen(t, &tt.d, dialer.Flow{})
			for range 2 {
				n, err := c.WriteTo([]byte("refused"), net.UDPAddrFromAddrPort(server))
				wantErr(t, err, tt.want)
				if oe := (*net.OpError)(nil); n != 0 || !errors.As(err, &oe) || oe.Op != "write" {
					t.Errorf("%d bytes, %v", n, err)
				}
			}
		})
	}
	c := listen(t, new(dialer.Dialer), dialer.Flow{})
	write(t, c, "end", server)
	if saw := next(t, got); saw.text != "end" {
		t.Errorf("the server got %q from %v", saw.text, saw.peer)
	}
	for _, bad := range []net.Addr{nil, (*net.UDPAddr)(nil), &net.UDPAddr{Port: 5}, &net.UnixAddr{Name: "x"}} {
		if n, err := c.WriteTo([]byte("x"), bad); err == nil || n != 0 {
			t.Errorf("%d bytes written to %v", n, bad)
		}
	}
}

// TestPacketConnKeepsItsChoice has a pool that would give each datagram another source.
func TestPacketConnKeepsItsChoice(t *testing.T) {
	one, got := serveUDP(t, "127.0.1.1:0")
	two, gotTwo := serveUDP(t, "127.0.1.2:0")
	s := downs()
	pool := &dialer.Pool{Of: []dialer.Member{{Source: wan1}, {Source: wan2}}, Pick: dialer.RoundRobin}
	c := listen(t, dialerOf(t, s, pool), dialer.Flow{})
	for range 3 { // the second and third time with one of them down
		write(t, c, "x", one)
		if saw := next(t, got).peer.Addr(); saw != wan1.Addrs[0] {
			t.Errorf("the first server saw %v", saw)
		}
		write(t, c, "x", two)
		if saw := next(t, gotTwo).peer.Addr(); saw != wan2.Addrs[0] {
			t.Errorf("the second server saw %v", saw)
		}
		s.down[wan1] = errNoCarrier
	}
}

func TestPacketConnDeadlines(t *testing.T) {
	c := listen(t, new(dialer.Dialer), dialer.Flow{})
	for name, set := range map[string]func(time.Time) error{"read": c.SetReadDeadline, "both": c.SetDeadline} {
		if err := set(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, _, err := c.ReadFrom(make([]byte, 1))
		wantErr(t, err, os.ErrDeadlineExceeded)
		if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: %v is no timeout", name, err)
		}
		if err := set(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	wantErr(t, err, os.ErrDeadlineExceeded)
}

func TestPacketConnCloseUnblocks(t *testing.T) {
	c := listen(t, new(dialer.Dialer), dialer.Flow{})
	ended := make(chan error)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 1))
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		wantErr(t, err, net.ErrClosed)
	case <-time.After(10 * time.Second):
		t.Fatal("ReadFrom waits on")
	}
	_, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	wantErr(t, err, net.ErrClosed)
}
