//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The addresses of the proxy host are ProxyV4(1) and ProxyV6(1), which the
// kernel itself chooses and which no test names in a rule, and those from
// FirstSource to LastSource of both families.
const (
	FirstSource = 10
	LastSource  = 41
)

// The last host of the proxy's networks is the server; every address of
// 203.0.113.0/24 and those from 1 to LastServer of 2001:db8:2::/64 are the
// server's too.
const (
	gateway    = 254
	LastServer = 40
)

// ProxyV4 is the address i of the proxy host: 198.51.100.i.
func ProxyV4(i int) netip.Addr { return host("198.51.100.%d", i) }

// ProxyV6 is the address i of the proxy host, read as hexadecimal digits:
// ProxyV6(10) is 2001:db8:1::10.
func ProxyV6(i int) netip.Addr { return host("2001:db8:1::%d", i) }

// ServerV4 is the address i of the server: 203.0.113.i.
func ServerV4(i int) netip.Addr { return host("203.0.113.%d", i) }

// ServerV6 is the address i of the server, read as ProxyV6 does.
func ServerV6(i int) netip.Addr { return host("2001:db8:2::%d", i) }

// LanV4 is 192.0.2.i: 1 to 8 are the proxy host's on the side of the client,
// 100 is the client's.
func LanV4(i int) netip.Addr { return host("192.0.2.%d", i) }

// LanV6 is 2001:db8:8::i, with the same numbers as LanV4.
func LanV6(i int) netip.Addr { return host("2001:db8:8::%d", i) }

// RoutedPrefix is routed to the proxy host and local there as a whole: any
// address of it can be a source that is bound with IPV6_FREEBIND.
func RoutedPrefix() netip.Prefix { return netip.MustParsePrefix("2001:db8:64::/64") }

// DNSServer is where resolv.conf points to.
func DNSServer() netip.Addr { return ServerV4(53) }

func host(format string, i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, i)) }

// Topology is a proxy host with many addresses and a server behind a veth pair
// (link wan0 on both sides), and with WithClient a client on a second one
// (lan0). Client and server reach each other only through the proxy.
type Topology struct {
	Proxy, Server, Client *Namespace
}

// Option changes the Topology.
type Option int

// WithClient adds the client's namespace.
const WithClient Option = 1

// NewTopology makes the namespaces, links and addresses. They end with t.
func NewTopology(t testing.TB, options ...Option) *Topology {
	t.Helper()
	top := &Topology{Proxy: NewNamespace(t, "proxy"), Server: NewNamespace(t, "server")}
	steps := []func() error{top.wan, top.proxyRoutes, top.serverRoutes}
	for _, o := range options {
		if o == WithClient {
			top.Client = NewNamespace(t, "client")
			steps = append(steps, top.lan)
		}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("topology: %v", err)
		}
	}
	return top
}

func (top *Topology) wan() error {
	if err := veth("wan0", top.Proxy, top.Server); err != nil {
		return err
	}
	var proxy, server []netip.Prefix
	proxy = append(proxy, netip.PrefixFrom(ProxyV4(1), 24)) // first: the primary of IPv4
	for i := FirstSource; i <= LastSource; i++ {
		proxy = append(proxy, netip.PrefixFrom(ProxyV4(i), 24), netip.PrefixFrom(ProxyV6(i), 64))
	}
	proxy = append(proxy, netip.PrefixFrom(ProxyV6(1), 64)) // last: IPv6 prefers the newest of equals
	server = append(server, netip.PrefixFrom(ProxyV4(gateway), 24), netip.PrefixFrom(ProxyV6(gateway), 64))
	for i := 1; i <= LastServer; i++ {
		server = append(server, netip.PrefixFrom(ServerV6(i), 128))
	}
	return errors.Join(top.Proxy.addAddrs("wan0", proxy), top.Server.addAddrs("wan0", server))
}

func (top *Topology) proxyRoutes() error {
	return errors.Join(
		top.Proxy.addRoute("wan0", netip.MustParsePrefix("0.0.0.0/0"), ProxyV4(gateway)),
		top.Proxy.addRoute("wan0", netip.MustParsePrefix("::/0"), ProxyV6(gateway)),
		top.Proxy.addLocal(RoutedPrefix()),
	)
}

