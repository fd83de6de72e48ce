package server

import (
	"iter"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/host"
)

// Places implements admin.Service.
func (s service) Places(source string) admin.Usage {
	n, most := s.shared.Limits.Of(source)
	return admin.Usage{Used: n, Max: most}
}

// Ports implements admin.Service. The ports of UDP associations are not among them: they
// are sockets, each for all its destinations.
func (s service) Ports() []egress.PortUse {
	all, err := host.LocalPorts()
	if err != nil {
		s.log.Warn("local ports", "err", err) // budgets are not known then
	}
	budgets := make(map[string]int)
	for _, src := range s.view.Load().config.AllSources() {
		if !src.Ports.IsZero() {
			budgets[src.Name] = src.Ports.Len()
		}
	}
	return egress.CountPorts(s.ends(), func(source string) int {
		if n := budgets[source]; n > 0 {
			return n
		}
		return all
	})
}

// ends gives the ends of the live flows.
func (s service) ends() iter.Seq[egress.End] {
	return func(yield func(egress.End) bool) {
		for _, f := range s.flows.All() {
			known := f.Src.Port() != 0
			if known && !yield(egress.End{Source: f.Source, Network: f.Network, Src: f.Src, Dst: f.Dst}) {
				return
			}
		}
	}
}
