package inbound

import (
	"net"
	"testing"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/host"
)

// bare is a host that has lost all its addresses.
type bare struct{ never chan struct{} }

func (bare) Now() *host.Snapshot              { return host.NewSnapshot(nil, nil, nil) }
func (b bare) Changed() <-chan struct{}       { return b.never }
func (b bare) RoutesChanged() <-chan struct{} { return b.never }

// TestLostAsItOpens ends a flow whose address went away between the dial and the moment
// at which the flow could be found and ended.
func TestLostAsItOpens(t *testing.T) {
	srv := serve(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) })
	r := start(t, func(s *Settings) { s.Shared.Sources = &egress.Sources{Host: bare{}} })
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(srv.addr()))
	mustGet(t, c, ok5)
	// The reply may be on its way when the reset comes, and is lost then.
	if got, err := rest(c); !isReset(err) {
		t.Errorf("got %q, %v, want a reset", got, err)
	}
	if l := r.log.wait(t, "flow", 1)[0]; !l.has("err", flows.ErrSourceDown.Error()) {
		t.Errorf("the line is %v", l)
	}
}
