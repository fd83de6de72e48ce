//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/rendezvous"
	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// drawn is a list of rules that fuzz input has drawn. The universe is small, so that rules overlap and flows hit.
type drawn struct {
	b     []byte
	rules []dialer.Rule
	// otherwise is the default.
	otherwise dialer.Use
}

var (
	drawnDsts = []string{
		"10.1.2.3", "10.1.2.2", "10.1.3.1", "10.200.0.1", "192.0.2.1", "127.0.0.1", "127.5.0.1", "169.254.1.1", "224.0.0.5", "239.1.2.3",
		"255.255.255.255", "0.0.0.0", "8.8.8.8", "2001:db8::1", "2001:db8::2", "2001:db9::1", "::1", "::", "fe80::1", "fe80:0:0:1::1", "ff02::1",
		"64:ff9b::10.1.2.3", "64:ff9b::10.1.3.1", "64:ff9b:1:2::10.1.2.3", "2002:a01:203::1", "::10.1.2.3", "64:ff9b::127.0.0.1", "64:ff9b:2::10.1.2.3",
	}
	drawnLengths = []int{0, 1, 4, 8, 10, 16, 24, 30, 31, 32, 48, 64, 96, 112, 127, 128}
	drawnPorts   = []uint16{1, 24, 25, 53, 80, 443, 1024, 5060, 32768, 65534, 65535}
	drawnTo      = []string{"a.example", "*.example", ".test"}
	drawnService = []string{"a.service", "b.service"}
)

func (d *drawn) below(n int) int {
	if len(d.b) == 0 {
		return 0
	}
	v := int(d.b[0])
	d.b = d.b[1:]
	return v % n
}

// one reports true once in n.
func (d *drawn) one(n int) bool { return d.below(n) == n-1 }

func draw[E any](d *drawn, list []E) E { return list[d.below(len(list))] }

// several makes a list: none of it most often.
func several[E any](d *drawn, rare int, element func() E) []E {
	if !d.one(rare) {
		return nil
	}
	list := make([]E, 1+d.below(3))
	for i := range list {
		list[i] = element()
	}
	return list
}

// drawSources are those that hooks can do: of both families and of one, alone and in pools.
func drawSources() []dialer.Use {
	source := func(name string, addrs ...string) *dialer.Source {
		s := &dialer.Source{Name: name}
		for _, a := range addrs {
			s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
		}
		return s
	}
	both, other := source("both", "198.51.100.1", "2001:db8:1::1"), source("other", "198.51.100.2", "2001:db8:1::2")
	four, six := source("", "198.51.100.4"), source("six", "2001:db8:1::6")
	uses := []dialer.Use{{}, {Kernel: true}, {Source: both}, {Source: other}, {Source: four}, {Source: six}}
	for _, pick := range []dialer.Pick{dialer.FirstUp, dialer.Sticky} {
		p := &dialer.Pool{Name: "p" + pick.String(), Pick: pick, Of: []dialer.Member{{Source: six}, {Source: both, Weight: 3}, {Source: other}, {Source: four}}}
		if pick == dialer.Sticky {
			p.By = []dialer.Key{dialer.ByDestination}
		}
		uses = append(uses, dialer.Use{Pool: p})
	}
	return uses
}

func newDrawn(data []byte) *drawn {
	d := &drawn{b: data}
	uses := drawSources()
	d.rules = make([]dialer.Rule, d.below(24))
	for i := range d.rules {
		d.rules[i] = d.rule(i, uses)
	}
	d.otherwise = draw(d, uses)
	return d
}

func (d *drawn) match() dialer.Match {
	if d.one(8) {
		m, err := dialer.ParseMatch(draw(d, drawnTo))
		if err != nil {
			panic(err)
		}
		return m
	}
	a := netip.MustParseAddr(draw(d, drawnDsts))
	return dialer.MatchPrefix(netip.PrefixFrom(a, min(draw(d, drawnLengths), a.BitLen())))
}

func (d *drawn) ports() dialer.PortRange {
	a, b := draw(d, drawnPorts), draw(d, drawnPorts)
	if d.one(2) {
		b = a
	}
	return dialer.PortRange{Lo: min(a, b), Hi: max(a, b)}
}

