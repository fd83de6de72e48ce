package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

// ErrAbsent says that an address is not on this host.
var ErrAbsent = errors.New("is not on this host")

// Host tells which addresses are local. A *host.Host is one, and a *host.Snapshot.
type Host interface {
	// Local reports whether packets to a are delivered on this host.
	Local(a netip.Addr) bool
	// ByRoute reports whether a is local only as part of a prefix.
	ByRoute(a netip.Addr) bool
	// LinkAddr returns the address of a link that a source follows, or the zero Addr.
	LinkAddr(link string, is4 bool) netip.Addr
}

// State is the dialer.State of the running program. It is safe for concurrent use as
// long as its fields are not changed.
type State struct {
	Host Host

	// Sources knows of probes and wrong ways. Nil: nobody does, and Host alone decides.
	Sources *Sources

	// Live returns the number of live flows of the source with that name. Nil counts
	// none.
	Live func(source string) int
}

var (
	_ dialer.RouteState = (*State)(nil)
	_ dialer.WayState   = (*State)(nil)
	_ dialer.LifeState  = (*State)(nil)
)

// Down returns ErrAbsent, with the cure, when a is not on this host, or else why
// Sources keeps src from being used. A source that binds foreign addresses on purpose
// (freebind) is never absent; one that is a prefix needs a local route, as without it
// no answer comes back. It does not allocate while the source is up.
func (s *State) Down(src *dialer.Source, a netip.Addr) error {
	if !src.FreeBind && !s.Host.Local(a) {
		return absent(src, a)
	}
	if s.Sources == nil {
		return nil
	}
	return s.Sources.refusal(src.Name, a.Is4())
}

// Astray returns why packets from a to dst would be lost, where the way of src is not
// beyond doubt. It does not allocate for the others.
func (s *State) Astray(src *dialer.Source, a, dst netip.Addr) error {
	if s.Sources == nil {
		return nil
	}
	return s.Sources.astray(src.Name, a, dst)
}

// While implements dialer.LifeState: a dial ends with the address that it leaves from, as a
// flow does.
func (s *State) While(ctx context.Context, src *dialer.Source, a netip.Addr) (context.Context, func()) {
	if s.Sources == nil {
		return ctx, func() {}
	}
	return s.Sources.While(ctx, src.Name, a)
}

func absent(src *dialer.Source, a netip.Addr) error {
	if src.Prefix.IsValid() {
		return fmt.Errorf("%v %w (%s)", a, ErrAbsent, addLocalRoute(src.Prefix))
	}
	return fmt.Errorf("%v %w", a, ErrAbsent)
}

// addLocalRoute returns the command that makes the addresses of p local.
func addLocalRoute(p netip.Prefix) string {
	family := ""
	if p.Addr().Is6() {
		family = "-6 "
	}
	return fmt.Sprintf("ip %sroute add local %v dev lo", family, p.Masked())
}

// ByRoute implements dialer.RouteState.
func (s *State) ByRoute(a netip.Addr) bool { return s.Host.ByRoute(a) }

// LinkAddr implements dialer.State.
func (s *State) LinkAddr(link string, is4 bool) netip.Addr { return s.Host.LinkAddr(link, is4) }

// Flows returns how many live flows leave from src.
func (s *State) Flows(src *dialer.Source) int {
	if s.Live == nil {
		return 0
	}
	return s.Live(src.Name)
}
