package udprelay

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/host"
)

// leaving is a host whose prefix loses its local route in the very moment in which
// somebody has looked whether it has one.
type leaving struct {
	dialer.State
	now    atomic.Pointer[host.Snapshot]
	engine *Engine
}

func (l *leaving) Now() *host.Snapshot            { return l.now.Load() }
func (l *leaving) Changed() <-chan struct{}       { return nil }
func (l *leaving) RoutesChanged() <-chan struct{} { return nil }

func (l *leaving) Down(*dialer.Source, netip.Addr) error {
	l.now.Store(host.NewSnapshot(nil, nil, nil))
	l.engine.Flows.CloseLost(l.engine.Sources.Lost)
	l.engine.CloseLost(l.engine.Sources.Lost)
	return nil
}

// TestLeftBehind lets nothing leave from a prefix that has gone between the decision and
// the moment from which the flow, or the destination, can be ended. The kernel does not
// refuse that: the socket has IP_FREEBIND.
func TestLeftBehind(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", true)
	wide := &dialer.Source{Name: "wide", Prefix: netip.MustParsePrefix("127.7.0.0/16")}
	h := &leaving{engine: e}
	h.now.Store(host.NewSnapshot(nil, nil, []netip.Prefix{wide.Prefix}))
	e.Sources = &egress.Sources{Host: h}
	d := always(t, dialer.Use{Source: wide})
	d.State = h
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr)})
	send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
	until(t, "the flow is refused", func() bool { return dropped(e, Refused) == 1 })

	a := associate(t, e, d, nil)
	send(t, open(t, "127.0.0.9:0"), a.Addr(), datagram(p.addr, "x"))
	until(t, "the destination is refused", func() bool { return dropped(e, Refused) == 2 })
	if s := e.Stats(); s.Flows != 0 || s.Destinations != 0 || p.count() != 0 {
		t.Errorf("%d flows and %d destinations are left, and the peer saw %d datagrams", s.Flows, s.Destinations, p.count())
	}
	if n := strings.Count(lines.String(), egress.ErrLost.Error()); n != 2 {
		t.Errorf("the log tells %d times of the loss, want twice:\n%s", n, lines)
	}
}
