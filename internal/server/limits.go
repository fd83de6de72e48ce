package server

import (
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// bounds returns the limits of sources, clients and users that cfg has.
func bounds(cfg *config.Config) *egress.Bounds {
	b := &egress.Bounds{
		Sources:   make(map[string]egress.Bound),
		PerSource: bound(cfg.Limits.PerSource),
		PerClient: bound(cfg.Limits.PerClient),
		PerUser:   bound(cfg.Limits.PerUser),
	}
	for name, o := range cfg.SourceOptions {
		b.Sources[name] = bound(o.Limit)
	}
	return b
}

func bound(b config.Bound) egress.Bound {
	return egress.Bound{Connections: b.Connections, PerSecond: b.NewPerSecond}
}

// ReceiveBuffer is what the sockets of UDP forwards ask the kernel for, in bytes.
const ReceiveBuffer = udprelay.ForwardBuffer
