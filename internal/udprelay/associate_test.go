package udprelay

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/socks"
)

// clientAddr is where the clients of these tests are.
var clientAddr = netip.MustParseAddr("127.0.0.9")

// associate serves an association of a client at clientAddr, after change had its say.
func associate(t testing.TB, e *Engine, d *dialer.Dialer, change func(*AssociateSettings)) *Association {
	t.Helper()
	s := &AssociateSettings{
		Flow: dialer.Flow{
			Network:  "udp",
			Listener: "office",
			Client:   netip.AddrPortFrom(clientAddr, 1),
			Asked:    netip.MustParseAddrPort("127.0.0.1:1080"),
			User:     "ann",
		},
		Dialer: func() *dialer.Dialer { return d },
		Local:  netip.MustParseAddr("127.0.0.1"),
	}
	if change != nil {
		change(s)
	}
	a, err := e.Associate(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	entry := e.Flows.Open(flows.Info{Listener: s.Flow.Listener, Network: "udp", Client: s.Flow.Client}, nil)
	a.Serve(entry)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		entry.Done(nil)
	})
	return a
}

// rulesTo sends what goes to each prefix by the use beside it, and denies the rest.
func rulesTo(t testing.TB, uses map[string]dialer.Use) *dialer.Dialer {
	t.Helper()
	var rules []dialer.Rule
	for to, u := range uses {
		m, err := dialer.ParseMatch(to)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, dialer.Rule{Name: "to " + to, To: []dialer.Match{m}, Use: u})
	}
	return byRules(t, rules)
}

func useOf(name string, addrs ...string) dialer.Use {
	return dialer.Use{Source: source(name, addrs...)}
}

// datagram is what a client sends for a destination.
func datagram(dst netip.AddrPort, payload string) string {
	return string(socks.AppendDatagram(nil, socks.Addr{Addr: dst}, []byte(payload)))
}

func named(name string, port uint16, payload string) string {
	dst := socks.Addr{Name: name, Addr: netip.AddrPortFrom(netip.Addr{}, port)}
	return string(socks.AppendDatagram(nil, dst, []byte(payload)))
}

// unwrap returns the payload of what a client received, and where it came from.
func unwrap(t testing.TB, s string) (string, netip.AddrPort) {
	t.Helper()
	d, err := socks.ParseDatagram([]byte(s))
	if err != nil {
		t.Fatalf("%.40q: %v", s, err)
	}
	return string(d.Payload), d.Dst.Addr
}

// hear returns the next datagram that c got by way of a.
func hear(t testing.TB, c *net.UDPConn, a *Association) (string, netip.AddrPort) {
	t.Helper()
	s, from := receive(t, c)
	if from != a.Addr() {
		t.Fatalf("a datagram came from %v, want the relay %v", from, a.Addr())
	}
	return unwrap(t, s)
}

// through sends payload to dst by way of a, and wants it back from there.
func through(t testing.TB, c *net.UDPConn, a *Association, dst netip.AddrPort, payload string) {
	t.Helper()
	send(t, c, a.Addr(), datagram(dst, payload))
	if got, from := hear(t, c, a); got != payload || from != dst {
		t.Fatalf("got %d bytes %.20q from %v, want %d bytes from %v", len(got), got, from, len(payload), dst)
	}
}

