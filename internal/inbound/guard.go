package inbound

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

var (
	errUnspecified = errors.New("the unspecified address is no destination")
	errItself      = errors.New("the listener would connect to itself")
	errProtected   = errors.New("only a rule for exactly that range lets a remote client in")
)

// The ranges that a client on another host reaches only where a rule names them.
var protected = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Guard returns what a proxy's Dialer asks after the rules. A client that is not on
// loopback reaches loopback, link-local, multicast and this host's own addresses only
// where the rule that decided has a prefix inside that range: a name, a wider prefix
// or the default could open them by accident. Local tells this host's addresses.
func Guard(local func(netip.Addr) bool) func(dialer.Flow, dialer.Decision) error {
	return func(f dialer.Flow, d dialer.Decision) error {
		dst := f.Dst.Addr().Unmap().WithZone("") // no prefix contains an address with a zone
		if dst.IsUnspecified() {
			return fmt.Errorf("%w: %w", dialer.ErrDenied, errUnspecified)
		}
		client := f.Client.Addr().Unmap()
		if !client.IsValid() || client.IsLoopback() {
			return nil
		}
		if r, ok := rangeOf(dst, local); ok && !inside(d.Prefix, r) {
			return fmt.Errorf("%w: %v is in %v, and %w", dialer.ErrDenied, dst, r, errProtected)
		}
		return nil
	}
}

// notItself adds to guard, which may be nil, that nobody is connected to the very
// address that was connected to: a forward to itself would go round until something
// runs out.
func notItself(guard func(dialer.Flow, dialer.Decision) error) func(dialer.Flow, dialer.Decision) error {
	return func(f dialer.Flow, d dialer.Decision) error {
		if f.Dst == f.Asked {
			return fmt.Errorf("%w: %w", dialer.ErrDenied, errItself)
		}
		if guard == nil {
			return nil
		}
		return guard(f, d)
	}
}

// rangeOf returns the protected range of dst, or of the IPv4 address that it carries
// for a gateway.
func rangeOf(dst netip.Addr, local func(netip.Addr) bool) (netip.Prefix, bool) {
	for _, a := range []netip.Addr{dst, dialer.Embedded(dst)} {
		if !a.IsValid() {
			continue
		}
		for _, p := range protected {
			if p.Contains(a) {
				return p, true
			}
		}
		if local(a) {
			return netip.PrefixFrom(a, a.BitLen()), true
		}
	}
	return netip.Prefix{}, false
}

func inside(p, r netip.Prefix) bool {
	return p.IsValid() && p.Bits() >= r.Bits() && r.Contains(p.Addr())
}
