package main

import (
	"fmt"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/inbound"
)

// explainer returns what answers for the flows of a listener, or where that is nil,
// for those of any proxy. It decides as the service does: by the same rules, the
// addresses that are here now, and the guard.
func explainer(cfg *config.Config, l *config.Listener) (*explain.Explainer, error) {
	table, err := cfg.Table()
	if err != nil {
		return nil, err
	}
	snapshot, err := host.Read()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	d := &dialer.Dialer{
		Table:      table,
		State:      &egress.State{Host: snapshot},
		Timeout:    cfg.Timeouts.Dial,
		PreferIPv4: cfg.PreferIPv4,
	}
	asks := *d // name servers are asked by the rules, and without the guard
	d.Resolver = egress.Resolver(&asks)
	e := &explain.Explainer{Config: cfg, Dialer: d}
	switch {
	case l == nil || !l.Kind.IsForward():
		d.Guard = inbound.Guard(snapshot.Local)
	case l.Use != nil:
		e.Own = l
		own := dialer.Rule{Name: l.Name, Use: *l.Use, SourcePort: l.SourcePort}
		d.Table, err = dialer.NewTable([]dialer.Rule{own}, dialer.Use{})
	}
	return e, err
}
