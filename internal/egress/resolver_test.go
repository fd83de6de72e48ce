package egress_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

func TestResolverAsksForBothFamilies(t *testing.T) {
	s := serveNames(t, zone(60, map[string][]string{
		"both.example": {"203.0.113.9", "203.0.113.10", "2001:db8:2::9"},
		"four.example": {"203.0.113.9"},
	}))
	r := newResolver(t, egress.DNS{}, s)
	wantAddrs(t, r, "ip", "Both.Example.", "203.0.113.9", "203.0.113.10", "2001:db8:2::9")
	wantAddrs(t, r, "ip4", "both.example", "203.0.113.9", "203.0.113.10")
	wantAddrs(t, r, "ip6", "both.example", "2001:db8:2::9")
	wantAddrs(t, r, "ip", "four.example", "203.0.113.9")
	s.wantQueries(t, "udp A both.example", "udp AAAA both.example", "udp A both.example", "udp AAAA both.example",
		"udp A four.example", "udp AAAA four.example")
	if e := wantFailure(t, r, "none.example"); !e.IsNotFound || e.Err != "no such host" {
		t.Errorf("got %+v", e)
	}
	if _, err := r.LookupNetIP(t.Context(), "tcp", "both.example"); err == nil {
		t.Error("the network tcp has no error")
	}
}

// TestResolverEDNS: queries ask for answers of 1232 bytes, and a server that does not
// understand that is asked without.
func TestResolverEDNS(t *testing.T) {
	old := func(q *asked) *dnsmessage.Message {
		if len(q.Additionals) > 0 {
			m := code(q, dnsmessage.RCodeFormatError)
			m.Questions = nil // as some do
			return m
		}
		return reply(q, record(q.name(), 60, "203.0.113.9"))
	}
	s := serveNames(t, old)
	wantAddrs(t, newResolver(t, egress.DNS{}, s), "ip4", "a.example", "203.0.113.9")
	s.wantQueries(t, "udp A a.example", "udp A a.example")
	first := s.all()[0]
	if h := first.Additionals[0].Header; h.Type != dnsmessage.TypeOPT || h.Class != 1232 || !first.RecursionDesired {
		t.Errorf("the query was %+v", first)
	}
}

// TestResolverTruncated asks by TCP for an answer that is cut off by UDP, and takes no
// more addresses of it than a dial tries.
func TestResolverTruncated(t *testing.T) {
	s := serveNames(t, func(q *asked) *dnsmessage.Message {
		m := reply(q)
		if m.Truncated = q.network == "udp"; m.Truncated {
			m.Answers = append(m.Answers, record(q.name(), 60, "203.0.113.1"))
			return m
		}
		for i := range 100 {
			m.Answers = append(m.Answers, record(q.name(), 60, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String()))
		}
		return m
	})
	addrs, err := newResolver(t, egress.DNS{}, s).LookupNetIP(t.Context(), "ip4", "many.example")
	if err != nil || len(addrs) != 32 || addrs[31] != netip.MustParseAddr("203.0.113.31") {
		t.Errorf("got %v, %v", addrs, err)
	}
	s.wantQueries(t, "udp A many.example", "tcp A many.example")
}

// TestResolverAliases follows aliases, inside one answer and by further queries.
func TestResolverAliases(t *testing.T) {
	s := serveNames(t, func(q *asked) *dnsmessage.Message {
		switch q.name() {
		case "www.example":
			return reply(q, record("host.example", 60, "203.0.113.9"), cname("www.example", 60, "Web.example"),
				cname("web.example", 60, "host.example"), record("stranger.example", 60, "203.0.113.66"))
		case "short.example":
			return reply(q, cname("short.example", 60, "host.example"))
		case "host.example":
			return reply(q, record("host.example", 60, "203.0.113.9"))
		case "circle.example":
			return reply(q, cname("circle.example", 60, "other.example"), cname("other.example", 60, "circle.example"))
		case "gone.example":
			return reply(q, cname("gone.example", 60, "nowhere.example"))
		case "nowhere.example":
			return code(q, dnsmessage.RCodeNameError)
		}
		return reply(q, cname(q.name(), 60, "x"+q.name())) // and so on
	})
	r := newResolver(t, egress.DNS{}, s)
	wantAddrs(t, r, "ip4", "www.example", "203.0.113.9")
	s.wantQueries(t, "udp A www.example")
	wantAddrs(t, r, "ip4", "short.example", "203.0.113.9")
	if e := wantFailure(t, r, "circle.example"); !strings.Contains(e.Err, "form a circle") {
		t.Errorf("got %v", e)
	}
	if e := wantFailure(t, r, "gone.example"); !e.IsNotFound {
		t.Errorf("got %v", e)
	}
	if e := wantFailure(t, r, "endless.example"); !strings.Contains(e.Err, "more than 8") {
		t.Errorf("got %v", e)
	}
}

