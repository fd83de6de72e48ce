package inbound

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

var (
	peerAddr     = netip.MustParseAddr("127.0.0.9")
	strangerAddr = netip.MustParseAddr("127.0.0.8")
)

// bind5 is a SOCKS 5 BIND that waits for a, from any port.
func bind5(a netip.Addr) string {
	return "\x05\x02\x00\x01" + string(a.AsSlice()) + "\x00\x00"
}

func startBind(t *testing.T) *rig {
	t.Helper()
	return start(t, func(s *Settings) { s.Bind = true })
}

// connectFrom connects to where a BIND listens.
func connectFrom(t *testing.T, local netip.Addr, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), Timeout: limit}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestBind(t *testing.T) {
	r := startBind(t)
	c := r.dial(t)
	mustSend(t, c, hello5+bind5(peerAddr))
	mustGet(t, c, ok5)
	at := mustReply(t, c, 0)
	if at.Addr() != sourceAddr || at.Port() == 0 {
		t.Fatalf("it listens on %v, want a port of the source %v", at, sourceAddr)
	}
	stranger := connectFrom(t, strangerAddr, at)
	if got, err := rest(stranger); got != "" {
		t.Errorf("a stranger got %q, %v", got, err)
	}
	peer := connectFrom(t, peerAddr, at)
	if got, want := mustReply(t, c, 0), addrPort(peer.LocalAddr()); got != want {
		t.Errorf("the second reply names %v, want the peer %v", got, want)
	}
	mustSend(t, peer, "from the peer")
	mustGet(t, c, "from the peer")
	mustSend(t, c, "from the client")
	mustGet(t, peer, "from the client")
	if c, err := net.DialTimeout("tcp", at.String(), limit); err == nil {
		_ = c.Close()
		t.Error("it still listens once the peer is there")
	}
	_ = c.CloseWrite()
	if _, err := io.ReadAll(peer); err != nil {
		t.Errorf("the peer's end: %v", err)
	}
	_ = peer.Close()
	l := r.log.wait(t, "flow", 1)[0]
	if !l.has("src", at.String()) || !l.has("source", "wan1") {
		t.Errorf("log line %v, want src %v and source wan1", l, at)
	}
}

func TestBindEndsWithItsClient(t *testing.T) {
	r := startBind(t)
	c := r.dial(t)
	mustSend(t, c, hello5+bind5(peerAddr))
	mustGet(t, c, ok5)
	at := mustReply(t, c, 0)
	_ = c.Close()
	eventually(t, func() string {
		if c, err := net.DialTimeout("tcp", at.String(), limit); err == nil {
			_ = c.Close()
			return "it listens though the client has gone"
		}
		return ""
	})
}

func TestBindRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer string
		bind bool
		want byte
	}{
		{"the listener forbids it", "127.0.0.9", false, 7},
		{"any peer", "0.0.0.0", true, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, func(s *Settings) {
				s.Bind = tt.bind
				s.Dialer.Guard = Guard(func(netip.Addr) bool { return false })
			})
			c := r.dial(t)
			mustSend(t, c, hello5+bind5(netip.MustParseAddr(tt.peer)))
			mustGet(t, c, ok5)
			mustReply(t, c, tt.want)
			mustEnd(t, c)
		})
	}
}

// TestBindCancelled ends the wait in the moment in which the peer comes: the connection
// is given back, or closed.
func TestBindCancelled(t *testing.T) {
	r := startBind(t)
	for range 200 {
		c := &client{conn: r.dial(t), settings: r.settings.Load(), listener: r.Listener}
		ctx, cancel := context.WithCancel(t.Context())
		req := request{dst: netip.AddrPortFrom(peerAddr, 0), bind: true}
		req.answer = func(_ error, at netip.AddrPort) []byte {
			connectFrom(t, peerAddr, at)
			time.AfterFunc(0, cancel)
			return nil
		}
		conn, _, err := c.listenFor(ctx, req)
		if (conn == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of them", conn, err)
		}
		if conn != nil {
			_ = conn.Close() // it was all that is wanted of it
		}
		cancel()
	}
}
