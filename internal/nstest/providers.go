//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// Providers is a host at two providers, each of which drops and counts what has a source
// that it did not give, as real ones do (BCP 38). The host's links are wan1 and wan2, and
// its default routes lead by wan1, so that packets from an address of wan2 are lost until
// somebody routes by source. Every address of 203.0.113.0/24 and of 2001:db8:9::/64 is
// behind both.
type Providers struct {
	Host          *Namespace
	First, Second *Namespace
}

// A ProviderLink is the host's side of the link to one provider.
type ProviderLink struct {
	V4, V6               netip.Prefix
	GatewayV4, GatewayV6 netip.Addr
}

// The links wan1 and wan2.
var (
	wan1 = ProviderLink{
		V4: netip.MustParsePrefix("198.51.100.10/24"), GatewayV4: netip.MustParseAddr("198.51.100.1"),
		V6: netip.MustParsePrefix("2001:db8:1::10/64"), GatewayV6: netip.MustParseAddr("2001:db8:1::1"),
	}
	wan2 = ProviderLink{
		V4: netip.MustParsePrefix("192.0.2.7/24"), GatewayV4: netip.MustParseAddr("192.0.2.1"),
		V6: netip.MustParsePrefix("2001:db8:7::7/64"), GatewayV6: netip.MustParseAddr("2001:db8:7::1"),
	}
)

// Wan1 and Wan2 tell the addresses of the links.
func Wan1() ProviderLink { return wan1 }

// Wan2 is Wan1 for the second link.
func Wan2() ProviderLink { return wan2 }

// NewProviders makes the namespaces, links, addresses and filters. They end with t.
func NewProviders(t testing.TB) *Providers {
	t.Helper()
	Need(t, "nft")
	p := &Providers{Host: NewNamespace(t, "host"), First: NewNamespace(t, "first"), Second: NewNamespace(t, "second")}
	for _, step := range []func() error{
		func() error { return p.join("wan1", p.First, wan1) },
		func() error { return p.join("wan2", p.Second, wan2) },
		func() error { return p.Host.addRoute("wan1", netip.MustParsePrefix("0.0.0.0/0"), wan1.GatewayV4) },
		func() error { return p.Host.addRoute("wan1", netip.MustParsePrefix("::/0"), wan1.GatewayV6) },
	} {
		if err := step(); err != nil {
			t.Fatalf("providers: %v", err)
		}
	}
	p.First.dropForeign(t, wan1)
	p.Second.dropForeign(t, wan2)
	return p
}

func (p *Providers) join(link string, provider *Namespace, l ProviderLink) error {
	if err := veth(link, p.Host, provider); err != nil {
		return err
	}
	gateways := []netip.Prefix{netip.PrefixFrom(l.GatewayV4, l.V4.Bits()), netip.PrefixFrom(l.GatewayV6, l.V6.Bits())}
	return errors.Join(
		p.Host.addAddrs(link, []netip.Prefix{l.V4, l.V6}),
		provider.addAddrs(link, gateways),
		provider.addLocal(netip.PrefixFrom(ServerV4(0), 24)),
		provider.addLocal(netip.MustParsePrefix("2001:db8:9::/64")),
		// So that the drop is the filter's, and not for want of a way back.
		provider.addRoute(link, netip.MustParsePrefix("0.0.0.0/0"), l.V4.Addr()),
		provider.addRoute(link, netip.MustParsePrefix("::/0"), l.V6.Addr()),
	)
}

// dropForeign loads the filter of a provider.
func (n *Namespace) dropForeign(t testing.TB, l ProviderLink) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`table inet provider {
	counter foreign { }
	chain input {
		type filter hook input priority 0;
		ip saddr != %v counter name foreign drop
		ip6 saddr != { %v, fe80::/10, :: } counter name foreign drop
	}
}
`, l.V4.Masked(), l.V6.Masked()))
	if r := n.Run(t, cmd); r.Err != nil {
		t.Fatalf("filter of %s: %v", n.name, r)
	}
}

// Dropped returns how many packets the filter of a provider has dropped.
func (p *Providers) Dropped(t testing.TB, provider *Namespace) int {
	t.Helper()
	r := provider.Run(t, exec.Command("nft", "list", "counter", "inet", "provider", "foreign"))
	_, after, _ := strings.Cut(r.Stdout, "packets ")
	count, _, _ := strings.Cut(after, " ")
	packets, err := strconv.Atoi(count)
	if r.Err != nil || err != nil {
		t.Fatalf("counter of %s: %v", provider.name, r)
	}
	return packets
}
