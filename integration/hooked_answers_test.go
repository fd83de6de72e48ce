//go:build linux

package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// The hooks remember in a socket what its last datagram was told. These tests change all that an answer depends on, between
// two datagrams of one socket.

// family is a kind of socket and where it sends to.
type family struct {
	name    string
	domain  int
	server  func(int) netip.AddrPort
	address func(int) netip.Addr
}

var (
	inet4  = family{"v4", unix.AF_INET, server4, nstest.ProxyV4}
	inet6  = family{"v6", unix.AF_INET6, server6, nstest.ProxyV6}
	mapped = family{"mapped", unix.AF_INET6, server4, nstest.ProxyV4}

	families = []family{inet4, inet6, mapped}
)

// steady is a socket that asks often enough that its last answers come from its memory.
type steady struct {
	family
	*datagrams
}

func (m *maker) steady(f family) steady { return steady{f, m.socket(f.domain, 0)} }

// steadies are one of each family.
func (m *maker) steadies() []steady {
	var all []steady
	for _, f := range families {
		all = append(all, m.steady(f))
	}
	return all
}

// from wants all datagrams to leave from the address i of the proxy host, and be is for what else may become of them.
func (s steady) from(i int) { s.t.Helper(); s.be(s.address(i).String()) }

func (s steady) be(want string) {
	s.t.Helper()
	for range 3 {
		if got := s.ask(s.server(1), netip.Addr{}); got != want {
			s.t.Errorf("%s: got %s, want %s", s.name, got, want)
			return
		}
	}
}

// TestKernelPlaneAnswersFollow changes rules and states of sources under sockets that go on and on to one destination: the next
// datagram obeys. Each is counted once, for its rule.
func TestKernelPlaneAnswersFollow(t *testing.T) {
	h := newHooked(t)
	h.attach()
	all := h.maker().steadies()
	refused, went := map[string]uint64{}, map[string]uint64{}
	each := func(rule, want string) {
		t.Helper()
		for _, s := range all {
			w := want
			if i := 0; !strings.HasPrefix(w, "E") {
				if _, err := fmt.Sscan(w, &i); err != nil {
					t.Fatal(err)
				}
				w = s.address(i).String()
				went[rule] += 3
			} else {
				refused[rule] += 3
			}
			s.be(w)
		}
	}
	state := func(s dialer.State) {
		t.Helper()
		if err := h.plane.SetState(s); err != nil {
			t.Fatal(err)
		}
	}
	named := func(name string, u dialer.Use) { // which has a rule of its own, so that the default is none
		t.Helper()
		h.rule(cgroupbpf.Options{}, dialer.Use{}, dialer.Rule{Name: name, Use: u})
	}
	lost := func(i int) away { return away{nstest.ProxyV4(i): true, nstest.ProxyV6(i): true} }
	link := &dialer.Source{Name: "dsl", Interface: "ppp0"}

	named("ten", leaveFrom(both(10)))
	each("ten", "10")
	named("eleven", leaveFrom(both(11)))
	each("eleven", "11")
	named("ten", leaveFrom(both(10)))
	each("ten", "10")
	named("denied", dialer.Use{})
	each("denied", "EPERM")
	named("kernel", dialer.Use{Kernel: true})
	each("kernel", "1")
	named("ten", leaveFrom(both(10)))
	each("ten", "10")
	for range 3 {
		state(lost(10))
		each("ten", "EADDRNOTAVAIL")
		state(nil)
		each("ten", "10")
	}
	named("pool", poolOf(dialer.FirstUp, 12, 13))
	each("pool", "12")
	state(lost(12))
	each("pool", "13")
	state(lost(13))
	each("pool", "12")
	state(linkState{})
	named("link", leaveFrom(link))
	each("link", "EADDRNOTAVAIL")
	state(linkState{14})
	each("link", "14")
	state(linkState{15})
	each("link", "15")
	state(linkState{})
	each("link", "EADDRNOTAVAIL")
	h.wantCounts(went, refused)
}

// wantCounts compares the datagrams that rules have counted.
func (h *hooked) wantCounts(went, refused map[string]uint64) {
	h.t.Helper()
	counters, err := h.plane.Counters()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range counters {
		if c.Datagrams != went[c.Rule] || c.Refused != refused[c.Rule] {
			h.t.Errorf("%s: %d datagrams and %d refused, want %d and %d", c.Rule, c.Datagrams, c.Refused, went[c.Rule], refused[c.Rule])
		}
	}
}

// linkState is a State in which the link has the addresses of a number, and others have what they are given.
type linkState struct{ i int }