// TestResolverTurn asks the next server when one is silent or of no use, and says in the
// end what was wrong with each.
func TestResolverTurn(t *testing.T) {
	silent := serveNames(t, func(*asked) *dnsmessage.Message { return nil })
	failing := serveNames(t, func(q *asked) *dnsmessage.Message { return code(q, dnsmessage.RCodeServerFailure) })
	lame := serveNames(t, func(q *asked) *dnsmessage.Message {
		m := reply(q)
		m.RecursionAvailable = false
		return m
	})
	good := serveNames(t, zone(60, map[string][]string{"a.example": {"203.0.113.9"}}))
	short := egress.DNS{Timeout: 100 * time.Millisecond}
	wantAddrs(t, newResolver(t, short, silent, failing, lame, good), "ip", "a.example", "203.0.113.9")
	good.wantQueries(t, "udp A a.example", "udp AAAA a.example")

	e := wantFailure(t, newResolver(t, short, silent, failing, lame), "b.example")
	for s, why := range map[*nameServer]string{silent: "no answer in time", failing: "SERVFAIL", lame: "does not look names up"} {
		if !strings.Contains(e.Err, s.addr.String()+": ") || !strings.Contains(e.Err, why) {
			t.Errorf("the error does not say %q of %v: %v", why, s.addr, e)
		}
	}
	if e.IsTimeout || e.IsNotFound {
		t.Errorf("got %+v", e)
	}
	e = wantFailure(t, newResolver(t, short, silent), "c.example")
	if !e.IsTimeout || !errors.Is(e, context.DeadlineExceeded) || e.Server != silent.addr.String() {
		t.Errorf("got %+v", e)
	}
	var twice int
	for _, q := range silent.queries() {
		if q == "udp A c.example" {
			twice++
		}
	}
	if twice != 2 {
		t.Errorf("the only server was asked %d times, want twice", twice)
	}
}

// TestResolverOneFamily does not wait long for a family that the server never answers
// about when the other one is there.
func TestResolverOneFamily(t *testing.T) {
	s := serveNames(t, func(q *asked) *dnsmessage.Message {
		if q.Questions[0].Type == dnsmessage.TypeAAAA {
			return nil
		}
		return reply(q, record(q.name(), 60, "203.0.113.9"))
	})
	start := time.Now()
	wantAddrs(t, newResolver(t, egress.DNS{Timeout: time.Minute}, s), "ip", "a.example", "203.0.113.9")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v, want 500 ms", d)
	}
}

// TestResolverForged: answers with another id or to another question, and those from
// elsewhere, do not count. The true one comes behind them.
func TestResolverForged(t *testing.T) {
	s := serveNames(t, nil)
	s.mu.Lock()
	s.answer = func(q *asked) *dnsmessage.Message {
		lie := func(change func(*dnsmessage.Message)) {
			m := reply(q, record(q.name(), 60, "203.0.113.66"))
			m.Questions = slices.Clone(m.Questions)
			change(m)
			b, err := m.Pack()
			if err != nil {
				t.Error(err)
			}
			q.conn.WriteTo(b, netUDPAddr(q.peer))
		}
		lie(func(m *dnsmessage.Message) { m.ID++ })
		lie(func(m *dnsmessage.Message) { m.Response = false })
		lie(func(m *dnsmessage.Message) { m.Questions = nil })
		lie(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("b.example.") })
		lie(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeTXT })
		lie(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS })
		q.conn.WriteTo([]byte("no message"), netUDPAddr(q.peer))
		s.fromElsewhere(t, q, reply(q, record(q.name(), 60, "203.0.113.67")))
		return reply(q, record(q.name(), 60, "203.0.113.9"))
	}
	s.mu.Unlock()
	wantAddrs(t, newResolver(t, egress.DNS{}, s), "ip4", "a.example", "203.0.113.9")
}

