package udprelay

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
		Dialer: d,
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
	until(t, "all is counted", func() bool { return a.entry.Down.Load() == int64(total) })
	if up := a.entry.Up.Load(); up != int64(total) {
		t.Errorf("%d bytes up, want %d", up, total)
	}
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

// TestAssociateStrangers drops what comes from others than the client and those it
// has sent to.
func TestAssociateStrangers(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c, other := open(t, "127.0.0.9:0"), open(t, "127.0.0.8:0")
	send(t, other, a.Addr(), datagram(p.addr, "another address"))
	through(t, c, a, p.addr, "ping")
	second := open(t, "127.0.0.9:0")
	send(t, second, a.Addr(), datagram(p.addr, "another port"))
	through(t, c, a, p.addr, "ping")
	if n := dropped(e, NotClient); n != 2 {
		t.Errorf("%d are counted as not the client's, want 2", n)
	}
	from := p.sources(t, 2)[0]
	send(t, other, from, "a stranger outside")
	until(t, "the stranger is dropped", func() bool { return dropped(e, Stranger) == 1 })
	through(t, c, a, p.addr, "ping")
	if n := p.count(); n != 3 {
		t.Errorf("the peer got %d datagrams, want 3", n)
	}
}

// TestAssociateFilter tells who may answer.
func TestAssociateFilter(t *testing.T) {
	for _, tt := range []struct {
		filter            Filter
		port, addr, local bool // from another port, another address, to another address of ours
	}{
		{FilterAddress, true, false, true},
		{FilterAddressAndPort, false, false, true},
		{FilterNone, true, true, false},
	} {
		t.Run(tt.filter.String(), func(t *testing.T) {
			e, _ := newEngine(t)
			p := newPeer(t, "127.0.0.11:0", false)
			a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), func(s *AssociateSettings) { s.Filter = tt.filter })
			c := open(t, "127.0.0.9:0")
			through(t, c, a, p.addr, "ping")
			at := p.sources(t, 1)[0]
			elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), at.Port())
			for _, from := range []struct {
				name, address string
				to            netip.AddrPort
				in            bool
			}{
				{"another port", "127.0.0.11:0", at, tt.port},
				{"another address", "127.0.0.12:0", at, tt.addr},
			} {
				s := open(t, from.address)
				before := dropped(e, Stranger)
				send(t, s, from.to, from.name)
				if from.in {
					if got, who := hear(t, c, a); got != from.name || who != addrPort(s) {
						t.Errorf("got %q from %v, want %q from %v", got, who, from.name, addrPort(s))
					}
					continue
				}
				until(t, from.name+" is dropped", func() bool { return dropped(e, Stranger) == before+1 })
			}
			before := dropped(e, Stranger)
			send(t, p.UDPConn, elsewhere, "to another address of ours")
			if tt.local {
				hear(t, c, a)
			} else {
				until(t, "it is dropped", func() bool { return dropped(e, Stranger) == before+1 })
			}
		})
	}
}

// TestAssociateKernel leaves the source to the kernel where a rule says so; with the
// filter none, everybody may answer then.
func TestAssociateKernel(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	d := always(t, dialer.Use{Kernel: true})
	a := associate(t, e, d, func(s *AssociateSettings) { s.Filter = FilterNone })
	c, other := open(t, "127.0.0.9:0"), open(t, "127.0.0.12:0")
	through(t, c, a, p.addr, "ping")
	at := p.sources(t, 1)[0]
	if want := kernelSource(p.addr); at.Addr() != want {
		t.Errorf("the peer was called from %v, want the kernel's %v", at, want)
	}
	send(t, other, at, "anybody")
	if got, from := hear(t, c, a); got != "anybody" || from != addrPort(other) {
		t.Errorf("got %q from %v", got, from)
	}
}

func TestParseFilter(t *testing.T) {
	for _, f := range []Filter{FilterAddress, FilterAddressAndPort, FilterNone} {
		if got, err := ParseFilter(f.String()); got != f || err != nil {
			t.Errorf("ParseFilter(%q) = %v, %v", f, got, err)
		}
	}
	if f, err := ParseFilter("all"); err == nil {
		t.Errorf("ParseFilter took a word that is none, as %v", f)
	}
}

// TestAssociatePort takes datagrams from the announced port only.
func TestAssociatePort(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	c, other := open(t, "127.0.0.9:0"), open(t, "127.0.0.9:0")
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), func(s *AssociateSettings) { s.Port = addrPort(c).Port() })
	send(t, other, a.Addr(), datagram(p.addr, "first, but not announced"))
	until(t, "it is dropped", func() bool { return dropped(e, NotClient) == 1 })
	through(t, c, a, p.addr, "ping")
}