func (top *Topology) serverRoutes() error {
	return errors.Join(
		top.Server.addLocal(netip.PrefixFrom(ServerV4(0), 24)),
		top.Server.addRoute("wan0", RoutedPrefix(), ProxyV6(1)),
	)
}

func (top *Topology) lan() error {
	if err := veth("lan0", top.Proxy, top.Client); err != nil {
		return err
	}
	var proxy []netip.Prefix
	for i := 1; i <= 8; i++ {
		proxy = append(proxy, netip.PrefixFrom(LanV4(i), 24), netip.PrefixFrom(LanV6(i), 64))
	}
	client := []netip.Prefix{netip.PrefixFrom(LanV4(100), 24), netip.PrefixFrom(LanV6(100), 64)}
	return errors.Join(top.Proxy.addAddrs("lan0", proxy), top.Client.addAddrs("lan0", client))
}

// Join joins two namespaces by one more link, which has that name on both sides and no
// addresses.
func Join(t testing.TB, name string, a, b *Namespace) {
	t.Helper()
	if err := veth(name, a, b); err != nil {
		t.Fatal(err)
	}
}

// veth joins a and b by a link that has one name on both sides.
func veth(name string, a, b *Namespace) error {
	v := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, MTU: 1500, Namespace: netlink.NsFd(a.fd)},
		PeerName:      name,
		PeerNamespace: netlink.NsFd(b.fd),
	}
	if err := netlink.LinkAdd(v); err != nil {
		return fmt.Errorf("veth %s: %w", name, err)
	}
	return errors.Join(a.linkUp(name), b.linkUp(name))
}

func (n *Namespace) linkUp(name string) error {
	return n.onLink(name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetUp(l) })
}

// onLink calls f with a handle of the namespace and the link of that name.
func (n *Namespace) onLink(name string, f func(*netlink.Handle, netlink.Link) error) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(n.fd))
	if err != nil {
		return fmt.Errorf("netlink in %s: %w", n.name, err)
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s in %s: %w", name, n.name, err)
	}
	if err := f(h, l); err != nil {
		return fmt.Errorf("link %s in %s: %w", name, n.name, err)
	}
	return nil
}

func (n *Namespace) addAddrs(link string, addrs []netip.Prefix) error {
	return n.onLink(link, func(h *netlink.Handle, l netlink.Link) error {
		for _, p := range addrs {
			a := &netlink.Addr{IPNet: ipNet(p)}
			if p.Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := h.AddrAdd(l, a); err != nil {
				return fmt.Errorf("address %v: %w", p, err)
			}
		}
		for _, p := range addrs {
			if err := routed(h, p.Addr()); err != nil {
				return err
			}
		}
		return nil
	})
}

// routed waits for the local route of an address. The kernel adds that of an IPv6 one a
// moment later, and when it has seen that the link is up.
func routed(h *netlink.Handle, a netip.Addr) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); ; <-tick.C {
		routes, err := h.RouteGet(a.AsSlice())
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("address %v: no local route: %v, %w", a, routes, err)
		}
	}
}

func (n *Namespace) addRoute(link string, to netip.Prefix, via netip.Addr) error {
	return n.onLink(link, func(h *netlink.Handle, l netlink.Link) error {
		return h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to), Gw: via.AsSlice()})
	})
}

// addLocal makes every address of p local, what ip-route calls
// `local P dev lo`.
func (n *Namespace) addLocal(p netip.Prefix) error {
	return n.onLink("lo", func(h *netlink.Handle, l netlink.Link) error {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL}
		if p.Addr().Is4() {
			r.Scope = netlink.SCOPE_HOST
		}
		return h.RouteAdd(r)
	})
}

// AddAddr adds an address to a link that is up, and waits for its local route. There is
// no duplicate address detection.
func (n *Namespace) AddAddr(t testing.TB, link string, p netip.Prefix) {
	t.Helper()
	if err := n.addAddrs(link, []netip.Prefix{p}); err != nil {
		t.Fatal(err)
	}
}

// DelAddr takes an address from a link.
func (n *Namespace) DelAddr(t testing.TB, link string, p netip.Prefix) {
	t.Helper()
	err := n.onLink(link, func(h *netlink.Handle, l netlink.Link) error {
		return h.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)})
	})
	if err != nil {
		t.Fatalf("address %v: %v", p, err)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