func (d *drawn) rule(i int, uses []dialer.Use) dialer.Rule {
	r := dialer.Rule{
		Name:      fmt.Sprintf("r%d", i),
		Ports:     several(d, 4, d.ports),
		LocalPort: several(d, 6, d.ports),
		Service:   several(d, 6, func() string { return draw(d, drawnService) }),
		User:      several(d, 12, func() string { return "ann" }),
	}
	if !d.one(5) {
		r.To = several(d, 1, d.match)
	}
	if d.one(3) {
		r.Protocol = draw(d, []string{"tcp", "udp"})
	}
	if d.one(8) {
		r.SourcePort = draw(d, drawnPorts)
	}
	r.Use = draw(d, uses)
	if d.one(4) {
		r.Use, r.Map = dialer.Use{}, make(map[dialer.Match]dialer.Use)
		for range 1 + d.below(4) {
			r.Map[d.match()] = draw(d, uses)
		}
	}
	return r
}

func (d *drawn) flow() dialer.Flow {
	f := dialer.Flow{Network: draw(d, []string{"tcp", "udp"}), Service: drawnService[0]}
	port := func() uint16 { return draw(d, drawnPorts) + uint16(d.below(3)) - 1 }
	f.Dst = netip.AddrPortFrom(netip.MustParseAddr(draw(d, drawnDsts)), port())
	if d.one(2) {
		f.LocalPort = port()
	}
	return f
}

// answer is what a plane does with a flow.
type answer struct {
	rule string
	bind bool
	src  netip.Addr
	port uint16
	err  error // nil, dialer.ErrDenied or dialer.ErrNoSource
}

// byTable is the answer of the proxy, but for what the kernel plane leaves alone, which the slow twin judges here.
func (d *drawn) byTable(t *testing.T, table *dialer.Table, f dialer.Flow) answer {
	t.Helper()
	f.Dst = netip.AddrPortFrom(reached(f.Dst.Addr()), f.Dst.Port())
	if i := inSpecial(netip.PrefixFrom(f.Dst.Addr(), f.Dst.Addr().BitLen())); i >= 0 {
		return d.bySpecial(t, f, special[i])
	}
	dec := table.Lookup(f)
	return answerOf(&dec)
}

// reached is where the kernel connects a to.
func reached(a netip.Addr) netip.Addr {
	switch a {
	case netip.IPv4Unspecified():
		return netip.MustParseAddr("127.0.0.1")
	case netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	}
	return a
}

func answerOf(dec *dialer.Decision) answer {
	a := answer{rule: dec.Rule, port: dec.Port}
	for _, known := range []error{dialer.ErrDenied, dialer.ErrNoSource} {
		if errors.Is(dec.Err, known) {
			a.err = known
		}
	}
	if dec.Source != nil {
		a.bind, a.src = true, dec.Addr
	}
	return a
}

// bySpecial asks a table of those rules alone that have a prefix inside of the range.
func (d *drawn) bySpecial(t *testing.T, f dialer.Flow, within netip.Prefix) answer {
	t.Helper()
	inside := func(m dialer.Match) bool {
		p := m.Prefix()
		return p.IsValid() && p.Bits() >= within.Bits() && within.Contains(p.Addr())
	}
	var rules []dialer.Rule
	for _, r := range d.rules {
		var to []dialer.Match
		for _, m := range r.To {
			// With a map it is the longer of both that has to lie inside.
			if inside(m) || r.Map != nil {
				to = append(to, m)
			}
		}
		if r.Map != nil && len(r.To) > 0 {
			if slow, ok := longest(r.To, f); !ok || !inside(slow) {
				if key, ok := longestKey(r.Map, f); !ok || !inside(key) {
					continue
				}
			}
		} else if r.Map != nil {
			m := make(map[dialer.Match]dialer.Use)
			for k, u := range r.Map {
				if inside(k) {
					m[k] = u
				}
			}
			if r.Map = m; len(m) == 0 {
				continue
			}
		} else if to == nil {
			continue
		}
		if len(r.To) > 0 {
			r.To = to
		}
		rules = append(rules, r)
	}
	table, err := dialer.NewTable(rules, dialer.Use{Kernel: true})
	if err != nil {
		t.Fatal(err)
	}
	dec := table.Lookup(f)
	return answerOf(&dec)
}

