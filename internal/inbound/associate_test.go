package inbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/relay"
)

// fakeRelays opens relays that do nothing but remember.
type fakeRelays struct {
	err    error
	opened chan *Association
	closed chan struct{}
	served atomic.Pointer[flows.Flow]
	local  netip.Addr
}

func newFakeRelays() *fakeRelays {
	return &fakeRelays{opened: make(chan *Association, 10), closed: make(chan struct{}, 10)}
}

func (f *fakeRelays) Associate(_ context.Context, a *Association) (Relay, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.local = a.Local
	f.opened <- a
	return f, nil
}

func (f *fakeRelays) Addr() netip.AddrPort    { return netip.AddrPortFrom(f.local, 40001) }
func (f *fakeRelays) Serve(entry *flows.Flow) { f.served.Store(entry) }
func (f *fakeRelays) Close() error            { f.closed <- struct{}{}; return nil }

// associate5 is a SOCKS 5 UDP ASSOCIATE of a client that says it sends from a.
func associate5(a netip.AddrPort) string {
	return "\x05\x03\x00\x01" + string(a.Addr().AsSlice()) + port(a)
}

var anywhere = netip.MustParseAddrPort("0.0.0.0:0")

func startAssociate(t *testing.T, change func(*Settings)) (*rig, *fakeRelays) {
	t.Helper()
	f := newFakeRelays()
	r := start(t, func(s *Settings) {
		s.Associate = f
		if change != nil {
			change(s)
		}
	})
	return r, f
}

// TestAssociate opens an association, and ends it in each way that a client has.
func TestAssociate(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*net.TCPConn)
		err  bool
	}{
		{"FIN", func(c *net.TCPConn) { _ = c.CloseWrite() }, false},
		{"close", func(c *net.TCPConn) { _ = c.Close() }, false},
		{"RST", func(c *net.TCPConn) { relay.Reset(c) }, true},
		{"bytes and then FIN", func(c *net.TCPConn) { _, _ = c.Write(make([]byte, 5000)); _ = c.Close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, f := startAssociate(t, nil)
			c := r.dial(t)
			mustSend(t, c, hello5+associate5(anywhere))
			mustGet(t, c, ok5)
			if got, want := mustReply(t, c, 0), netip.MustParseAddrPort("127.0.0.1:40001"); got != want {
				t.Errorf("BND is %v, want %v", got, want)
			}
			a := within(t, f.opened, limit)
			if a.Local != netip.MustParseAddr("127.0.0.1") || a.Port != 0 || a.Dialer == nil {
				t.Errorf("the relay was asked for %+v", a)
			}
			want := dialer.Flow{Network: "udp", Client: addrPort(c.LocalAddr()), Asked: addrPort(c.RemoteAddr()), Listener: "office"}
			if a.Flow != want {
				t.Errorf("the rules are asked for %+v, want %+v", a.Flow, want)
			}
			if n := r.s.Shared.Flows.Len(); n != 1 {
				t.Errorf("%d flows, want 1", n)
			}
			entry := f.served.Load()
			if entry.Network != "udp" || entry.Dst.IsValid() {
				t.Errorf("the flow is %+v", entry.Info)
			}
			entry.Up.Add(7)
			tt.end(c)
			within(t, f.closed, time.Second)
			l := r.log.wait(t, "flow", 1)[0]
			if !l.has("out", "7") || (l["err"] != nil) != tt.err {
				t.Errorf("log line %v", l)
			}
		})
	}
}

// TestAssociateStays keeps an association whose connection is silent, whatever the
// listener's idle time is.
func TestAssociateStays(t *testing.T) {
	r, f := startAssociate(t, func(s *Settings) { s.Idle, s.Handshake = 20*time.Millisecond, 50*time.Millisecond })
	c := r.dial(t)
	mustSend(t, c, hello5+associate5(anywhere))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	select {
	case <-f.closed:
		t.Error("a silent client lost its association")
	case <-time.After(200 * time.Millisecond):
	}
}

