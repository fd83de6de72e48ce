package main

import (
	"fmt"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/server"
)

// explainer returns what answers for the flows of a listener, or where that is nil,
// for those of any proxy. It decides as the service does, by the addresses that are
// here now.
func explainer(cfg *config.Config, l *config.Listener) (*explain.Explainer, error) {
	table, err := cfg.Table()
	if err != nil {
		return nil, err
	}
	snapshot, err := host.Read()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	dialers := server.Dialers{Config: cfg, Table: table, Host: snapshot}
	dialers.Names = dialers.Resolver(nil)
	return dialers.Explainer(l, snapshot)
}
