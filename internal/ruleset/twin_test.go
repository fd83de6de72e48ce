package ruleset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// source draws choices from fuzz input, so that a fuzzer can change one of them and keep the others. It is exhausted when
// the bytes are.
type source struct {
	b    []byte
	wide bool // destinations are few and wide: rules are filed under other conditions
	deep bool // prefixes nest around one address: lists are inherited and grow long
	rare int  // conditions other than the destination are this much rarer
}

func newSource(data []byte) *source {
	s := &source{b: data}
	shape := s.below(6)
	s.wide, s.deep, s.rare = shape%3 == 1, shape%3 == 2, 1+shape/3
	return s
}

func (s *source) below(n int) int {
	if len(s.b) == 0 {
		return 0
	}
	v := int(s.b[0])
	s.b = s.b[1:]
	return v % n
}

// one reports true once in n.
func (s *source) one(n int) bool { return s.below(n) == n-1 }

func pick[E any](s *source, list []E) E { return list[s.below(len(list))] }

// The universe is small, so that rules overlap and queries hit.
var (
	centres = []string{"10.1.2.3", "10.1.2.200", "192.0.2.1", "2001:db8::1", "2001:db8:0:1::5", "fe80::1"}
	lengths = []int{0, 1, 8, 9, 15, 16, 17, 24, 25, 30, 31, 32, 33, 48, 64, 96, 127, 128}
	stems   = []string{"example", "a.example", "b.a.example", "c.b.a.example", "d.c.b.a.example", "aa.example", "test", "a.test", "e.d.c.b.a.example"}
	asked   = []string{"", "", "x.a.example", "y.x.a.example", "x.example", "xa.example", ".a.example", "a..a.example", "..example", ".", "nowhere", "x.b.a.test"}
	dsts    = []string{
		"", "10.1.2.3", "10.1.2.2", "10.1.2.0", "10.1.3.1", "10.200.0.1", "11.0.0.1", "192.0.2.1", "192.0.2.255", "0.0.0.0",
		"::ffff:10.1.2.3", "::ffff:192.0.2.1%eth0", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::5", "2001:db9::", "::", "fe80::1", "fe80::1%eth0",
	}
	edges     = []uint16{1, 24, 25, 26, 80, 255, 256, 443, 1023, 1024, 32767, 32768, 65534, 65535}
	users     = []string{"ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ivy", "jon", "kim"}
	listeners = []string{"in", "out"}
	services  = []string{"a.service", "b.service"}
)

