package server

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/inbound"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// plan is a configuration made ready: what each address is to serve. Building it opens
// nothing.
type plan struct {
	tcp map[netip.AddrPort]*inbound.Settings
	udp map[netip.AddrPort]*udprelay.Settings
}

func (s *server) plan(cfg *config.Config) (*plan, error) {
	table, err := cfg.Table()
	if err != nil {
		return nil, err
	}
	dialers := Dialers{Config: cfg, Table: table, Host: s.host, Live: s.flows.SourceLen}
	p := &plan{
		tcp: make(map[netip.AddrPort]*inbound.Settings),
		udp: make(map[netip.AddrPort]*udprelay.Settings),
	}
	for i := range cfg.Listen {
		l := &cfg.Listen[i]
		d, err := dialers.For(l)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
		if err := s.add(p, cfg, l, d); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
	}
	return p, nil
}

func (s *server) add(p *plan, cfg *config.Config, l *config.Listener, d *dialer.Dialer) error {
	target := dialer.Flow{Name: l.To.Name, Dst: netip.AddrPortFrom(l.To.Addr, l.To.Port)}
	if l.Kind == config.UDP {
		settings := &udprelay.Settings{
			Name:       l.Name,
			Allow:      l.Allow,
			Limit:      l.Limit,
			Idle:       orElse(l.Idle, cfg.Timeouts.UDP),
			Dialer:     d,
			Target:     target,
			SourcePort: l.SourcePort,
		}
		return put(p.udp, l.Addrs, settings)
	}
	settings := &inbound.Settings{
		Name:       l.Name,
		Kind:       kinds[l.Kind],
		Allow:      l.Allow,
		Limit:      l.Limit,
		Dialer:     d,
		Target:     target,
		Bind:       true,
		Associate:  &relays{engine: s.engine},
		Handshake:  cfg.Timeouts.Handshake,
		Idle:       orElse(l.Idle, cfg.Timeouts.Idle),
		HalfClosed: cfg.Timeouts.HalfClosed,
		KeepAlive:  cfg.Timeouts.KeepAlive,
		User:       cfg.Timeouts.User,
		Shared:     s.shared,
	}
	if l.UsersFile != "" {
		users, err := inbound.ParseUsers(l.Users)
		if err != nil {
			return fmt.Errorf("users file %s: %w", l.UsersFile, err)
		}
		settings.Users = users
	}
	return put(p.tcp, l.Addrs, settings)
}

var kinds = map[config.Kind]inbound.Kind{
	config.Mixed: inbound.Mixed,
	config.SOCKS: inbound.SOCKS,
	config.HTTP:  inbound.HTTP,
	config.TCP:   inbound.TCP,
}

var errTwice = errors.New("another listener has this address already")

func put[S any](m map[netip.AddrPort]*S, addrs []netip.AddrPort, s *S) error {
	for _, a := range addrs {
		if m[a] != nil {
			return fmt.Errorf("%v: %w", a, errTwice)
		}
		m[a] = s
	}
	return nil
}

func orElse[T comparable](v, otherwise T) T {
	if v == *new(T) {
		return otherwise
	}
	return v
}