// TestAssociateRelayPorts binds within the range, on the address asked alone, until
// all are taken.
func TestAssociateRelayPorts(t *testing.T) {
	e, _ := newEngine(t)
	first := freePort(t, "127.0.0.1")
	r := dialer.PortRange{Lo: first, Hi: first}
	d := always(t, useOf("wan1", "127.0.0.2"))
	a := associate(t, e, d, func(s *AssociateSettings) { s.Ports = r })
	if want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), first); a.Addr() != want {
		t.Errorf("the relay is %v, want %v", a.Addr(), want)
	}
	if got := boundTo(a.relay).Addr(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the relay is bound to %v, want the address asked", got)
	}
	s := *a.settings
	if _, err := e.Associate(t.Context(), &s); err == nil || !strings.Contains(err.Error(), r.String()) {
		t.Errorf("a second one on one port: %v, want an error that names the range", err)
	}
	if n := e.Stats().Associations; n != 1 {
		t.Errorf("%d associations, want 1", n)
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

// TestAssociateOwnSockets gives a source with ports, a rule with a fixed port, and a
// prefix a socket of their own.
func TestAssociateOwnSockets(t *testing.T) {
	e, _ := newEngine(t)
	free, narrow, fixed, wide := newPeer(t, "127.0.0.11:0", false), newPeer(t, "127.0.0.12:0", false), newPeer(t, "127.0.0.13:0", false), newPeer(t, "127.0.0.14:0", false)
	port, own := freePort(t, "127.0.0.3"), freePort(t, "127.0.0.4")
	ports := source("narrow", "127.0.0.3")
	ports.Ports = dialer.PortRange{Lo: port, Hi: port}
	prefix := &dialer.Source{Name: "wide", Prefix: netip.MustParsePrefix("127.7.0.0/16")}
	to := func(p *peer) []dialer.Match {
		return []dialer.Match{dialer.MatchPrefix(netip.PrefixFrom(p.addr.Addr(), 32))}
	}
	d := byRules(t, []dialer.Rule{
		{Name: "free", To: to(free), Use: useOf("wan1", "127.0.0.2")},
		{Name: "narrow", To: to(narrow), Use: dialer.Use{Source: ports}},
		{Name: "fixed", To: to(fixed), SourcePort: own, Use: useOf("wan2", "127.0.0.4")},
		{Name: "wide", To: to(wide), Use: dialer.Use{Source: prefix}},
	})
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	for _, p := range []*peer{free, narrow, fixed, wide, fixed, narrow} {
		through(t, c, a, p.addr, "ping")
	}
	if got, want := narrow.sources(t, 2), netip.AddrPortFrom(ports.Addrs[0], port); got[0] != want || got[1] != want {
		t.Errorf("narrow was called from %v, want %v", got, want)
	}
	if got, want := fixed.sources(t, 2), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.4"), own); got[0] != want || got[1] != want {
		t.Errorf("fixed was called from %v, want %v", got, want)
	}
	if got := wide.sources(t, 1)[0]; !prefix.Prefix.Contains(got.Addr()) {
		t.Errorf("wide was called from %v, want one of %v", got, prefix.Prefix)
	}
	a.mu.RLock()
	n := len(a.exits)
	a.mu.RUnlock()
	if n != 4 {
		t.Errorf("%d sockets, want 4", n)
	}
	// Another association cannot have the port, and says so.
	b := associate(t, e, d, func(s *AssociateSettings) { s.Flow.Client = netip.MustParseAddrPort("127.0.0.10:1") })
	send(t, open(t, "127.0.0.10:0"), b.Addr(), datagram(fixed.addr, "never"))
	until(t, "it is refused", func() bool { return dropped(e, Refused) == 1 })
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

// TestAssociateLoop refuses destinations that are the relay's own sockets.
func TestAssociateLoop(t *testing.T) {
	e, lines := newEngine(t)
	d := always(t, useOf("wan1", "127.0.0.2"))
	a, b := associate(t, e, d, nil), associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	own := []netip.AddrPort{
		a.Addr(),
		b.Addr(),
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), a.exits[exitKey{}].at.Port()),
		netip.AddrPortFrom(netip.MustParseAddr("::1"), b.exits[exitKey{}].at.Port()),
	}
	for _, dst := range own[:3] {
		send(t, c, a.Addr(), datagram(dst, "round"))
	}
	until(t, "all are refused", func() bool { return dropped(e, Refused) == 3 })
	if !e.isOurs(own[3]) {
		t.Errorf("%v is not taken for ours", own[3])
	}
	if lines.count(ErrLoop.Error()) == 0 {
		t.Errorf("no line tells of the loop:\n%s", lines)
	}
}

