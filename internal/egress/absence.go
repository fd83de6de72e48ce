package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/srcproxy/srcproxy/internal/host"
)

// The reasons for which an address that is on an interface cannot be used.
var (
	errTentative = errors.New("is still tentative: duplicate address detection is not over")
	errDuplicate = errors.New("is on another host of the link, too: duplicate address detection failed")
	errNoRoute   = errors.New("has no local route; is the link down?")
)

// The reasons for which a link has no address to follow.
var (
	errNoLink   = errors.New("is not there")
	errLinkDown = errors.New("is down")
	errNoIPv4   = errors.New("has no global IPv4 address")
	errNoIPv6   = errors.New("has no global IPv6 address that is neither temporary nor deprecated")
)

// whereabouts tells why a, which is not local, is not.
func whereabouts(now *host.Snapshot, a netip.Addr) error {
	i := slices.IndexFunc(now.Addresses(), func(x host.Address) bool { return x.Addr == a })
	if i < 0 {
		return ErrAbsent
	}
	x := &now.Addresses()[i]
	reason := errNoRoute
	switch {
	case x.Flags&host.DADFailed != 0:
		reason = errDuplicate
	case !x.Flags.Usable():
		reason = errTentative
	}
	return fmt.Errorf("(%s) %w", x.Link, reason)
}

// linkAbsence tells why a link has no address to follow.
func linkAbsence(now *host.Snapshot, link string, is4 bool) error {
	i := slices.IndexFunc(now.Links(), func(l host.Link) bool { return l.Name == link })
	switch {
	case i < 0:
		return errNoLink
	case !now.Links()[i].Up:
		return errLinkDown
	case is4:
		return errNoIPv4
	}
	return errNoIPv6
}