func (s *source) prefix() netip.Prefix {
	switch {
	case s.wide:
		return pick(s, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")})
	case s.deep:
		return netip.PrefixFrom(netip.MustParseAddr(centres[0]), s.below(33)).Masked()
	}
	a := netip.MustParseAddr(pick(s, centres))
	p, err := a.Prefix(min(pick(s, lengths), a.BitLen()))
	if err != nil {
		panic(err)
	}
	return p
}

func (s *source) target() Target {
	if s.one(2) {
		return Target{Prefix: s.prefix()}
	}
	names := stems
	if s.wide || s.deep {
		names = stems[:3]
	}
	return Target{Name: pick(s, names), Scope: Scope(s.below(3))}
}

func (s *source) portRange() PortRange {
	a, b := pick(s, edges), pick(s, edges)
	if s.one(2) {
		b = a
	}
	if s.one(16) {
		a = 0
	}
	return PortRange{min(a, b), max(a, b)}
}

// draw makes a list: usually short, now and then longer than few.
func draw[E any](s *source, element func() E) []E {
	n := 1 + s.below(3)
	if s.one(12) {
		n = few + 1 + s.below(6)
	}
	list := make([]E, n)
	for i := range list {
		list[i] = element()
	}
	return list
}

func (s *source) rule(outcome int32) Rule {
	r := Rule{Outcome: outcome}
	other := func(n int) bool { return s.one(n * s.rare) }
	if s.one(2) {
		r.To = draw(s, s.target)
	}
	if s.one(4) {
		r.Map = make(map[Target]int32)
		for i, t := range draw(s, s.target) {
			r.Map[t] = outcome + int32(i) + 1
		}
	}
	if other(4) {
		r.Ports = draw(s, s.portRange)
	}
	if other(4) {
		r.Protocol = Protocol(1 + s.below(3))
	}
	if other(5) {
		r.Client = draw(s, s.prefix)
	}
	if other(4) {
		r.Users = draw(s, func() string { return pick(s, users) })
	}
	if other(6) {
		r.Listeners = draw(s, func() string { return pick(s, listeners) })
	}
	if other(6) {
		r.Services = draw(s, func() string { return pick(s, services) })
	}
	if other(8) {
		r.LocalPorts = draw(s, s.portRange)
	}
	return r
}

func (s *source) rules() []Rule {
	rules := make([]Rule, 1+s.below(40)*(1+s.below(3)))
	for i := range rules {
		rules[i] = s.rule(int32(100 * (i + 1)))
	}
	return rules
}

func (s *source) addr() netip.Addr {
	if d := pick(s, dsts); d != "" {
		return netip.MustParseAddr(d)
	}
	return netip.Addr{}
}

func (s *source) port() uint16 {
	switch p := pick(s, edges); s.below(4) {
	case 0:
		return 0
	case 1:
		return p + 1
	default:
		return p
	}
}

func (s *source) query() Query {
	q := Query{Dst: s.addr(), Port: s.port(), Client: s.addr(), LocalPort: s.port(), Protocol: Protocol(s.below(3))}
	switch s.below(3) {
	case 0:
		q.Name = pick(s, asked)
	case 1:
		q.Name = pick(s, stems)
	}
	if !s.one(3) {
		q.User = pick(s, users)
	}
	if !s.one(3) {
		q.Listener = pick(s, listeners)
	}
	if !s.one(3) {
		q.Service = pick(s, services)
	}
	return q
}

// agree holds the Set, the kernel's table and the slow twin of the rules in data against each other.
func agree(t *testing.T, data []byte) {
	t.Helper()
	s := newSource(data)
	rules := s.rules()
	set, err := Compile(rules)
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	hooks := newHooks(t, rules)
	for range 24 {
		q := s.query()
		checkTwin(t, rules, set, q)
		checkEarly(t, rules, set, q)
		hooks.check(t, rules, q)
	}
}

func checkTwin(t *testing.T, rules []Rule, set *Set, q Query) {
	t.Helper()
	got, gotOK := set.First(q)
	want, wantOK := Slow(rules, q)
	if got != want || gotOK != wantOK {
		t.Fatalf("First(%+v)\n got %+v %v\nwant %+v %v\n%s", q, got, gotOK, want, wantOK, show(rules))
	}
	got, gotOK = set.FirstByPrefix(q)
	want, wantOK = SlowByPrefix(rules, q)
	if got != want || gotOK != wantOK {
		t.Fatalf("FirstByPrefix(%+v)\n got %+v %v\nwant %+v %v\n%s", q, got, gotOK, want, wantOK, show(rules))
	}
}

// checkEarly asks without the address: an answer at or before FirstAddressRule must be the answer with it.
func checkEarly(t *testing.T, rules []Rule, set *Set, q Query) {
	t.Helper()
	whole, _ := set.First(q)
	q.Dst = netip.Addr{}
	if early, ok := set.First(q); ok && early.Rule <= set.FirstAddressRule() && early != whole {
		t.Fatalf("First(%+v) without the address: %+v, with it %+v; first address rule %d\n%s", q, early, whole, set.FirstAddressRule(), show(rules))
	}
}

// hooks are those of a service, of none, and one that reads the rules which have a prefix.
type hooks struct{ service, none, byPrefix hook }

func newHooks(t *testing.T, rules []Rule) hooks {
	t.Helper()
	return hooks{
		service:  newHook(t, rules, View{Service: services[0]}),
		none:     newHook(t, rules, View{}),
		byPrefix: newHook(t, rules, View{Counts: func(_, own netip.Prefix) bool { return own.IsValid() }}),
	}
}

func (h hooks) check(t *testing.T, rules []Rule, q Query) {
	t.Helper()
	q = Query{Dst: addr(q.Dst), Port: q.Port, Protocol: q.Protocol, LocalPort: q.LocalPort}
	if !q.Dst.IsValid() {
		return
	}
	h.none.check(t, rules, q, Slow)
	h.byPrefix.check(t, rules, q, SlowByPrefix)
	q.Service = services[0]
	h.service.check(t, rules, q, Slow)
}

// hook is what a kernel hook does with Prefixes.
type hook map[netip.Prefix][]Candidate

func newHook(t *testing.T, rules []Rule, v View) hook {
	t.Helper()
	prefixes, err := Prefixes(rules, v)
	if err != nil {
		t.Fatalf("Prefixes: %v", err)
	}
	h := make(hook)
	for p, list := range prefixes {
		if _, twice := h[p]; twice {
			t.Fatalf("Prefixes yields %s twice", p)
		}
		h[p] = list
	}
	return h
}

func (h hook) check(t *testing.T, rules []Rule, q Query, slow func([]Rule, Query) (Match, bool)) {
	t.Helper()
	want, wantOK := slow(rules, q)
	got, gotOK := h.first(q)
	if gotOK != wantOK || got.Rule != want.Rule || got.Outcome != want.Outcome || got.Prefix != want.Prefix {
		t.Fatalf("hook(%+v)\n got %+v %v\nwant %+v %v\n%s", q, got, gotOK, want, wantOK, show(rules))
	}
}

func (h hook) first(q Query) (Candidate, bool) {
	for bits := q.Dst.BitLen(); bits >= 0; bits-- {
		p, err := q.Dst.Prefix(bits)
		if err != nil {
			panic(err)
		}
		list, ok := h[p]
		if !ok {
			continue
		}
		for _, c := range list {
			if failed(&Rule{Protocol: c.Protocol, Ports: c.Ports, LocalPorts: c.LocalPorts}, &q) == "" {
				return c, true
			}
		}
		break
	}
	return Candidate{}, false
}

func show(rules []Rule) string {
	var b strings.Builder
	for i, r := range rules {
		fmt.Fprintf(&b, "%3d %+v\n", i, r)
	}
	return b.String()
}

// random returns the i-th of a fixed series of inputs.
func random(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	b := make([]byte, 200+r.IntN(2000))
	for j := range b {
		b[j] = byte(r.Uint32())
	}
	return b
}

func TestTwins(t *testing.T) {
	for i := range 3000 {
		agree(t, random(i))
	}
}

func FuzzTwins(f *testing.F) {
	for i := range 256 {
		f.Add(random(i))
	}
	f.Fuzz(agree)
}
