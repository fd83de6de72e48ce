//go:build linux

package cgroupbpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/dialer"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestCompileRefuses(t *testing.T) {
	one := &dialer.Source{Name: "one", Addrs: addrs("198.51.100.1")}
	member := []dialer.Member{{Source: one}}
	for _, tt := range []struct {
		name    string
		use     dialer.Use
		options Options
		want    string // no error when empty
	}{
		{name: "address", use: dialer.Use{Source: one}},
		{name: "interface", use: dialer.Use{Source: &dialer.Source{Name: "dsl", Interface: "ppp0"}}},
		{name: "deny"},
		{name: "kernel", use: dialer.Use{Kernel: true}},
		{name: "same", use: dialer.Use{Same: true}, want: "use same: no client"},
		{name: "prefix", use: dialer.Use{Source: &dialer.Source{Name: "x", Prefix: netip.MustParsePrefix("2001:db8:64::/64")}}, want: `source "x": is a prefix`},
		{name: "range", use: dialer.Use{Source: &dialer.Source{Name: "x", First: netip.MustParseAddr("198.51.100.1"), Last: netip.MustParseAddr("198.51.100.9")}}, want: `source "x": is a range`},
		{name: "ports", use: dialer.Use{Source: &dialer.Source{Name: "x", Addrs: one.Addrs, Ports: dialer.PortRange{Lo: 40000, Hi: 40999}}}, want: `source "x": has ports`},
		{name: "device", use: dialer.Use{Source: &dialer.Source{Name: "x", Addrs: one.Addrs, Device: "wwan0"}}, want: `source "x": has a device`},
		{name: "mark", use: dialer.Use{Source: &dialer.Source{Name: "x", Addrs: one.Addrs, Mark: 7}}, want: `source "x": has a mark`},
		{name: "mark for wildcard sockets", use: dialer.Use{Source: &dialer.Source{Name: "x", Addrs: one.Addrs, Mark: 7}}, options: Options{MarkWildcard: true}},
		{name: "least-connections", use: dialer.Use{Pool: &dialer.Pool{Name: "p", Of: member, Pick: dialer.LeastConnections}}, want: `pool "p": the kernel plane cannot pick by least-connections`},
		{name: "sticky by client", use: dialer.Use{Pool: &dialer.Pool{Name: "p", Of: member, Pick: dialer.Sticky}}, want: `pool "p": the kernel plane knows neither clients nor names`},
		{name: "sticky by host", use: dialer.Use{Pool: &dialer.Pool{Name: "p", Of: member, Pick: dialer.Sticky, By: []dialer.Key{dialer.ByHost}}}, want: `by = ["destination"]`},
		{name: "sticky by destination", use: dialer.Use{Pool: &dialer.Pool{Name: "p", Of: member, Pick: dialer.Sticky, By: []dialer.Key{dialer.ByDestination}}}},
		{name: "members", use: dialer.Use{Pool: &dialer.Pool{Name: "p", Of: make257(one)}}, want: `pool "p": has 257 members`},
		{name: "weight", use: dialer.Use{Pool: &dialer.Pool{Name: "p", Of: []dialer.Member{{Source: one, Weight: 1 << 32}}}}, want: `source "one": weight 4294967296 is above`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := dialer.NewTable([]dialer.Rule{{Name: "bad", Use: tt.use}}, dialer.Use{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = Compile(table, tt.options)
			if tt.want == "" && err != nil {
				t.Errorf("got %v, want none", err)
			}
			if tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "bad: ") || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want bad: …%s…", err, tt.want)
			}
		})
	}
}

func make257(s *dialer.Source) []dialer.Member {
	list := make([]dialer.Member, 257)
	for i := range list {
		list[i].Source = s
	}
	return list
}

// TestCompileTakesOnlyItsService: what another service's rules ask for does not matter.
func TestCompileTakesOnlyItsService(t *testing.T) {
	table, err := dialer.NewTable([]dialer.Rule{
		{Name: "other", Service: []string{"b.service"}, Use: dialer.Use{Same: true}},
		{Name: "user", User: []string{"ann"}, Use: dialer.Use{Same: true}},
		{Name: "own", Service: []string{"a.service"}, Use: dialer.Use{Source: &dialer.Source{Addrs: addrs("198.51.100.1", "2001:db8::1")}}},
	}, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compile(table, Options{Service: "a.service"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(addrs("198.51.100.1", "2001:db8::1"), r.Addrs(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("Addrs (-want +got):\n%s", diff)
	}
	if _, err := Compile(table, Options{Service: "b.service"}); err == nil || !strings.HasPrefix(err.Error(), "other: ") {
		t.Errorf("got %v, want an error of rule other", err)
	}
}

// TestCompileBounds is refused when one destination has more candidates than a hook walks through.
func TestCompileBounds(t *testing.T) {
	var rules []dialer.Rule
	for i := range maxCandidates + 1 {
		rules = append(rules, dialer.Rule{Name: fmt.Sprint(i), Ports: []dialer.PortRange{{Lo: uint16(i + 1), Hi: uint16(i + 1)}}})
	}
	for _, n := range []int{maxCandidates, maxCandidates + 1} {
		table, err := dialer.NewTable(rules[:n], dialer.Use{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Compile(table, Options{}); (err != nil) != (n > maxCandidates) {
			t.Errorf("%d rules: got %v", n, err)
		}
	}
}

// TestCompileShares files equal lists once: a map of many prefixes costs one candidate for each use.
func TestCompileShares(t *testing.T) {
	s := &dialer.Source{Name: "one", Addrs: addrs("198.51.100.1")}
	m := make(map[dialer.Match]dialer.Use)
	for i := range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		m[dialer.MatchPrefix(p)] = dialer.Use{Source: s}
	}
	table, err := dialer.NewTable([]dialer.Rule{{Map: m}}, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compile(table, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.lists) != 1000+len(everywhere)+len(special) || len(r.candidates) != 1 || len(r.members) != 1 {
		t.Errorf("got %d lists, %d candidates, %d members, want 1 candidate and 1 member", len(r.lists), len(r.candidates), len(r.members))
	}
}

func TestAddressKeys(t *testing.T) {
	for _, s := range []string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::/96", "::1/128"} {
		p := netip.MustParsePrefix(s)
		if got := prefixOf(key(p)); got != p {
			t.Errorf("%v becomes %v", p, got)
		}
	}
	if got, want := key(netip.MustParsePrefix("10.0.0.0/8")).Bits, uint32(104); got != want {
		t.Errorf("bits of a mapped prefix: got %d, want %d", got, want)
	}
}
