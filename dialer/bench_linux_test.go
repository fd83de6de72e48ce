package dialer_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

func TestAllocs(t *testing.T) {
	prefix := &dialer.Source{Name: "prefix", Prefix: netip.MustParsePrefix("192.0.2.0/24")}
	span := &dialer.Source{Name: "range", First: addrs("192.0.2.10")[0], Last: addrs("192.0.2.20")[0]}
	members := []dialer.Member{{Source: wan1}, {Source: prefix, Weight: 2}, {Source: span}}
	rules := []dialer.Rule{
		{To: to("198.51.100.0/24"), Ports: []dialer.PortRange{{Lo: 80, Hi: 80}}, Use: from(wan1)},
		{To: to("*.shop.example"), Use: from(prefix)},
		{Map: map[dialer.Match]dialer.Use{key("203.0.113.0/24"): from(span), key("2001:db8::/32"): from(six)}},
		{User: []string{"kernel"}, Use: kernel},
		{User: []string{"same"}, Use: dialer.Use{Same: true}},
	}
	for pick := dialer.FirstUp; pick <= dialer.LeastConnections; pick++ {
		pool := &dialer.Pool{Name: pick.String(), Of: members, Pick: pick, For: 1e9, By: []dialer.Key{dialer.ByClient, dialer.ByHost}}
		rules = append(rules, dialer.Rule{User: []string{pick.String()}, Use: of(pool)})
	}
	table := newTable(t, from(wan2), rules...)
	user := func(name string) dialer.Flow {
		f := named("www.other.example", "192.0.2.1:80")
		f.User, f.Session = name, "1"
		f.Asked = netip.MustParseAddrPort("198.51.100.7:1080")
		return f
	}
	for name, f := range map[string]dialer.Flow{
		"prefix":            tcp("198.51.100.1:80"),
		"name":              named("www.shop.example", "192.0.2.1:80"),
		"map":               tcp("203.0.113.1:80"),
		"IPv6":              tcp("[2001:db8::1]:80"),
		"kernel":            user("kernel"),
		"same":              user("same"),
		"default":           tcp("192.0.2.1:80"),
		"first-up":          user("first-up"),
		"round-robin":       user("round-robin"),
		"random":            user("random"),
		"sticky":            user("sticky"),
		"least-connections": user("least-connections"),
	} {
		if d := table.Lookup(f); d.Err != nil {
			t.Errorf("%s: %v", name, d.Err)
		}
		if n := testing.AllocsPerRun(100, func() { table.Lookup(f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkLookup must not grow with the number of rules.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		rules := make([]dialer.Rule, 0, n+1)
		for i := range n / 2 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), byte(i << 4)}), 28)
			rules = append(rules,
				dialer.Rule{To: []dialer.Match{dialer.MatchPrefix(p)}, Use: from(wan1)},
				dialer.Rule{To: to(fmt.Sprintf("*.host%d.example", i)), Use: from(wan2)})
		}
		table := newTable(b, from(mail), rules...)
		last := n/2 - 1
		for name, f := range map[string]dialer.Flow{
			"prefix":  tcp(fmt.Sprintf("10.%d.%d.%d:80", byte(last>>12), byte(last>>4), byte(last<<4))),
			"name":    named(fmt.Sprintf("www.host%d.example", last), "192.0.2.1:80"),
			"default": tcp("192.0.2.1:80"),
		} {
			b.Run(fmt.Sprintf("%s/rules=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if d := table.Lookup(f); d.Err != nil {
						b.Fatal(d.Err)
					}
				}
			})
		}
	}
}

// BenchmarkDial compares a dial by rules with one of net.Dialer from the same address.
func BenchmarkDial(b *testing.B) {
	server := serve(b, "127.0.0.1:0")
	ruled := &dialer.Dialer{Table: newTable(b, deny, dialer.Rule{To: to("127.0.0.0/8"), Use: from(wan1)})}
	bound := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for name, dial := range map[string]func() (net.Conn, error){
		"dialer": func() (net.Conn, error) { return ruled.DialContext(b.Context(), "tcp", server.String()) },
		"net":    func() (net.Conn, error) { return bound.DialContext(b.Context(), "tcp", server.String()) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := dial()
				if err != nil {
					b.Fatal(err)
				}
				// A reset leaves no TIME_WAIT behind, so that ports do not run out.
				if err := c.(*net.TCPConn).SetLinger(0); err != nil {
					b.Fatal(err)
				}
				_ = c.Close()
			}
		})
	}
}
