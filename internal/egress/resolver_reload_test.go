package egress_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

func netUDPAddr(a netip.AddrPort) net.Addr { return net.UDPAddrFromAddrPort(a) }

// fromElsewhere sends an answer to q from another address than the server's, and from
// another port of it.
func (s *nameServer) fromElsewhere(t *testing.T, q *asked, m *dnsmessage.Message) {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	for _, from := range []string{"127.0.0.54:0", s.addr.Addr().String() + ":0"} {
		c, err := net.ListenPacket("udp", from)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := c.WriteTo(b, netUDPAddr(q.peer)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not in 20 s")
		}
	}
}

// replace puts a new file into the place of one, as editors do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestResolverRemembers: a second look-up asks nobody, also when the first found
// nothing; the addresses take turns.
func TestResolverRemembers(t *testing.T) {
	s := serveNames(t, func(q *asked) *dnsmessage.Message {
		switch q.name() {
		case "a.example":
			return reply(q, record("a.example", 60, "203.0.113.1"), record("a.example", 60, "203.0.113.2"), record("a.example", 60, "203.0.113.3"))
		case "empty.example":
			m := reply(q)
			m.Authorities = append(m.Authorities, soa("example", 60, 60))
			return m
		}
		return code(q, dnsmessage.RCodeNameError) // without SOA: not remembered
	})
	r := newResolver(t, egress.DNS{Cache: 10}, s)
	var firsts []string
	for range 4 {
		addrs, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
		if err != nil || len(addrs) != 3 {
			t.Fatalf("got %v, %v", addrs, err)
		}
		firsts = append(firsts, addrs[0].String())
		wantFailure(t, r, "empty.example")
		wantFailure(t, r, "none.example")
	}
	if firsts[0] == firsts[1] || firsts[1] == firsts[2] || firsts[0] == firsts[2] || firsts[0] != firsts[3] {
		t.Errorf("the first addresses were %v, want them to take turns", firsts)
	}
	want := []string{"udp A a.example", "udp A empty.example", "udp AAAA empty.example"}
	for range 4 {
		want = append(want, "udp A none.example", "udp AAAA none.example")
	}
	s.wantQueries(t, want...)
}

// TestResolverRemembersFailures for a moment, so that flows to a name whose servers are
// dead do not all wait for them.
func TestResolverRemembersFailures(t *testing.T) {
	s := serveNames(t, func(q *asked) *dnsmessage.Message { return code(q, dnsmessage.RCodeServerFailure) })
	r := newResolver(t, egress.DNS{Cache: 10}, s)
	for range 3 {
		if e := wantFailure(t, r, "a.example"); e.IsNotFound {
			t.Errorf("got %+v", e)
		}
	}
	if n := len(s.queries()); n != 4 {
		t.Errorf("%d queries, want 2 for each family", n)
	}
}

// TestResolverReload: what is remembered outlives the configuration, unless other
// servers or other sources are asked from now on.
func TestResolverReload(t *testing.T) {
	s := serveNames(t, zone(60, map[string][]string{"a.example": {"203.0.113.9"}}))
	other := serveNames(t, zone(60, map[string][]string{"a.example": {"203.0.113.10"}}))
	from := func(addr string) *dialer.Dialer {
		src := &dialer.Source{Name: "wan", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
		table, err := dialer.NewTable(nil, dialer.Use{Pool: &dialer.Pool{Name: "all", Of: []dialer.Member{{Source: src}}}})
		if err != nil {
			t.Fatal(err)
		}
		return &dialer.Dialer{Table: table}
	}
	dns := egress.DNS{Servers: []netip.AddrPort{s.addr}, Cache: 10, HostsFile: writeFile(t, "hosts", "")}
	r := egress.NewResolver(from("127.0.0.2"), dns, nil)
	look := func(queries int, addr string) {
		t.Helper()
		wantAddrs(t, r, "ip4", "a.example", addr)
		if n := len(s.queries()); n != queries {
			t.Errorf("the server got %d queries, want %d", n, queries)
		}
	}
	look(1, "203.0.113.9")
	dns.Timeout = time.Second
	r = egress.NewResolver(from("127.0.0.2"), dns, r)
	look(1, "203.0.113.9")
	r = egress.NewResolver(from("127.0.0.3"), dns, r)
	look(2, "203.0.113.9")
	dns.Cache = 20
	r = egress.NewResolver(from("127.0.0.3"), dns, r)
	look(3, "203.0.113.9")
	dns.Servers = []netip.AddrPort{other.addr}
	r = egress.NewResolver(from("127.0.0.3"), dns, r)
	look(3, "203.0.113.10")
}

// TestResolverSystem reads resolv.conf again when it has changed.
func TestResolverSystem(t *testing.T) {
	path := writeFile(t, "resolv.conf", "nameserver 192.0.2.53\nnameserver 192.0.2.54\noptions timeout:1 attempts:1\n")
	deny, err := dialer.NewTable(nil, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	r := egress.NewResolver(&dialer.Dialer{Table: deny}, egress.DNS{HostsFile: writeFile(t, "hosts", ""), ResolvFile: path}, nil)
	if got, want := wantFailure(t, r, "a.example").Error(), "lookup a.example: 192.0.2.53:53: default: denied: 192.0.2.53:53; 192.0.2.54:53: default: denied: 192.0.2.54:53"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	replace(t, path, "nameserver 192.0.2.55\n")
	if got, want := wantFailure(t, r, "a.example").Server, "192.0.2.55:53"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// BenchmarkResolver looks a name up that is remembered, and one that is asked about each
// time.
func BenchmarkResolver(b *testing.B) {
	s := serveNames(b, zone(60, map[string][]string{"a.example": {"203.0.113.9", "2001:db8:2::9"}}))
	for _, size := range []int{0, 10} {
		b.Run(fmt.Sprintf("cache=%d", size), func(b *testing.B) {
			r := newResolver(b, egress.DNS{Cache: size}, s)
			for b.Loop() {
				if addrs, err := r.LookupNetIP(b.Context(), "ip", "a.example"); err != nil || len(addrs) != 2 {
					b.Fatal(addrs, err)
				}
			}
		})
	}
}