// TestResolverIDsAndPorts: neither is the same in a hundred queries.
func TestResolverIDsAndPorts(t *testing.T) {
	s := serveNames(t, zone(0, map[string][]string{"a.example": {"203.0.113.9"}}))
	r := newResolver(t, egress.DNS{}, s)
	ids, ports := make(map[uint16]bool), make(map[uint16]bool)
	for range 100 {
		wantAddrs(t, r, "ip4", "a.example", "203.0.113.9")
	}
	for _, q := range s.all() {
		ids[q.ID], ports[q.peer.Port()] = true, true
	}
	if len(ids) < 95 || len(ports) < 50 {
		t.Errorf("%d ids and %d ports in 100 queries", len(ids), len(ports))
	}
}

// TestResolverOneQuery: of many who look a name up at the same time one asks, and all
// get the answer.
func TestResolverOneQuery(t *testing.T) {
	gate := make(chan struct{})
	s := serveNames(t, func(q *asked) *dnsmessage.Message {
		<-gate
		return reply(q, record(q.name(), 60, "203.0.113.9"))
	})
	r := newResolver(t, egress.DNS{Cache: 10}, s) // for who comes too late to wait
	var all sync.WaitGroup
	begun := make(chan struct{}, 50)
	for range 50 {
		all.Go(func() {
			begun <- struct{}{}
			wantAddrs(t, r, "ip4", "a.example", "203.0.113.9")
		})
	}
	for range 50 {
		<-begun
	}
	waitFor(t, func() bool { return len(s.queries()) > 0 })
	close(gate)
	all.Wait()
	s.wantQueries(t, "udp A a.example")
}

// TestResolverLocal needs no server: addresses, the hosts file and the special names.
func TestResolverLocal(t *testing.T) {
	s := serveNames(t, zone(0, nil))
	path := writeFile(t, "hosts", "127.0.0.1 localhost\n203.0.113.9 intranet Web.Example. # a comment\n2001:db8::9 web.example\nx y\n203.0.113.10\n")
	r := newResolver(t, egress.DNS{HostsFile: path}, s)
	wantAddrs(t, r, "ip", "intranet", "203.0.113.9")
	wantAddrs(t, r, "ip", "WEB.example", "203.0.113.9", "2001:db8::9")
	wantAddrs(t, r, "ip6", "web.example", "2001:db8::9")
	wantAddrs(t, r, "ip", "localhost", "127.0.0.1")
	wantAddrs(t, r, "ip", "a.localhost", "127.0.0.1", "::1")
	wantAddrs(t, r, "ip", "203.0.113.77", "203.0.113.77")
	for _, name := range []string{"a.invalid", "a.onion", strings.Repeat("x", 64) + ".example", strings.Repeat("x.", 200) + "example", "a..example"} {
		if e := wantFailure(t, r, name); !e.IsNotFound {
			t.Errorf("%s: got %v", name, e)
		}
	}
	if _, err := r.LookupNetIP(t.Context(), "ip6", "intranet"); err == nil {
		t.Error("intranet has an IPv6 address")
	}
	s.wantQueries(t)

	// A file that has changed is read again, and one that is gone is empty.
	replace(t, path, "203.0.113.11 intranet\n")
	wantAddrs(t, r, "ip", "intranet", "203.0.113.11")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, r, "intranet")
	s.wantQueries(t, "udp A intranet", "udp AAAA intranet")
}

// TestResolverRefused: a rule that refuses the queries to a server is named, and no
// packet is sent.
func TestResolverRefused(t *testing.T) {
	rule := dialer.Rule{Name: "no queries", Ports: []dialer.PortRange{{Lo: 53, Hi: 53}}}
	table, err := dialer.NewTable([]dialer.Rule{rule}, dialer.Use{Kernel: true})
	if err != nil {
		t.Fatal(err)
	}
	r := egress.NewResolver(&dialer.Dialer{Table: table}, egress.DNS{
		Servers:   []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
		HostsFile: writeFile(t, "hosts", ""),
	}, nil)
	e := wantFailure(t, r, "a.example")
	if want := `lookup a.example on 192.0.2.53:53: rule "no queries": denied: 192.0.2.53:53`; e.Error() != want {
		t.Errorf("got %v, want %s", e, want)
	}
	if errors.Is(e, dialer.ErrDenied) {
		t.Error("the flow itself counts as denied")
	}
}