func longest(list []dialer.Match, f dialer.Flow) (best dialer.Match, ok bool) {
	for _, m := range list {
		if p := m.Prefix(); p.IsValid() && p.Contains(f.Dst.Addr()) && (!ok || p.Bits() > best.Prefix().Bits()) {
			best, ok = m, true
		}
	}
	return best, ok
}

func longestKey(m map[dialer.Match]dialer.Use, f dialer.Flow) (dialer.Match, bool) {
	var list []dialer.Match
	for k := range m {
		list = append(list, k)
	}
	return longest(list, f)
}

// byMaps does what c/judge.h does, on the content of the maps.
func (r *Rules) byMaps(members []hooksMember, f dialer.Flow) answer {
	dst := reached(f.Dst.Addr().Unmap())
	l := lookup(r.lists, dst)
	use, rule := l.Use, l.Rule
	port, deliberate, found := uint16(0), false, false
	if c, ok := r.first(l, f); ok {
		use, rule, port, deliberate, found = c.Use, c.Rule, c.SourcePort, c.Deliberate == 1, true
	}
	name := "default"
	if rule != noRule {
		name = r.names[rule]
	}
	if inner := dialer.Embedded(dst); inner.IsValid() {
		c, ok := r.first(lookup(r.carried, inner), f)
		if ok && r.uses[c.Use].Kind == hooksKindDENY && !(found && deliberate && c.Rule >= rule) {
			return answer{rule: name, port: port, err: dialer.ErrDenied}
		}
	}
	u := &r.uses[use]
	switch u.Kind {
	case hooksKindDENY:
		return answer{rule: name, port: port, err: dialer.ErrDenied}
	case hooksKindKERNEL:
		return answer{rule: name, port: port}
	}
	m := pickMember(u, members[u.First:u.First+u.Count], dst)
	if m == nil {
		return answer{rule: name, port: port, err: dialer.ErrNoSource}
	}
	src := m.V6
	if dst.Is4() {
		src = m.V4
	}
	return answer{rule: name, bind: true, src: netipAddr(src), port: port}
}

func lookup(lists map[hooksPrefix]hooksList, a netip.Addr) hooksList {
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			panic(err)
		}
		if l, ok := lists[key(p)]; ok {
			return l
		}
	}
	return hooksList{}
}

func (r *Rules) first(l hooksList, f dialer.Flow) (hooksCandidate, bool) {
	protocol := uint8(ruleset.TCP)
	if f.Network == "udp" {
		protocol = uint8(ruleset.UDP)
	}
	for _, c := range r.candidates[l.First : l.First+l.Count] {
		if c.Protocol != 0 && c.Protocol&protocol == 0 {
			continue
		}
		if c.PortLow <= f.Dst.Port() && f.Dst.Port() <= c.PortHigh && c.LocalLow <= f.LocalPort && f.LocalPort <= c.LocalHigh {
			return c, true
		}
	}
	return hooksCandidate{}, false
}

// pickMember is for the ways that no chance or turn is in.
func pickMember(u *hooksUse, members []hooksMember, dst netip.Addr) *hooksMember {
	var best *hooksMember
	var least uint64
	for i := range members {
		m := &members[i]
		if m.Up[flag(dst.Is4())] == 0 {
			continue
		}
		if u.Kind == hooksKindFIRST_UP {
			return m
		}
		h := rendezvous.Mix(rendezvous.Addr(rendezvous.Seed, dst))
		if c := rendezvous.Cost(h^m.Id, uint64(m.Weight)); best == nil || c < least {
			best, least = m, c
		}
	}
	return best
}

