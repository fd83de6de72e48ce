package main

import (
	"context"
	"fmt"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/server"
)

// attachExplainer returns what answers for the programs of an [[attach]].
func attachExplainer(ctx context.Context, cfg *config.Config, at *config.Attach) (*explain.Explainer, error) {
	dialers, snapshot, err := dialersOf(cfg)
	if err != nil {
		return nil, err
	}
	return dialers.Attached(ctx, at, snapshot)
}

// explainer returns what answers for the flows of a listener, or where that is nil,
// for those of any proxy. It decides as the service does, by the addresses that are
// here now.
func explainer(cfg *config.Config, l *config.Listener) (*explain.Explainer, error) {
	dialers, snapshot, err := dialersOf(cfg)
	if err != nil {
		return nil, err
	}
	return dialers.Explainer(l, snapshot)
}

// dialersOf returns what makes the dialers of cfg, by the addresses that are here now.
func dialersOf(cfg *config.Config) (*server.Dialers, *host.Snapshot, error) {
	table, err := cfg.Table()
	if err != nil {
		return nil, nil, err
	}
	snapshot, err := host.Read()
	if err != nil {
		return nil, nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	dialers := &server.Dialers{Config: cfg, Table: table, Host: snapshot}
	dialers.Names = dialers.Resolver(nil)
	return dialers, snapshot, nil
}
