package inbound

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestForwardToItself has a forward whose target is its own listener: one connection
// must not become a second one.
func TestForwardToItself(t *testing.T) {
	addr := closedPort(t) // free, and nobody else's in the moment until Listen
	names := newResolver()
	names.answer <- []netip.Addr{addr.Addr()}
	for name, target := range map[string]dialer.Flow{
		"address": {Dst: addr},
		"name":    {Name: "a.example", Dst: netip.AddrPortFrom(netip.Addr{}, addr.Port())},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			s := *r.s
			d := *s.Dialer
			d.Resolver = names
			s.Kind, s.Target, s.Dialer = TCP, target, &d
			l, err := Listen(t.Context(), addr, &s, nil)
			if err != nil {
				t.Fatal(err)
			}
			l.Serve()
			defer l.Wait()
			defer func() { _ = l.Close() }() // nothing is lost
			c, err := net.Dial("tcp", addr.String())
			if err == nil { // else the reset was quicker
				defer func() { _ = c.Close() }()         // read to its end
				_ = c.SetDeadline(time.Now().Add(limit)) // it is open
				_, err = rest(c)
			}
			if !isReset(err) {
				t.Errorf("got %v, want a reset", err)
			}
			if l := r.log.wait(t, "flow", 1)[0]; !strings.Contains(l["err"].(string), errItself.Error()) {
				t.Errorf("got %v, want %v in it", l, errItself)
			}
			if n := len(r.log.all("flow")); n != 1 {
				t.Errorf("one connection became %d", n)
			}
		})
	}
}

func TestProxyToItself(t *testing.T) {
	r := start(t, nil)
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(addrPort(r.Addr())))
	mustGet(t, c, ok5)
	mustReply(t, c, 2)
	mustEnd(t, c)
}

// TestNotItselfAsksTheOther keeps the guard that was there.
func TestNotItselfAsksTheOther(t *testing.T) {
	other := errors.New("other")
	g := notItself(func(dialer.Flow, dialer.Decision) error { return other })
	f := dialer.Flow{Dst: netip.MustParseAddrPort("127.0.0.1:80"), Asked: netip.MustParseAddrPort("127.0.0.1:1080")}
	if err := g(f, dialer.Decision{}); !errors.Is(err, other) {
		t.Errorf("got %v, want the other's", err)
	}
	if err := notItself(nil)(f, dialer.Decision{}); err != nil {
		t.Errorf("got %v", err)
	}
}
