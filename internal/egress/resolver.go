package egress

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// DNS says whom names are asked of, and what is remembered. The zero value asks the
// servers of resolv.conf and remembers nothing.
type DNS struct {
	// Servers are asked in turn. None means those of ResolvFile, and where that names
	// none 127.0.0.1, as resolv.conf(5) has it.
	Servers []netip.AddrPort

	// Timeout is how long one server has for one answer. Zero means what ResolvFile
	// says if it names the servers, else 3 s.
	Timeout time.Duration

	// Cache is the number of answers that are remembered, one for each name and family.
	Cache int

	// HostsFile and ResolvFile are hosts(5) and resolv.conf(5). Both are read again when
	// they have changed. Empty means those of the system.
	HostsFile, ResolvFile string
}

// A Resolver looks names up by itself, so that each query leaves from the source that
// the rules choose for its server. A server on loopback is asked as the kernel would:
// that query does not leave the host.
//
// Names are absolute, without the search list of resolv.conf: a name that the rules
// judged as intranet must not become intranet.corp.example, which another rule may
// deny. The hosts file comes first. It is safe for concurrent use.
type Resolver struct {
	dns    DNS
	dialer *dialer.Dialer
	hosts  *watched[hosts]
	resolv *watched[host.ResolvConf]

	mu       sync.Mutex
	conf     *host.ResolvConf // that upstream was made of
	upstream *upstream        // stays as it is where dns names the servers
}

var _ dialer.Resolver = (*Resolver)(nil)

// NewResolver returns a Resolver that asks through d, which has no Resolver itself.
// Before is the one that it takes the place of, or nil: where the same servers are asked
// from the same sources, what that one remembers is kept.
func NewResolver(d *dialer.Dialer, dns DNS, before *Resolver) *Resolver {
	r := &Resolver{
		dns:    dns,
		dialer: d,
		hosts:  watch(orElse(dns.HostsFile, "/etc/hosts"), parseHosts),
		resolv: watch(orElse(dns.ResolvFile, host.ResolvFile), host.ParseResolvConf),
	}
	r.conf = r.resolv.get()
	var old *upstream
	if before != nil {
		old = before.servers()
	}
	r.upstream = r.newUpstream(old)
	return r
}

func orElse[T comparable](v, otherwise T) T {
	if v == *new(T) {
		return otherwise
	}
	return v
}

// servers returns whom to ask now.
func (r *Resolver) servers() *upstream {
	if len(r.dns.Servers) > 0 {
		return r.upstream
	}
	conf := r.resolv.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	if conf != r.conf {
		r.conf = conf
		r.upstream = r.newUpstream(r.upstream)
	}
	return r.upstream
}

// newUpstream makes what r.conf and r.dns say, with the cache of old if it fits.
func (r *Resolver) newUpstream(old *upstream) *upstream {
	u := &upstream{
		dialer:   r.dialer,
		servers:  r.dns.Servers,
		timeout:  r.dns.Timeout,
		attempts: defaultAttempts,
	}
	if len(u.servers) == 0 {
		u.system(r.conf)
	}
	u.timeout = orElse(u.timeout, defaultTimeout)
	u.identity = u.identify(r.dns.Cache)
	if old != nil && old.identity == u.identity {
		u.cache = old.cache
	} else {
		u.cache = newCache(r.dns.Cache)
	}
	return u
}

// LookupNetIP returns the addresses of a name. The network is "ip", "ip4" or "ip6". An
// error is a *net.DNSError; where a rule refuses the query to a server its text names
// the rule.
func (r *Resolver) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	kinds, ok := kindsOf[network]
	if !ok {
		return nil, &net.DNSError{Err: net.UnknownNetworkError(network).Error(), Name: name}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	addrs, known := r.local(name)
	if !known {
		return r.servers().lookup(ctx, name, kinds)
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(kinds, kindOf(a)) })
	if len(addrs) == 0 {
		return nil, notFound(name, noAddress)
	}
	return addrs, nil
}

// kindsOf is what is asked for a network.
var kindsOf = map[string][]dnsmessage.Type{
	"ip":  {dnsmessage.TypeA, dnsmessage.TypeAAAA},
	"ip4": {dnsmessage.TypeA},
	"ip6": {dnsmessage.TypeAAAA},
}

func kindOf(a netip.Addr) dnsmessage.Type {
	if a.Unmap().Is4() {
		return dnsmessage.TypeA
	}
	return dnsmessage.TypeAAAA
}

// local answers what no server is asked about, and reports whether name is such a one:
// an address, a name of the hosts file, and the special names of RFC 6761 sections 6.3
// and 6.4 and of RFC 7686.
func (r *Resolver) local(name string) ([]netip.Addr, bool) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, true
	}
	if addrs := (*r.hosts.get())[name]; len(addrs) > 0 {
		return slices.Clone(addrs), true
	}
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "localhost":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, true
	case "invalid", "onion":
		return nil, true
	}
	return nil, false
}

// Why a name has no address.
const (
	noSuchName = "no such host"
	noAddress  = "the name has no address"
)

func notFound(name, reason string) *net.DNSError {
	return &net.DNSError{Err: reason, Name: name, IsNotFound: true}
}