func (s linkState) Down(*dialer.Source, netip.Addr) error { return nil }
func (s linkState) Flows(*dialer.Source) int              { return 0 }
func (s linkState) LinkAddr(_ string, is4 bool) netip.Addr {
	switch {
	case s.i == 0:
		return netip.Addr{}
	case is4:
		return nstest.ProxyV4(s.i)
	}
	return nstest.ProxyV6(s.i)
}

// poolOf is a pool of sources of both families, whose weights are their places.
func poolOf(pick dialer.Pick, sources ...int) dialer.Use {
	p := &dialer.Pool{Name: "p", Pick: pick, By: []dialer.Key{dialer.ByDestination}}
	for i, n := range sources {
		p.Of = append(p.Of, dialer.Member{Source: both(n), Weight: 1 + i})
	}
	return dialer.Use{Pool: p}
}

// TestKernelPlaneAnswersAlternate sends from one socket to destinations, ports and from local ports that rules tell apart.
func TestKernelPlaneAnswersAlternate(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)),
		dialer.Rule{LocalPort: []dialer.PortRange{{Lo: 5060, Hi: 5060}}, Use: leaveFrom(both(15))},
		dialer.Rule{LocalPort: []dialer.PortRange{{Lo: 5070, Hi: 5071}}, SourcePort: 5070, Use: leaveFrom(both(16))},
		dialer.Rule{Ports: []dialer.PortRange{{Lo: 8, Hi: 8}}, Use: leaveFrom(both(11))},
		dialer.Rule{To: matches(t, nstest.ServerV4(2), nstest.ServerV6(2)), Use: leaveFrom(both(12))},
		dialer.Rule{To: matches(t, nstest.ServerV4(3), nstest.ServerV6(3)), Use: dialer.Use{}},
		dialer.Rule{To: matches(t, nstest.ServerV4(4), nstest.ServerV6(4)), Use: dialer.Use{Kernel: true}})
	h.attach()
	for _, address := range []string{"0.0.0.0:8", "[::]:8"} {
		h.Server.ServeUDP(t, address, whence)
	}
	m := h.maker()
	for _, s := range m.steadies() {
		other := netip.AddrPortFrom(s.server(1).Addr(), 8)
		for range 3 {
			s.from(10)
			s.wants(other, s.address(11).String())
			s.wants(s.server(2), s.address(12).String())
			s.wants(s.server(3), "EPERM")
			s.wants(s.server(4), s.address(1).String())
			s.wants(s.server(3), "EPERM")
		}
	}
	for _, f := range families {
		for _, next := range []struct {
			port uint16
			want string
		}{{5060, f.address(15).String()}, {5070, f.address(16).String()}, {5071, "EPERM"}, {5080, f.address(10).String()}} {
			s := m.steady(f)
			s.from(10)
			s.bind(netip.Addr{}, next.port)
			s.be(next.want)
			s.close()
		}
	}
}

// TestKernelPlaneAnswersOfPools sends from one socket to one destination: what pools pick anew is picked anew, and the rest stays.
func TestKernelPlaneAnswersOfPools(t *testing.T) {
	h := newHooked(t)
	h.attach()
	all := h.maker().steadies()
	seen := func(s steady, n int) map[string]int {
		m := make(map[string]int)
		for range n {
			m[s.ask(s.server(1), netip.Addr{})]++
		}
		return m
	}
	h.rule(cgroupbpf.Options{}, poolOf(dialer.RoundRobin, 10, 11, 12))
	for _, s := range all {
		want := map[string]int{s.address(10).String(): 2, s.address(11).String(): 4, s.address(12).String(): 6}
		if got := seen(s, 12); !maps.Equal(got, want) {
			t.Errorf("round-robin, %s: got %v, want %v", s.name, got, want)
		}
	}
	h.rule(cgroupbpf.Options{}, poolOf(dialer.Random, 10, 11, 12))
	for _, s := range all {
		if got := seen(s, 100); len(got) != 3 { // not so once in 10^7
			t.Errorf("random, %s: got %v", s.name, got)
		}
	}
	for _, pick := range []dialer.Pick{dialer.Sticky, dialer.FirstUp} {
		h.rule(cgroupbpf.Options{}, poolOf(pick, 10, 11, 12))
		for _, s := range all {
			if got := seen(s, 12); len(got) != 1 {
				t.Errorf("%v, %s: got %v", pick, s.name, got)
			}
		}
	}
	brief := poolOf(dialer.Sticky, 10, 11, 12, 13, 14, 15)
	brief.Pool.For = 100 * time.Millisecond
	h.rule(cgroupbpf.Options{}, brief)
	for _, s := range all {
		first := s.ask(s.server(1), netip.Addr{})
		eventually(t, "another source in another epoch", func() bool { return s.ask(s.server(1), netip.Addr{}) != first })
	}
}

