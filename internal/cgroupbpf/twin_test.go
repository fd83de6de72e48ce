//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/rendezvous"
	"github.com/srcproxy/srcproxy/internal/ruleset"
)

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

// bySpecial asks a table of those rules alone whose longest prefix around the address lies inside of the range.
func (d *drawn) bySpecial(t *testing.T, f dialer.Flow, within netip.Prefix) answer {
	t.Helper()
	inside := func(p netip.Prefix) bool { return p.Bits() >= within.Bits() && within.Contains(p.Addr()) }
	rules := slices.DeleteFunc(slices.Clone(d.rules), func(r dialer.Rule) bool {
		return !inside(longest(r.To, f)) && !inside(longest(slices.Collect(maps.Keys(r.Map)), f))
	})
	table, err := dialer.NewTable(rules, dialer.Use{Kernel: true})
	if err != nil {
		t.Fatal(err)
	}
	dec := table.Lookup(f)
	return answerOf(&dec)
}

// longest returns the longest prefix around the address of f, the zero Prefix when there is none.
func longest(list []dialer.Match, f dialer.Flow) (best netip.Prefix) {
	for _, m := range list {
		if p := m.Prefix(); p.Contains(f.Dst.Addr()) && p.Bits() > best.Bits() {
			best = p
		}
	}
	return best
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
