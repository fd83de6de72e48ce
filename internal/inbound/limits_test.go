package inbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestLimits fills a limit, sees the next one refused in its protocol, and the place
// free again once a flow has ended.
func TestLimits(t *testing.T) {
	target := serve(t, echo)
	for _, tt := range []struct {
		name, text string
		limit      func(*Settings)
	}{
		{"listener", `limit of listener "office"`, func(s *Settings) { s.Limit = 2 }},
		{"program", "limits.connections", func(s *Settings) { s.Shared.Max.Store(2) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, tt.limit)
			open := func() *net.TCPConn {
				c := r.dial(t)
				mustSend(t, c, hello5+connect5(target.addr()))
				mustGet(t, c, ok5)
				return c
			}
			first, second := open(), open()
			mustReply(t, first, 0)
			mustReply(t, second, 0)

			c := open()
			mustGet(t, c, "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00")
			mustEnd(t, c)
			c = r.dial(t)
			mustSend(t, c, connectHTTP(target.addr().String()))
			mustGet(t, c, "HTTP/1.1 429 ")
			if got, err := rest(c); err != nil || !strings.Contains(got, tt.text) {
				t.Errorf("got %q, %v, want the limit in it", got, err)
			}
			for _, l := range r.log.wait(t, "flow", 2) {
				if !strings.Contains(l["err"].(string), tt.text) {
					t.Errorf("got %v, want the limit in it", l)
				}
			}
			if n := r.s.Shared.Flows.Len(); n != 2 {
				t.Errorf("%d flows live, want 2", n)
			}

			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			mustEnd(t, first)
			eventually(t, func() string {
				c := open()
				var rep [2]byte
				if _, err := c.Read(rep[:]); err != nil || rep[1] != 0 {
					return "the place is not free again"
				}
				return ""
			})
		})
	}
}

// TestLimitAfterFailures takes no place for dials that failed.
func TestLimitAfterFailures(t *testing.T) {
	target := serve(t, echo)
	nobody := closedPort(t)
	r := start(t, func(s *Settings) { s.Limit = 1; s.Shared.Max.Store(1) })
	for range 5 {
		c := r.dial(t)
		mustSend(t, c, hello5+connect5(nobody))
		mustGet(t, c, ok5)
		mustReply(t, c, 5)
		mustEnd(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if r.gate.n.Load() != 0 || r.s.Shared.Connections.n.Load() != 0 {
				return "the place is not free again"
			}
			return ""
		})
	}
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
}

func TestGate(t *testing.T) {
	var g Gate
	for i := range 3 {
		if !g.Enter(3) {
			t.Fatalf("number %d of 3 is refused", i+1)
		}
	}
	if g.Enter(3) || g.Enter(2) {
		t.Error("the limit does not hold")
	}
	if !g.Enter(0) {
		t.Error("0 is a limit")
	}
	for range 4 {
		g.Leave()
	}
	if n := g.n.Load(); n != 0 {
		t.Errorf("%d are left inside", n)
	}
}

// TestDescriptors uses up a tiny budget with silent clients: what is established goes
// on, the log stays quiet, and with the first that leaves others come in.
func TestDescriptors(t *testing.T) {
	target := serve(t, echo)
	r := start(t, func(s *Settings) { s.Shared.Descriptors = NewDescriptors(16) }) // 8: six for clients
	flow := r.dial(t)
	mustSend(t, flow, hello5+connect5(target.addr()))
	mustGet(t, flow, ok5)
	mustReply(t, flow, 0)

	var silent []net.Conn
	for range 20 {
		silent = append(silent, r.dial(t)) // the kernel takes them into the backlog
	}
	began := time.Now()
	eventually(t, func() string {
		if time.Since(began) < 1500*time.Millisecond {
			return "the pause is too short"
		}
		return ""
	})
	pauses := r.log.all("accept paused")
	if n := len(pauses); n < 1 || n > 2 {
		t.Errorf("got %d lines about the pause in %v, want one a second", n, time.Since(began))
	}
	for _, l := range pauses {
		if !l.has("level", "WARN") || !l.has("err", errDescriptors.Error()) {
			t.Errorf("got %v", l)
		}
	}
	if n := len(r.s.Shared.Descriptors.slots); n > 6 {
		t.Errorf("%d descriptors are taken for clients, want 6 at most", n)
	}
	mustSend(t, flow, "on")
	mustGet(t, flow, "on")

	for _, c := range silent {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	began = time.Now()
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the next client waited %v", took)
	}
}

// TestDescriptorsOfServers ends a wait with the client's and answers one that lasts.
func TestDescriptorsOfServers(t *testing.T) {
	target := serve(t, echo)
	r := start(t, func(s *Settings) { s.Shared.Descriptors = NewDescriptors(16) })
	d := r.s.Shared.Descriptors
	c := r.dial(t)
	mustSend(t, c, hello5)
	mustGet(t, c, ok5)
	taken := 0
	for len(d.slots) < cap(d.slots) {
		d.slots <- struct{}{}
		taken++
	}
	mustSend(t, c, connect5(target.addr()))
	mustReply(t, c, 1) // after serverWait
	mustEnd(t, c)
	if l := r.log.wait(t, "flow", 1)[0]; !l.has("err", errDescriptors.Error()) {
		t.Errorf("got %v", l)
	}
	for range taken {
		d.release()
	}
	if n := len(target.seen); n != 0 {
		t.Errorf("the target saw %d connections", n)
	}
}

func TestDescriptorsOfLimit(t *testing.T) {
	for limit, want := range map[int]int{0: 4, 1: 4, 16: 8, 64: 32, 128: 88, 1024: 928} {
		if got := cap(NewDescriptors(limit).slots); got != want {
			t.Errorf("%d: got %d, want %d", limit, got, want)
		}
	}
	d := NewDescriptors(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range cap(d.slots) {
		if err := d.waitServer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.waitServer(ctx); !errors.Is(err, errDescriptors) {
		t.Errorf("got %v, want errDescriptors", err)
	}
	d.last = time.Now() // no line
	if d.waitClient(ctx, nil) {
		t.Error("waitClient is true after its context")
	}
}

func TestDescriptorsLogRarely(t *testing.T) {
	var d Descriptors
	at := time.Unix(1000, 0)
	for i, want := range []bool{true, false, false, true, false} {
		if got := d.mayLog(at); got != want {
			t.Errorf("at %d: got %t, want %t", i, got, want)
		}
		at = at.Add(400 * time.Millisecond)
	}
}

// TestSourcePortIsTaken tells a client that there is no free port.
func TestSourcePortIsTaken(t *testing.T) {
	target := serve(t, echo)
	taken := closedPort(t).Port()
	table, err := dialer.NewTable([]dialer.Rule{{
		Name:       "fixed",
		Use:        dialer.Use{Source: &dialer.Source{Name: "wan1", Addrs: []netip.Addr{sourceAddr}}},
		SourcePort: taken,
	}}, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(s *Settings) { s.Dialer.Table = table })
	first := r.dial(t)
	mustSend(t, first, hello5+connect5(target.addr()))
	mustGet(t, first, ok5)
	if bound := mustReply(t, first, 0); bound.Port() != taken {
		t.Errorf("bound to %v, want port %d", bound, taken)
	}
	second := r.dial(t)
	mustSend(t, second, hello5+connect5(target.addr()))
	mustGet(t, second, ok5)
	mustReply(t, second, 1)
	mustEnd(t, second)
}