// TestAssociatePort believes an announced port only where it can be true.
func TestAssociatePort(t *testing.T) {
	r, f := startAssociate(t, nil)
	for _, tt := range []struct {
		announced string
		want      uint16
	}{
		{"127.0.0.1:4000", 4000},
		{"0.0.0.0:4000", 0},
		{"192.168.1.7:4000", 0},
		{"127.0.0.1:0", 0},
	} {
		c := r.dial(t)
		mustSend(t, c, hello5+associate5(netip.MustParseAddrPort(tt.announced)))
		if got := within(t, f.opened, limit).Port; got != tt.want {
			t.Errorf("announced %s: port %d, want %d", tt.announced, got, tt.want)
		}
	}
	c := r.dial(t)
	mustSend(t, c, hello5+associate5(addrPort(c.LocalAddr())))
	if got := within(t, f.opened, limit).Port; got != 0 {
		t.Errorf("the end of the TCP connection announced: port %d, want none", got)
	}
}

// TestAdvertise tells clients on other hosts the address of the NAT.
func TestAdvertise(t *testing.T) {
	nat := netip.MustParseAddr("203.0.113.7")
	for _, tt := range []struct {
		name, client, bound string
		advertise           netip.Addr
		want                string
	}{
		{"none", "192.0.2.1", "198.51.100.1", netip.Addr{}, "198.51.100.1:4000"},
		{"another host", "192.0.2.1", "198.51.100.1", nat, "203.0.113.7:4000"},
		{"this host", "127.0.0.1", "127.0.0.1", nat, "127.0.0.1:4000"},
		{"the other family", "2001:db8::1", "2001:db8::2", nat, "[2001:db8::2]:4000"},
	} {
		c := &client{settings: &Settings{Advertise: tt.advertise}, addr: netip.AddrPortFrom(netip.MustParseAddr(tt.client), 1)}
		if got := c.reachable(netip.AddrPortFrom(netip.MustParseAddr(tt.bound), 4000)); got.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

// TestAssociateRefused tells the client why it has no relay.
func TestAssociateRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Settings, *fakeRelays)
		want   byte
	}{
		{"not served", func(s *Settings, _ *fakeRelays) { s.Associate = nil }, 7},
		{"no port", func(_ *Settings, f *fakeRelays) { f.err = dialer.ErrPorts }, 1},
		{"something else", func(_ *Settings, f *fakeRelays) { f.err = errors.New("no") }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := startAssociate(t, func(s *Settings) { tt.change(s, s.Associate.(*fakeRelays)) })
			c := r.dial(t)
			mustSend(t, c, hello5+associate5(anywhere))
			mustGet(t, c, ok5)
			mustReply(t, c, tt.want)
			mustEnd(t, c)
			r.log.wait(t, "flow", 1)
		})
	}
}

// TestAssociateLimit counts an association like a connection.
func TestAssociateLimit(t *testing.T) {
	r, f := startAssociate(t, func(s *Settings) { s.Limit = 1 })
	first := r.dial(t)
	mustSend(t, first, hello5+associate5(anywhere))
	within(t, f.opened, limit)
	second := r.dial(t)
	mustSend(t, second, hello5+associate5(anywhere))
	mustGet(t, second, ok5)
	mustReply(t, second, 2)
	_ = first.Close()
	within(t, f.closed, limit)
	eventually(t, func() string {
		third := r.dial(t)
		mustSend(t, third, hello5+associate5(anywhere))
		select {
		case <-f.opened:
			return ""
		case <-time.After(20 * time.Millisecond):
			_ = third.Close()
			return "the place was not given back"
		}
	})
}

// TestAssociateClosed ends an association from outside: the client's connection goes.
func TestAssociateClosed(t *testing.T) {
	r, f := startAssociate(t, nil)
	c := r.dial(t)
	mustSend(t, c, hello5+associate5(anywhere))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	r.s.Shared.Flows.CloseAll(flows.ErrClosed)
	within(t, f.closed, time.Second)
	if _, err := rest(c); !isReset(err) {
		t.Errorf("the client's connection ended with %v, want a reset", err)
	}
}