// reaches sends to the address i of the server from a socket that is connected to another, so that it hears no answer, and wants
// the far end to see the address j.
func (h *hooked) reaches(s steady, i, j int) {
	h.t.Helper()
	h.arrives(s.server(i), s.address(j), func() error { return s.send(s.server(i), netip.Addr{}) })
}

// arrives wants send to send one datagram to a destination that the far end sees come from an address.
func (h *hooked) arrives(to netip.AddrPort, from netip.Addr, send func() error) {
	h.t.Helper()
	seen := func() (from map[netip.Addr]uint64, sum uint64) {
		from = make(map[netip.Addr]uint64)
		for p, n := range h.leaks.Seen(h.t) {
			if p.Dst == to.Addr() && p.Protocol == "udp" {
				from[p.Src] += n
				sum += n
			}
		}
		return from, sum
	}
	want, before := seen()
	want[from]++
	if err := send(); err != nil {
		h.t.Errorf("to %v: %v", to, err)
		return
	}
	eventually(h.t, "the far end sees the datagram", func() bool {
		got, sum := seen()
		if sum > before && !maps.Equal(got, want) {
			h.t.Errorf("packets to %v came from %v, want %v", to, got, want)
		}
		return sum > before
	})
}

// TestKernelPlaneAnswersOfPrograms has programs choose in between: by a control message, by a bind, by connect and disconnect.
func TestKernelPlaneAnswersOfPrograms(t *testing.T) {
	h := newHooked(t)
	rules := []dialer.Rule{
		{To: matches(t, nstest.ServerV4(2), nstest.ServerV6(2)), Use: leaveFrom(both(12))},
		{To: matches(t, nstest.ServerV4(3), nstest.ServerV6(3)), Use: dialer.Use{}},
		{To: matches(t, nstest.ServerV4(4), nstest.ServerV6(4)), Use: dialer.Use{Kernel: true}},
	}
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)), rules...)
	h.attach()
	m := h.maker()
	for _, s := range m.steadies() {
		own := s.address(20)
		for range 3 { // IP_PKTINFO
			s.from(10)
			if got := s.ask(s.server(1), own); got != own.String() {
				t.Errorf("%s: with a control message: got %s, want %v", s.name, got, own)
			}
			if got := s.ask(s.server(3), own); got != "EPERM" {
				t.Errorf("%s: denied, with a control message: got %s", s.name, got)
			}
		}
		for range 2 { // the address of connect stays after a disconnect, so that answers to others find no socket
			s.connect(netip.AddrPort{})
			s.connect(s.server(2))
			h.reaches(s, 1, 10)
			h.reaches(s, 4, 1)
			h.reaches(s, 1, 10)
			s.connect(netip.AddrPort{})
			h.reaches(s, 1, 10)
			h.reaches(s, 1, 10)
			s.connect(netip.AddrPort{})
			s.connect(s.server(4))
			h.reaches(s, 1, 10)
			h.reaches(s, 2, 12)
		}
	}
	for _, s := range m.steadies() { // an address that is bound after the first datagram
		s.from(10)
		s.bind(s.address(20), 0)
		s.be(s.address(20).String())
		s.wants(s.server(3), "EPERM")
		s.connect(s.server(2))
		h.reaches(s, 1, 20)
		h.reaches(s, 4, 20)
	}
	override := m.steadies()
	for _, s := range override {
		s.from(10)
	}
	h.rule(cgroupbpf.Options{Override: true}, leaveFrom(both(10)), rules...)
	for _, s := range override {
		for range 3 {
			if got := s.ask(s.server(1), s.address(20)); got != s.address(10).String() {
				t.Errorf("%s: override of a control message: got %s", s.name, got)
			}
			s.from(10)
			if got := s.ask(s.server(2), s.address(20)); got != s.address(12).String() {
				t.Errorf("%s: override of a control message: got %s", s.name, got)
			}
		}
	}
	for _, s := range m.steadies() { // no hook sees what a connected socket sends: when a kernel changes that, this tells
		s.connect(s.server(2))
		from := s.address(20)
		if s.name == mapped.name { // whose destination the kernel names to the hook each time
			from = s.address(12)
		}
		h.arrives(s.server(2), from, func() error { return s.sendTo(nil, s.address(20)) })
	}
}
