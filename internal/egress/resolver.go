package egress

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// resolver is net.Resolver without a search list for names that have a dot: a name that
// the rules judged as a.example must not become a.example.corp.example.
type resolver struct{ net.Resolver }

// Resolver returns a resolver that reads the system's resolv.conf and hosts files and
// sends its queries through d, so that they leave from the source the rules choose for
// the name server. A server on loopback is asked as the kernel would: that query does
// not leave the host.
func Resolver(d *dialer.Dialer) dialer.Resolver {
	return &resolver{net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().IsLoopback() {
				return new(net.Dialer).DialContext(ctx, network, address)
			}
			return d.DialContext(ctx, network, address)
		},
	}}
}

// LookupNetIP is net.Resolver's.
func (r *resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if strings.Contains(host, ".") && !strings.HasSuffix(host, ".") {
		host += "."
	}
	return r.Resolver.LookupNetIP(ctx, network, host)
}
