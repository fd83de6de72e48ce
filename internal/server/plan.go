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
	tcp   map[netip.AddrPort]*inbound.Settings
	udp   map[netip.AddrPort]*udprelay.Settings
	users map[string]*inbound.Users
	names *egress.Resolver

	dialers Dialers // of which they have theirs
}

func (s *server) plan(cfg *config.Config) (*plan, error) {
	table, err := cfg.Table()
	if err != nil {
		return nil, err
	}
	dialers := Dialers{Config: cfg, Table: table, Host: s.host, Sources: s.sources, Live: s.flows.SourceLen, Limits: &s.shared.Limits}
	dialers.Names = dialers.Resolver(s.names)
	p := &plan{
		tcp:   make(map[netip.AddrPort]*inbound.Settings),
		udp:   make(map[netip.AddrPort]*udprelay.Settings),
		users: make(map[string]*inbound.Users),
		names: dialers.Names,

		dialers: dialers,
	}
	if err := probeable(cfg); err != nil {
		return nil, err
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
	return p, s.affordable(p)
}

// probeable tells whether the probes of cfg can be made: one that cannot would leave its
// source up for ever.
func probeable(cfg *config.Config) error {
	for name, o := range cfg.SourceOptions {
		if o.Probe == nil || o.Probe.Kind != string(egress.ProbeICMP) {
			continue
		}
		if err := egress.CanPing(); err != nil {
			return fmt.Errorf("source %q: probe: %w", name, err)
		}
	}
	return nil
}

// affordable tells whether the sockets of p leave room for flows. Each port of a range
// costs one, and one more where datagrams leave from a port of its own.
func (s *server) affordable(p *plan) error {
	sockets := len(p.tcp) + len(p.udp)
	for _, settings := range p.udp {
		if settings.SamePort {
			sockets++
		}
	}
	if most := s.maxFiles / 4 * 3; sockets > most {
		return fmt.Errorf("the listeners need %d sockets, three quarters of the %d files that the process may open are %d: make port ranges smaller, or raise LimitNOFILE in the unit (ulimit -Hn)",
			sockets, s.maxFiles, most)
	}
	return nil
}

func (s *server) add(p *plan, cfg *config.Config, l *config.Listener, d *dialer.Dialer) error {
	target := dialer.Flow{Name: l.To.Name, Dst: netip.AddrPortFrom(l.To.Addr, l.To.Port)}
	if l.Kind == config.UDP {
		settings := &udprelay.Settings{
			Name:        l.Name,
			Allow:       l.Allow,
			Limit:       l.Limit,
			Idle:        orElse(l.Idle, cfg.Timeouts.UDP),
			Dialer:      d,
			Target:      target,
			SourcePort:  l.SourcePort,
			SamePort:    l.SamePort,
			ShareSIP:    l.Share == "sip",
			Inbound:     l.Inbound,
			InboundFrom: l.InboundFrom,
			DSCP:        l.DSCP,
		}
		return put(p.udp, l, settings)
	}
	settings := &inbound.Settings{
		Name:       l.Name,
		Kind:       kinds[l.Kind],
		Allow:      l.Allow,
		Limit:      l.Limit,
		Dialer:     d,
		Target:     target,
		Bind:       l.Bind,
		Associate:  &relays{engine: s.engine, ports: l.RelayPorts, filter: filters[l.Filter], dscp: l.DSCP, idle: cfg.Timeouts.UDP},
		Advertise:  l.Advertise,
		Handshake:  cfg.Timeouts.Handshake,
		Idle:       orElse(l.Idle, cfg.Timeouts.Idle),
		HalfClosed: cfg.Timeouts.HalfClosed,
		KeepAlive:  cfg.Timeouts.KeepAlive,
		User:       cfg.Timeouts.User,
		Shared:     s.shared,
	}
	if l.UsersFile != "" {
		users, err := s.usersOf(l)
		if err != nil {
			return err
		}
		p.users[string(l.Users)] = users
		settings.Users = users
	}
	return put(p.tcp, l, settings)
}

// usersOf returns the users of a listener: those that there are already, when their file
// has not changed, since they remember the good logins. After each reload, everybody
// would otherwise wait in one queue for the check of a hash.
func (s *server) usersOf(l *config.Listener) (*inbound.Users, error) {
	if u := s.users[string(l.Users)]; u != nil {
		return u, nil
	}
	u, err := inbound.ParseUsers(l.Users)
	if err != nil {
		return nil, fmt.Errorf("users file %s: %w", l.UsersFile, err)
	}
	return u, nil
}

var kinds = map[config.Kind]inbound.Kind{
	config.Mixed: inbound.Mixed,
	config.SOCKS: inbound.SOCKS,
	config.HTTP:  inbound.HTTP,
	config.TCP:   inbound.TCP,
}

var filters = map[config.Filter]udprelay.Filter{
	config.FilterAddress:        udprelay.FilterAddress,
	config.FilterAddressAndPort: udprelay.FilterAddressAndPort,
	config.FilterNone:           udprelay.FilterNone,
}

var errTwice = errors.New("another listener has this address already")

func put[S any](m map[netip.AddrPort]*S, l *config.Listener, s *S) error {
	for a := range l.Endpoints() {
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
