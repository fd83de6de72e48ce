package egress

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/srcproxy/srcproxy/dialer"
)

// Bound is what one party may have. Zero fields are no limit.
type Bound struct {
	Connections int // at one time
	PerSecond   int // new ones; as many may come at once
}

// Bounds are the limits of a configuration. They are not changed once Limits has them.
type Bounds struct {
	Sources map[string]Bound // by name; what is zero there is as in PerSource

	PerSource, PerClient, PerUser Bound
}

// source returns the bound of a source, and whether each field is its own.
func (b *Bounds) source(name string) (bound Bound, ownConnections, ownRate bool) {
	own := b.Sources[name]
	bound = b.PerSource
	if own.Connections > 0 {
		bound.Connections = own.Connections
	}
	if own.PerSecond > 0 {
		bound.PerSecond = own.PerSecond
	}
	return bound, own.Connections > 0, own.PerSecond > 0
}

// Limits counts the flows of sources, clients and users, and refuses those that are too
// many. It outlives reloads. Its zero value is ready and bounds nothing; it is safe for
// concurrent use. Errors match dialer.ErrLimit and name the key of the configuration.
// Who has entered leaves once: by the same name, when the flow has ended.
type Limits struct {
	bounds  atomic.Pointer[Bounds]
	sources quota[string]
	users   quota[string]
	clients quota[netip.Prefix]
	excess  quota[netip.Prefix]
}

var _ dialer.Limiter = (*Limits)(nil)

// Set puts b in force. What there is stays, also where it is too much now.
func (l *Limits) Set(b *Bounds) { l.bounds.Store(b) }

func (l *Limits) now() *Bounds {
	if b := l.bounds.Load(); b != nil {
		return b
	}
	return new(Bounds)
}

// Of returns the flows that a source has, and how many it may have; 0 is no limit.
func (l *Limits) Of(source string) (n, most int) {
	b, _, _ := l.now().source(source)
	return l.sources.count(source), b.Connections
}

// Full implements dialer.Limiter.
func (l *Limits) Full(s *dialer.Source) error {
	b, _, _ := l.now().source(s.Name)
	return l.sourceError(s.Name, l.sources.full(s.Name, b))
}

// Enter implements dialer.Limiter.
func (l *Limits) Enter(s *dialer.Source) error {
	b, _, _ := l.now().source(s.Name)
	return l.sourceError(s.Name, l.sources.enter(s.Name, b))
}

// Leave implements dialer.Limiter.
func (l *Limits) Leave(s *dialer.Source) { l.LeaveSource(s.Name) }

// LeaveSource is Leave for who knows the name only. One that never entered may leave.
func (l *Limits) LeaveSource(name string) { l.sources.leave(name) }

func (l *Limits) sourceError(name string, v verdict) error {
	if v == admitted {
		return nil
	}
	b, ownConnections, ownRate := l.now().source(name)
	key := "limits.per_source." + v.key()
	switch {
	case v == tooMany && ownConnections:
		key = "limit"
	case v == tooFast && ownRate:
		key = v.key()
	}
	return fmt.Errorf("%w: %s = %d, of source %q", dialer.ErrLimit, key, v.of(b), name)
}

// EnterUser takes a place of the user with that name.
func (l *Limits) EnterUser(name string) error {
	b := l.now().PerUser
	if v := l.users.enter(name, b); v != admitted {
		return fmt.Errorf("%w: limits.per_user.%s = %d, of %q", dialer.ErrLimit, v.key(), v.of(b), name)
	}
	return nil
}

// LeaveUser gives it back.
func (l *Limits) LeaveUser(name string) { l.users.leave(name) }

// EnterClient takes a place of the client with that address. In IPv6 all addresses of a
// /64 are one client, as they are one host to give out (RFC 7934).
func (l *Limits) EnterClient(a netip.Addr) error {
	b := l.now().PerClient
	if v := l.clients.enter(clientOf(a), b); v != admitted {
		return fmt.Errorf("%w: limits.per_client.%s = %d, of %v", dialer.ErrLimit, v.key(), v.of(b), clientOf(a))
	}
	return nil
}

// LeaveClient gives it back. One that never entered may leave.
func (l *Limits) LeaveClient(a netip.Addr) { l.clients.leave(clientOf(a)) }

// maxExcess is how many connections one client has beyond its limit, each for as long as
// it takes to tell it so.
const maxExcess = 16

// EnterExcess takes one of the few places that a client has to be told that EnterClient
// refuses it. It reports whether there was one.
func (l *Limits) EnterExcess(a netip.Addr) bool {
	return l.excess.enter(clientOf(a), Bound{Connections: maxExcess}) == admitted
}

// LeaveExcess gives it back.
func (l *Limits) LeaveExcess(a netip.Addr) { l.excess.leave(clientOf(a)) }

// clientOf returns what counts as one client.
func clientOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return netip.PrefixFrom(a, 32)
	}
	return netip.PrefixFrom(a, 64).Masked()
}
