package server

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/inbound"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// waiting is what is to be served on addresses that are not on this host yet.
type waiting struct {
	tcp  map[netip.AddrPort]*inbound.Settings
	udp  map[netip.AddrPort]*udprelay.Settings
	told map[netip.AddrPort]error // whose address has come, and why they could not be opened all the same
}

// again is how soon a listener is tried again whose port somebody else has.
const again = time.Second

// endFlows ends what has lost its address.
func (s *server) endFlows(lost func(source string, src netip.Addr) bool) {
	s.flows.CloseLost(lost)
	s.engine.CloseLost(lost)
}

// postpone makes w what waits, and logs what did not wait before.
func (s *server) postpone(w waiting) {
	fresh := make(map[netip.AddrPort]string)
	for a, settings := range w.tcp {
		if s.waiting.tcp[a] == nil {
			fresh[a] = settings.Name
		}
	}
	for a, settings := range w.udp {
		if s.waiting.udp[a] == nil {
			fresh[a] = settings.Name
		}
	}
	var told []string // one line for all ports of a range
	for _, a := range slices.SortedFunc(maps.Keys(fresh), netip.AddrPort.Compare) {
		line := fmt.Sprint(fresh[a], a.Addr())
		if !slices.Contains(told, line) {
			told = append(told, line)
			s.log.Warn("listener waits for its address", "listener", fresh[a], "addr", a.String(),
				"err", fmt.Sprintf("%v is not on this host; srcproxy check prints the command that adds it", a.Addr()))
		}
	}
	w.told = make(map[netip.AddrPort]error)
	s.waiting = w
}

// arrive opens the listeners whose address has come. It returns a channel that says when
// to try again what could not be opened for another reason; nil where there is none.
func (s *server) arrive() <-chan time.Time {
	tcp := arrived(s, s.waiting.tcp, s.listenTCP)
	udp := arrived(s, s.waiting.udp, s.listenUDP)
	s.announce(tcp, udp, &plan{tcp: s.waiting.tcp, udp: s.waiting.udp})
	begin(s.tcp, s.waiting.tcp, tcp)
	begin(s.udp, s.waiting.udp, udp)
	if len(s.waiting.told) == 0 {
		return nil
	}
	return time.After(again)
}

// arrived opens what waits and has its address now.
func arrived[S any, L listener[S]](s *server, waits map[netip.AddrPort]*S, listen func(netip.AddrPort, *S, control) (L, error)) map[netip.AddrPort]L {
	opened := make(map[netip.AddrPort]L)
	for a, settings := range waits {
		if !s.host.Local(a.Addr()) {
			delete(s.waiting.told, a)
			continue
		}
		l, err := listen(a, settings, nil)
		if err == nil {
			opened[a] = l
			delete(s.waiting.told, a)
			continue
		}
		if s.waiting.told[a] == nil {
			s.waiting.told[a] = blame(err)
			s.log.Error("listener cannot be opened", "addr", a.String(), "err", s.waiting.told[a])
		}
	}
	return opened
}

// begin serves what was opened, and takes it from what waits.
func begin[S any, L listener[S]](have map[netip.AddrPort]L, waits map[netip.AddrPort]*S, opened map[netip.AddrPort]L) {
	for a, l := range opened {
		have[a] = l
		l.Serve()
		delete(waits, a)
	}
}

// blame adds to an error of a listener what is in its way.
func blame(err error) error {
	oe := (*net.OpError)(nil)
	if !errors.As(err, &oe) || oe.Addr == nil {
		return err
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		a, parseErr := netip.ParseAddrPort(oe.Addr.String())
		if parseErr != nil {
			return err
		}
		if h, ok := host.PortHolder(strings.TrimRight(oe.Net, "46"), a); ok {
			return fmt.Errorf("%w: %v has it", err, h)
		}
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: the port needs CAP_NET_BIND_SERVICE; srcproxy check prints the command that gives it", err)
	}
	return err
}
