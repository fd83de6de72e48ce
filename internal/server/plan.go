package server

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
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
	byRules := s.dialer(cfg, table)
	p := &plan{
		tcp: make(map[netip.AddrPort]*inbound.Settings),
		udp: make(map[netip.AddrPort]*udprelay.Settings),
	}
	for i := range cfg.Listen {
		l := &cfg.Listen[i]
		d, err := s.dialerFor(cfg, l, byRules)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
		if err := s.add(p, cfg, l, d); err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
	}
	return p, nil
}

// dialer returns the Dialer that goes by table.
func (s *server) dialer(cfg *config.Config, table *dialer.Table) *dialer.Dialer {
	asks := &dialer.Dialer{Table: table, State: s.state(), Timeout: cfg.Timeouts.Dial}
	return &dialer.Dialer{
		Table:      table,
		State:      asks.State,
		Resolver:   egress.Resolver(asks),
		Timeout:    cfg.Timeouts.Dial,
		PreferIPv4: cfg.PreferIPv4,
		KeepAlive:  -1, // inbound turns it on where a connection lives long enough
	}
}

// dialerFor returns the Dialer of one listener: a forward with its own use does not
// ask the rules, and a proxy, whose clients name the destination, is guarded.
func (s *server) dialerFor(cfg *config.Config, l *config.Listener, byRules *dialer.Dialer) (*dialer.Dialer, error) {
	forward := l.Kind == config.TCP || l.Kind == config.UDP
	d := *byRules
	if forward && (l.Use != nil || l.SourcePort != 0) {
		return s.ownUse(cfg, l, &d)
	}
	if !forward {
		d.Guard = inbound.Guard(s.host.Local)
	}
	return &d, nil
}

// ownUse gives a forward a table of its own, in which the one rule is its use.
func (s *server) ownUse(cfg *config.Config, l *config.Listener, d *dialer.Dialer) (*dialer.Dialer, error) {
	rule := dialer.Rule{Name: l.Name, SourcePort: l.SourcePort}
	if l.Use == nil {
		return d, nil // a UDP forward's fixed port; the rules choose the source
	}
	rule.Use = *l.Use
	table, err := dialer.NewTable([]dialer.Rule{rule}, dialer.Use{})
	if err != nil {
		return nil, err
	}
	d.Table = table
	return d, nil
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
