package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// resolver looks names up as they are, without the search list of resolv.conf: a name
// that the rules judged as intranet must not become intranet.corp.example, which another
// rule may deny.
type resolver struct {
	net.Resolver

	// files asks no name server: package net finds a name without a dot in the hosts file
	// only as it stands there, and not as an absolute one.
	files net.Resolver
}

// Resolver returns a resolver that reads the system's resolv.conf and hosts files and
// sends its queries through d, so that they leave from the source the rules choose for
// the name server. A server on loopback is asked as the kernel would: that query does
// not leave the host. Names are absolute; short ones are known from the hosts file.
func Resolver(d *dialer.Dialer) dialer.Resolver {
	ask := func(ctx context.Context, network, address string) (net.Conn, error) {
		if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().IsLoopback() {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		return d.DialContext(ctx, network, address)
	}
	refuse := func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("only the hosts file is looked at")
	}
	return &resolver{
		Resolver: net.Resolver{PreferGo: true, Dial: ask},
		files:    net.Resolver{PreferGo: true, Dial: refuse},
	}
}

// LookupNetIP is net.Resolver's.
func (r *resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	host = strings.TrimSuffix(host, ".")
	if !strings.Contains(host, ".") {
		if addrs, err := r.files.LookupNetIP(ctx, network, host); err == nil {
			return addrs, nil
		}
	}
	return r.Resolver.LookupNetIP(ctx, network, host+".")
}