// TestAssociateEnds closes an association: its sockets are closed, and the engine
// knows it no more.
func TestAssociateEnds(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	a := associate(t, e, always(t, useOf("wan1", "127.0.0.2")), nil)
	c := open(t, "127.0.0.9:0")
	through(t, c, a, p.addr, "ping")
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s := e.Stats(); s.Associations != 0 || s.Destinations != 0 || len(e.associations.sockets) != 0 {
		t.Errorf("%d associations, %d destinations and %d sockets after Close", s.Associations, s.Destinations, len(e.associations.sockets))
	}
	// Its port is free.
	again, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestAssociateNames resolves each name once, and holds nothing else up meanwhile.
func TestAssociateNames(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", false)
	r := &resolver{gate: make(chan struct{}), names: map[string][]netip.Addr{
		"peer.example": {p.addr.Addr()},
		"slow.example": {p.addr.Addr()},
		"bad.example":  {netip.MustParseAddr("127.0.0.66")},
	}}
	d := rulesTo(t, map[string]dialer.Use{"127.0.0.11": useOf("wan1", "127.0.0.2")})
	d.Resolver = r
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	port := p.addr.Port()
	for i := range maxQueued + 1 {
		send(t, c, a.Addr(), named("slow.example", port, string(rune('a'+i))))
	}
	until(t, "one is too many", func() bool { return dropped(e, Waiting) == 1 })
	for range 5 {
		send(t, c, a.Addr(), named("peer.example", port, "ping"))
		if got, from := hear(t, c, a); got != "ping" || from != p.addr {
			t.Fatalf("got %q from %v, want the ping from %v", got, from, p.addr)
		}
	}
	through(t, c, a, p.addr, "by address")
	close(r.gate)
	for i := range maxQueued {
		if got, _ := hear(t, c, a); got != string(rune('a'+i)) {
			t.Errorf("datagram %d of the slow name is %q", i, got)
		}
	}
	if n := r.asked.Load(); n != 2 {
		t.Errorf("the resolver was asked %d times for 2 names", n)
	}
	for range 3 {
		send(t, c, a.Addr(), named("bad.example", port, "never"))
		send(t, c, a.Addr(), named("none.example", port, "never"))
	}
	until(t, "both names are refused", func() bool { return dropped(e, Refused) == 3 && dropped(e, Unresolved) == 3 })
	if n := r.asked.Load(); n != 4 {
		t.Errorf("the resolver was asked %d times for 4 names", n)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.queued != 0 || a.lookups != 0 {
		t.Errorf("%d bytes and %d look-ups are left", a.queued, a.lookups)
	}
}

// TestAssociateEndsLookups closes an association while a name is looked up.
func TestAssociateEndsLookups(t *testing.T) {
	e, _ := newEngine(t)
	d := always(t, useOf("wan1", "127.0.0.2"))
	d.Resolver = &resolver{gate: make(chan struct{})}
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	send(t, c, a.Addr(), named("slow.example", 9, "x"))
	until(t, "it waits", func() bool { a.mu.RLock(); defer a.mu.RUnlock(); return a.lookups == 1 })
	began := time.Now()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("Close took %v", d)
	}
}

// TestAssociateManyNames keeps the names of one association bounded.
func TestAssociateManyNames(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.11:0", true)
	r := &resolver{names: make(map[string][]netip.Addr)}
	d := always(t, useOf("wan1", "127.0.0.2"))
	d.Resolver = r
	var all []string
	for i := range maxNames + 50 {
		all = append(all, strings.Repeat("x", 1+i%50)+string(rune('a'+i/50))+".example")
		r.names[all[i]] = []netip.Addr{p.addr.Addr()}
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != maxNames+50 {
		t.Fatal("the names repeat")
	}
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	for i, name := range all {
		send(t, c, a.Addr(), named(name, p.addr.Port(), name))
		p.sources(t, i+1)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if len(a.names) > maxNames || a.queue.len > maxNames {
		t.Errorf("%d names and %d destinations are kept, want at most %d", len(a.names), a.queue.len, maxNames)
	}
}

// TestAssociateRefusedBind says why there is no relay.
func TestAssociateRefusedBind(t *testing.T) {
	e, _ := newEngine(t)
	_, err := e.Associate(t.Context(), &AssociateSettings{Local: netip.MustParseAddr("192.0.2.1")})
	if err == nil || !strings.Contains(err.Error(), unix.EADDRNOTAVAIL.Error()) {
		t.Errorf("an address that is not here: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Associate(t.Context(), &AssociateSettings{Local: netip.MustParseAddr("127.0.0.1")}); err == nil {
		t.Error("a closed engine opens associations")
	}
}
