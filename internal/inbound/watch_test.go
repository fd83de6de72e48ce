package inbound

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/relay"
)

// asks are requests for a name whose lookup never ends by itself.
var asks = map[string]struct {
	kind Kind
	send string
}{
	"socks5":  {SOCKS, hello5 + connectName("a.example")},
	"http":    {HTTP, connectHTTP("a.example:443")},
	"forward": {TCP, ""},
}

// slow serves a listener of that kind whose dials wait for names.
func slow(t *testing.T, kind Kind, names *resolver, port uint16) *rig {
	return start(t, func(s *Settings) {
		s.Kind = kind
		s.Target = dialer.Flow{Name: "a.example", Dst: netip.AddrPortFrom(netip.Addr{}, port)}
		s.Dialer.Resolver = names
	})
}

// TestClientLeaves cancels the dial of a client that has gone: a reset says so always,
// a FIN only where the client cannot be waiting for the answer to what it sent.
func TestClientLeaves(t *testing.T) {
	for _, tt := range []struct {
		name    string
		ask     string
		payload string         // with the request
		later   string         // during the dial
		leave   func(net.Conn) // in the end
		cancels bool
	}{
		{"socks5 reset", "socks5", "", "", relay.Reset, true},
		{"http reset", "http", "", "", relay.Reset, true},
		{"forward reset", "forward", "", "", relay.Reset, true},
		{"socks5 reset after early data", "socks5", "ping", "", relay.Reset, true},
		{"socks5 reset after late data", "socks5", "", "ping", relay.Reset, true},
		{"forward reset after data", "forward", "ping", "", relay.Reset, true},
		{"forward reset after late data", "forward", "", "ping", relay.Reset, true},
		{"socks5 FIN", "socks5", "", "", finish, true},
		{"http FIN", "http", "", "", finish, true},
		{"forward FIN", "forward", "", "", finish, false},
		{"socks5 FIN after early data", "socks5", "ping", "", finish, false},
		{"http FIN after early data", "http", "ping", "", finish, false},
		{"socks5 FIN after late data", "socks5", "", "ping", finish, false},
		{"forward FIN after data", "forward", "ping", "", finish, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target := serve(t, echo)
			names := newResolver()
			ask := asks[tt.ask]
			r := slow(t, ask.kind, names, target.addr().Port())
			c := r.dial(t)
			mustSend(t, c, ask.send+tt.payload)
			within(t, names.asked, limit)
			if tt.later != "" {
				time.Sleep(2 * patience) // lets the watch begin: it cannot be seen from here
				mustSend(t, c, tt.later)
			}
			tt.leave(c)
			if tt.cancels {
				if err := within(t, names.ended, 3*time.Second); !errors.Is(err, errGone) {
					t.Errorf("the dial ended by %v, want %v", err, errGone)
				}
				if l := r.log.wait(t, "flow", 1)[0]; l["err"] == nil {
					t.Errorf("got %v, want an error", l)
				}
				return
			}
			select {
			case err := <-names.ended:
				t.Errorf("the dial was cancelled: %v", err)
			case <-time.After(3 * patience):
			}
			names.answer <- []netip.Addr{target.addr().Addr()}
			if tt.ask != "forward" {
				return // the name's port is fixed there
			}
			mustGet(t, c, tt.payload+tt.later)
			mustEnd(t, c)
		})
	}
}

func finish(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() }

// TestDialIsCancelledSoon holds the time: half a second from the reset to the end.
func TestDialIsCancelledSoon(t *testing.T) {
	names := newResolver()
	r := slow(t, SOCKS, names, 0)
	c := r.dial(t)
	mustSend(t, c, asks["socks5"].send)
	within(t, names.asked, limit)
	began := time.Now()
	relay.Reset(c)
	within(t, names.ended, limit)
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v, want less than a second", took)
	}
}

// TestWatchOutlivesHandshake sees a client leave after the time for its handshake.
func TestWatchOutlivesHandshake(t *testing.T) {
	names := newResolver()
	r := start(t, func(s *Settings) { s.Handshake, s.Dialer.Resolver = 2*patience, names })
	c := r.dial(t)
	mustSend(t, c, asks["socks5"].send)
	within(t, names.asked, limit)
	time.Sleep(3 * patience) // nothing must happen, so there is nothing to wait for
	finish(c)
	if err := within(t, names.ended, 3*time.Second); !errors.Is(err, errGone) {
		t.Errorf("the dial ended by %v, want %v", err, errGone)
	}
}

// TestWatchLeavesNothing answers late and wants a flow without a deadline left on it.
func TestWatchLeavesNothing(t *testing.T) {
	target := serve(t, echo)
	names := newResolver()
	r := start(t, func(s *Settings) { s.Dialer.Resolver = names })
	c := r.dial(t)
	mustSend(t, c, hello5+"\x05\x01\x00\x03\x09a.example"+port(target.addr()))
	within(t, names.asked, limit)
	time.Sleep(2 * patience) // lets the watch begin
	names.answer <- []netip.Addr{target.addr().Addr()}
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	mustSend(t, c, "ping")
	mustGet(t, c, "ping")
}