// TestAssociateSources sends from one client's socket to destinations under different
// rules: each sees the source of its rule, and one without any gets nothing.
func TestAssociateSources(t *testing.T) {
	e, lines := newEngine(t)
	one, two, three := newPeer(t, "127.0.0.11:0", false), newPeer(t, "127.0.0.12:0", false), newPeer(t, "127.0.0.13:0", false)
	six, refused := newPeer(t, "[::1]:0", false), newPeer(t, "127.0.0.14:0", false)
	a := associate(t, e, rulesTo(t, map[string]dialer.Use{
		"127.0.0.11": useOf("wan1", "127.0.0.2"),
		"127.0.0.12": useOf("wan2", "127.0.0.3", "::1"),
		"127.0.0.13": useOf("wan3", "127.0.0.4"),
		"::1":        useOf("wan2", "127.0.0.3", "::1"),
		"127.0.0.14": useOf("only6", "::1"),
	}), nil)
	c := open(t, "127.0.0.9:0")
	ports := make(map[uint16]bool)
	for _, p := range []struct {
		*peer
		source string
	}{{one, "127.0.0.2"}, {two, "127.0.0.3"}, {three, "127.0.0.4"}, {six, "::1"}, {one, "127.0.0.2"}} {
		through(t, c, a, p.addr, "ping")
		saw := p.sources(t, 1)
		if got := saw[len(saw)-1]; got.Addr() != netip.MustParseAddr(p.source) {
			t.Errorf("%v was called from %v, want %s", p.addr, got, p.source)
		}
		ports[saw[0].Port()] = true
	}
	if len(ports) != 1 {
		t.Errorf("the datagrams left from the ports %v, want one", ports)
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(one.addr.Addr().As16()), one.addr.Port())
	send(t, c, a.Addr(), "\x00\x00\x00\x04"+string(mapped.Addr().AsSlice())+portBytes(mapped)+"mapped")
	if got, from := hear(t, c, a); got != "mapped" || from != one.addr {
		t.Errorf("mapped: got %q from %v", got, from)
	}
	for range 10 {
		send(t, c, a.Addr(), datagram(refused.addr, "never"))
	}
	until(t, "10 are refused", func() bool { return dropped(e, Refused) == 10 })
	through(t, c, a, one.addr, "still")
	if got := refused.count(); got != 0 {
		t.Errorf("%d datagrams left although no source has the family", got)
	}
	if n := lines.count("no source of this family"); n != 1 {
		t.Errorf("the refusal left %d lines, want 1:\n%s", n, lines)
	}
	if s := e.Stats(); s.Associations != 1 || s.Destinations != 4 {
		t.Errorf("%d associations with %d destinations, want 1 with 4", s.Associations, s.Destinations)
	}
}

func portBytes(a netip.AddrPort) string { return string([]byte{byte(a.Port() >> 8), byte(a.Port())}) }

// count returns how many datagrams have come so far.
func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

// TestAssociateMalformed is about what no relay may take: it is dropped and counted,
// and the good one behind it gets through.
func TestAssociateMalformed(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c := open(t, "127.0.0.9:0")
	u := "\x01" + string(p.addr.Addr().AsSlice()) + portBytes(p.addr)
	for _, tt := range []struct {
		name, text string
		drop       Drop
	}{
		{"49 fragment 1", "\x00\x00\x01" + u + "x", Fragment},
		{"49 last fragment", "\x00\x00\x82" + u + "x", Fragment},
		{"50 empty", "", Short},
		{"50 one byte", "\x00", Short},
		{"50 three bytes", "\x00\x00\x00", Short},
		{"50 five bytes", "\x00\x00\x00\x01\x7f", Short},
		{"51 long name that is not there", "\x00\x00\x00\x03\xff\x41\x41", Short},
		{"a name with a NUL", "\x00\x00\x00\x03\x03a\x00b\x00\x35x", BadName},
		{"an empty name", "\x00\x00\x00\x03\x00\x00\x35x", BadName},
		{"an unknown type of address", "\x00\x00\x00\x02" + u[1:] + "x", AddressType},
		{"port 0", "\x00\x00\x00\x01\x7f\x00\x00\x0b\x00\x00x", PortZero},
		{"0.0.0.0", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x35x", Unspecified},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := dropped(e, tt.drop)
			send(t, c, a.Addr(), tt.text)
			through(t, c, a, p.addr, "good")
			if n := dropped(e, tt.drop) - before; n != 1 {
				t.Errorf("%d are counted as %v, want 1", n, tt.drop)
			}
		})
	}
	if n := p.count(); n != 12 {
		t.Errorf("the peer got %d datagrams, want the 12 good ones", n)
	}
}

