package server

import (
	"context"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/inbound"
)

// Dialers makes the Dialer of each listener. The commands that explain what the service
// would do use it as well, so that both decide alike.
type Dialers struct {
	Config *config.Config
	Table  *dialer.Table // of the rules of Config

	// Host tells which addresses are here.
	Host egress.Host

	// Sources knows what else keeps a source from being used. Nil: nothing does.
	Sources *egress.Sources

	// Live counts the flows of a source. Nil counts none.
	Live func(source string) int

	// Limits bounds the flows of each source. Nil: nothing does.
	Limits *egress.Limits

	// Names looks names up, as made by Resolver.
	Names *egress.Resolver
}

// Resolver returns what looks names up as Config says. Name servers are asked by the
// rules, too, and without a guard: no client names those. Before is the one it takes the
// place of, or nil.
func (s *Dialers) Resolver(before *egress.Resolver) *egress.Resolver {
	c := s.Config.DNS
	return egress.NewResolver(s.byRules(), egress.DNS{Servers: c.Servers, Timeout: c.Timeout, Cache: c.Cache}, before)
}

// sourcesOf returns all sources that cfg uses.
func sourcesOf(cfg *config.Config) []egress.Source {
	var out []egress.Source
	for _, s := range cfg.AllSources() {
		o := cfg.Options(s.Name)
		out = append(out, egress.Source{Source: s, Hold: o.Hold, Gateway4: o.Gateway4, Gateway6: o.Gateway6, Probe: probeOf(o.Probe)})
	}
	return out
}

func probeOf(p *config.Probe) *egress.Probe {
	if p == nil {
		return nil
	}
	return &egress.Probe{
		Kind:    egress.ProbeKind(p.Kind),
		Targets: p.Targets,
		Every:   p.Every,
		Timeout: p.Timeout,
		Rise:    p.Rise,
		Fall:    p.Fall,
	}
}

// For returns the Dialer of the flows that come by l, or for a nil l by any proxy. A
// proxy, whose clients name the destination, is guarded; a forward with a use of its
// own has a table in which that is the only rule.
func (s *Dialers) For(l *config.Listener) (*dialer.Dialer, error) {
	d := s.byRules()
	d.Resolver = s.Names
	if s.Limits != nil {
		d.Limiter = s.Limits
	}
	if l == nil || !l.Kind.IsForward() {
		d.Guard = inbound.Guard(s.Host.Local)
		return d, nil
	}
	if l.Use == nil {
		return d, nil
	}
	var err error
	own := dialer.Rule{Name: l.Name, Use: *l.Use, SourcePort: l.SourcePort}
	d.Table, err = dialer.NewTable([]dialer.Rule{own}, dialer.Use{})
	return d, err
}

// Explainer returns what answers for the flows of l, or for a nil l of any proxy, on a
// host that is as now says.
func (s *Dialers) Explainer(l *config.Listener, now *host.Snapshot) (*explain.Explainer, error) {
	e := &explain.Explainer{Config: s.Config, Routing: explain.Kernel{}, Host: now}
	if l != nil && l.Use != nil {
		e.Own = l
	}
	var err error
	e.Dialer, err = s.For(l)
	return e, err
}

// Attached returns what answers for the flows of the programs of an [[attach]]. They are
// not guarded: whoever runs them could open the flows without srcproxy. Where names
// stand for addresses these are asked for now.
func (s *Dialers) Attached(ctx context.Context, a *config.Attach, now *host.Snapshot) (*explain.Explainer, error) {
	d := s.byRules()
	d.Resolver = s.Names
	var known *resolved
	if a.Resolve {
		known = newResolved(s.Config, s.Names, nil)
		known.first(ctx)
	}
	var err error
	d.Table, err = tableFor(s.Config, a, known)
	return &explain.Explainer{Config: s.Config, Attach: a, Dialer: d, Routing: explain.Kernel{}, Host: now}, err
}

// byRules returns the Dialer that goes by the rules.
func (s *Dialers) byRules() *dialer.Dialer {
	return &dialer.Dialer{
		Table:      s.Table,
		State:      &egress.State{Host: s.Host, Sources: s.Sources, Live: s.Live},
		Timeout:    s.Config.Timeouts.Dial,
		KeepAlive:  -1, // inbound turns it on where a connection lives long enough
		PreferIPv4: s.Config.PreferIPv4,
	}
}