// compile draws rules and compiles them for both planes; ok is false where they are none.
func compile(data []byte) (d *drawn, table *dialer.Table, r *Rules, err error) {
	d = newDrawn(data)
	if table, err = dialer.NewTable(d.rules, d.otherwise); err != nil {
		return nil, nil, nil, err
	}
	r, err = Compile(table, Options{Service: drawnService[0]})
	return d, table, r, err
}

// differs draws flows until a plane answers one in another way than the table.
func (d *drawn) differs(t *testing.T, table *dialer.Table, plane func(dialer.Flow) answer) error {
	t.Helper()
	for range 48 {
		f := d.flow()
		if got, want := plane(f), d.byTable(t, table, f); got != want {
			return fmt.Errorf("for %+v\n got %+v\nwant %+v\n%s", f, got, want, d)
		}
	}
	return nil
}

// agree compares the maps with the table.
func agree(t *testing.T, data []byte) {
	t.Helper()
	d, table, r, err := compile(data)
	if err != nil {
		t.Fatal(err)
	}
	members := r.withState(nil)
	if err := d.differs(t, table, func(f dialer.Flow) answer { return r.byMaps(members, f) }); err != nil {
		t.Fatalf("the maps differ %v", err)
	}
}

func (d *drawn) String() string {
	var b strings.Builder
	for _, r := range d.rules {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	fmt.Fprintf(&b, "default %v", d.otherwise)
	return b.String()
}

// random returns the i-th of a fixed series of inputs.
func random(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 11))
	b := make([]byte, 300+r.IntN(1500))
	for j := range b {
		b[j] = byte(r.Uint32())
	}
	return b
}

func TestMapsAgreeWithTable(t *testing.T) {
	for i := range 2000 {
		agree(t, random(i))
	}
}

func FuzzMaps(f *testing.F) {
	for i := range 128 {
		f.Add(random(i))
	}
	f.Fuzz(agree)
}

// TestBrokenCompilerIsCaught spoils what the compiler has made, in ways in which it could be wrong.
func TestBrokenCompilerIsCaught(t *testing.T) {
	each := func(spoil func(*hooksCandidate)) func(*Rules) {
		return func(r *Rules) {
			for i := range r.candidates {
				spoil(&r.candidates[i])
			}
		}
	}
	for name, spoil := range map[string]func(*Rules){
		"the last candidate is lost": func(r *Rules) {
			for k, l := range r.lists {
				l.Count = max(l.Count, 1) - 1
				r.lists[k] = l
			}
		},
		"the order is reversed": func(r *Rules) {
			for _, l := range r.lists {
				slices.Reverse(r.candidates[l.First : l.First+l.Count])
			}
		},
		"a prefix is lost":        func(r *Rules) { delete(r.lists, key(netip.MustParsePrefix("10.1.2.3/32"))) },
		"ranges end too early":    each(func(c *hooksCandidate) { c.PortHigh-- }),
		"ranges begin too late":   each(func(c *hooksCandidate) { c.PortLow++ }),
		"local ports do not hold": each(func(c *hooksCandidate) { c.LocalLow, c.LocalHigh = 0, 65535 }),
		"the protocol is lost":    each(func(c *hooksCandidate) { c.Protocol = 0 }),
		"no rule is deliberate":   each(func(c *hooksCandidate) { c.Deliberate = 0 }),
		"carried addresses pass":  func(r *Rules) { clear(r.carried) },
		"loopback is ruled": func(r *Rules) {
			for k, l := range r.lists {
				l.Use, l.Rule = r.lists[key(everywhere[0])].Use, r.lists[key(everywhere[0])].Rule
				r.lists[k] = l
			}
		},
		"weights are lost": func(r *Rules) {
			for i := range r.members {
				r.members[i].Weight = 1
			}
		},
		"sticky keys are others": func(r *Rules) {
			for i := range r.members {
				r.members[i].Id++
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 2000 {
				d, table, r, err := compile(random(i))
				if err != nil {
					t.Fatal(err)
				}
				spoil(r)
				members := r.withState(nil)
				if d.differs(t, table, func(f dialer.Flow) answer { return r.byMaps(members, f) }) != nil {
					return
				}
			}
			t.Error("nobody saw it")
		})
	}
}