// TestAssociateSizes relays every size whole, both ways, and counts the payload.
func TestAssociateSizes(t *testing.T) {
	e, _ := newEngine(t)
	d := always(t, useOf("wan1", "127.0.0.2", "::1"))
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	total := 0
	for _, address := range []string{"127.0.0.11:0", "[::1]:0"} {
		p := newPeer(t, address, false)
		header := headerIPv4
		if p.addr.Addr().Is6() {
			header = headerIPv6
		}
		for _, n := range []int{0, 1, 2, 4, 1472, 9000, 65507 - header} {
			through(t, c, a, p.addr, strings.Repeat("x", n))
			total += n
		}
	}
	until(t, "all is counted", func() bool {
		return a.entry.Up.Load() == int64(total) && a.entry.Down.Load() == int64(total)
	})
}

// TestAssociateTooLarge drops an answer that no datagram to the client could hold,
// whole, and counts it.
func TestAssociateTooLarge(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", true)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c := open(t, "127.0.0.9:0")
	send(t, c, a.Addr(), datagram(p.addr, "hello"))
	from := p.sources(t, 1)[0]
	send(t, p.UDPConn, from, strings.Repeat("x", 65507))
	until(t, "it is dropped", func() bool { return dropped(e, Unsent)+dropped(e, Truncated) == 1 })
	send(t, p.UDPConn, from, "small")
	if got, _ := hear(t, c, a); got != "small" {
		t.Errorf("got %d bytes, want the small datagram", len(got))
	}
}

// TestAssociateICMP sends to a closed port and to an open one by turns: the errors of
// the first lose nothing of the second.
func TestAssociateICMP(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	closed := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.12"), freePort(t, "127.0.0.12"))
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c := open(t, "127.0.0.9:0")
	for range 50 {
		send(t, c, a.Addr(), datagram(closed, "x"))
		through(t, c, a, p.addr, "good")
	}
	until(t, "ICMP errors are counted", func() bool { return e.Stats().ICMP > 0 })
}

// TestAssociateShares has one association take all destinations that there may be: another
// gets its share, and the first has no more than its own then.
func TestAssociateShares(t *testing.T) {
	e, _ := newEngine(t)
	e.SetMaxFlows(4)
	p, q := newPeer(t, "127.0.0.11:0", false), newPeer(t, "127.0.0.12:0", false)
	d := always(t, useOf("wan1", "127.0.0.2"))
	greedy, modest := associate(t, e, d, nil), associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	sendTo := func(i byte) {
		send(t, c, greedy.Addr(), datagram(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, 0, i}), 9), "x"))
	}
	for i := range byte(4) {
		sendTo(i)
	}
	until(t, "all are taken", func() bool { return e.Stats().Destinations == 4 })
	other := open(t, "127.0.0.9:0")
	through(t, other, modest, p.addr, "ping")
	through(t, other, modest, q.addr, "ping")
	if n := e.Stats().Evicted; n != 0 {
		t.Errorf("%d destinations were evicted, want none", n)
	}
	sendTo(4)
	until(t, "the first has its share", func() bool { return e.Stats().Destinations == 4 })
	through(t, other, modest, p.addr, "ping")
	if n := p.count(); n != 2 {
		t.Errorf("the peer saw %d datagrams, want 2", n)
	}
}

// TestAssociateEviction floods an association with destinations: the one in use stays.
func TestAssociateEviction(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), func(s *AssociateSettings) { s.MaxDestinations = 64 })
	c := open(t, "127.0.0.9:0")
	through(t, c, a, p.addr, "ping")
	a.mu.RLock()
	first := a.destinations[p.addr]
	a.mu.RUnlock()
	const flood = 2000
	for i := range flood {
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, byte(i >> 8), byte(i)}), 9)
		send(t, c, a.Addr(), datagram(dst, "x"))
		if i%20 == 0 {
			through(t, c, a, p.addr, "ping")
		}
	}
	through(t, c, a, p.addr, "ping")
	s := e.Stats()
	if s.Destinations != 64 || s.Evicted != flood+1-64 {
		t.Errorf("%d destinations and %d evicted, want 64 and %d", s.Destinations, s.Evicted, flood+1-64)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.destinations[p.addr] != first {
		t.Error("the destination in use was evicted")
	}
	if n := len(a.exits[exitKey{}].sent); n != 64 {
		t.Errorf("the filter has %d places, want 64", n)
	}
}
