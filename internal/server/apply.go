package server

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/inbound"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// listener is what inbound.Listener and udprelay.Forward have in common.
type listener[S any] interface {
	comparable
	Set(*S)
	Serve()
	Close() error
	Addr() net.Addr
	SyscallConn() (syscall.RawConn, error)
}

// control is called on a listening socket before it is bound.
type control = func(network, address string, c syscall.RawConn) error

// apply makes cfg what the program serves: it checks all, opens what is new, swaps,
// and closes what is old. When anything fails, nothing has changed.
func (s *server) apply(cfg *config.Config) error {
	p, err := s.plan(cfg)
	if err != nil {
		return err
	}
	var w waiting
	var tcp map[netip.AddrPort]*inbound.Listener
	var udp map[netip.AddrPort]*udprelay.Forward
	if tcp, w.tcp, err = open(s.tcp, p.tcp, s.listenTCP); err != nil {
		return err
	}
	if udp, w.udp, err = open(s.udp, p.udp, s.listenUDP); err != nil {
		return errors.Join(err, closeAll(tcp))
	}
	socket, err := s.openSocket(cfg)
	if err != nil {
		return errors.Join(err, closeAll(tcp), closeAll(udp))
	}
	if err := s.attach(cfg, p.names); err != nil {
		s.closeSocket(socket)
		return errors.Join(err, closeAll(tcp), closeAll(udp))
	}
	s.configure(cfg)
	sources := sourcesOf(cfg)
	s.sources.Set(sources)
	s.probes.Set(sources, p.names)
	s.users, s.names = p.users, p.names
	oldTCP := swap(s.tcp, p.tcp, tcp)
	oldUDP := swap(s.udp, p.udp, udp)
	s.announce(tcp, udp, p)
	s.postpone(w)
	s.show(cfg, p.dialers)
	if s.attached != nil {
		s.sources.TellAgain() // hooks that were taken over may have bound what went away meanwhile
	}
	s.useSocket(cfg, socket)
	for _, l := range oldTCP {
		s.retire(l)
	}
	if err := closeAll(oldUDP); err != nil {
		s.log.Warn("close listener", "err", err) // the new configuration is in force all the same
	}
	return nil
}

// configure sets what listeners share.
func (s *server) configure(cfg *config.Config) {
	s.level.Set(cfg.Log.Level)
	s.flows.SetLogging(cfg.Log.Flows, cfg.Log.Destinations)
	s.shared.Max.Store(int64(cfg.Limits.Connections))
	s.shared.Limits.Set(bounds(cfg))
	s.engine.SetMaxFlows(cfg.Limits.UDPFlows)
	s.drainIn = cfg.Timeouts.Drain
}

func (s *server) announce(tcp map[netip.AddrPort]*inbound.Listener, udp map[netip.AddrPort]*udprelay.Forward, p *plan) {
	for a, l := range tcp {
		s.log.Info("listening", "listener", p.tcp[a].Name, "addr", l.Addr().String())
	}
	for _, r := range ranges(udp, p) {
		s.log.Info("listening", "listener", p.udp[r[0]].Name, "addr", r.text(udp))
	}
}

func (s *server) listenTCP(a netip.AddrPort, settings *inbound.Settings, c control) (*inbound.Listener, error) {
	return inbound.Listen(s.ctx, a, settings, c)
}

func (s *server) listenUDP(a netip.AddrPort, settings *udprelay.Settings, c control) (*udprelay.Forward, error) {
	return s.engine.Listen(s.ctx, a, settings, c)
}

// open opens what is wanted and not there, and returns beside that what has to wait for
// its address. On an error it has closed all of them again.
func open[S any, L listener[S]](have map[netip.AddrPort]L, want map[netip.AddrPort]*S, listen func(netip.AddrPort, *S, control) (L, error)) (opened map[netip.AddrPort]L, waits map[netip.AddrPort]*S, err error) {
	opened, waits = make(map[netip.AddrPort]L), make(map[netip.AddrPort]*S)
	for a, settings := range want {
		if _, ok := have[a]; ok {
			continue
		}
		l, err := listen(a, settings, nil)
		if errors.Is(err, syscall.EADDRINUSE) && shareWithOld(have, want, a) {
			l, err = listen(a, settings, reusePort)
		}
		switch {
		case err == nil:
			opened[a] = l
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			waits[a] = settings
		default:
			return nil, nil, errors.Join(blame(err), closeAll(opened))
		}
	}
	return opened, waits, nil
}

// shareWithOld lets a new socket take the port of old ones of ours that are about to
// close, as when 127.0.0.1:1080 becomes [::]:1080: no moment without a listener.
func shareWithOld[S any, L listener[S]](have map[netip.AddrPort]L, want map[netip.AddrPort]*S, a netip.AddrPort) bool {
	shared := false
	for b, l := range have {
		if _, stays := want[b]; stays || b.Port() != a.Port() {
			continue
		}
		raw, err := l.SyscallConn()
		shared = err == nil && reusePort("", "", raw) == nil || shared
	}
	return shared
}

func reusePort(_, _ string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, inner)
}

// swap puts the new listeners into have, gives those that stay their new settings, and
// returns those that are not wanted any more.
func swap[S any, L listener[S]](have map[netip.AddrPort]L, want map[netip.AddrPort]*S, opened map[netip.AddrPort]L) map[netip.AddrPort]L {
	old := make(map[netip.AddrPort]L)
	for a, l := range have {
		if settings, ok := want[a]; ok {
			l.Set(settings)
		} else {
			old[a] = l
			delete(have, a)
		}
	}
	maps.Copy(have, opened)
	for _, l := range opened {
		l.Serve()
	}
	return old
}

func closeAll[K comparable, L interface{ Close() error }](ls map[K]L) error {
	var errs []error
	for _, l := range ls {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
