package server

import (
	"context"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/inbound"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// relays opens the UDP associations of one listener's clients.
type relays struct {
	engine *udprelay.Engine
	ports  dialer.PortRange
	filter udprelay.Filter
	dscp   uint8
	idle   time.Duration
}

var _ inbound.Associator = (*relays)(nil)

// Associate implements inbound.Associator.
func (r *relays) Associate(ctx context.Context, a *inbound.Association) (inbound.Relay, error) {
	relay, err := r.engine.Associate(ctx, &udprelay.AssociateSettings{
		Flow:   a.Flow,
		Dialer: a.Dialer,
		Local:  a.Local,
		Ports:  r.ports,
		Port:   a.Port,
		Filter: r.filter,
		DSCP:   r.dscp,
		Idle:   r.idle,
	})
	if err != nil {
		return nil, err // and not a Relay that holds a nil pointer
	}
	return relay, nil
}
