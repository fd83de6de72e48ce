package ruleset

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// address returns the i-th of 2^24 addresses that are spread over the IPv4 space.
func address(i int) netip.Addr {
	v := uint32(i) * 2654435761
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func prefix(i, bits int) netip.Prefix {
	p, err := address(i).Prefix(bits)
	if err != nil {
		panic(err)
	}
	return p
}

// shape is a kind of rule set: n rules, and a query that the i-th of them decides.
type shape struct {
	name  string
	rules func(n int) []Rule
	query func(i int) Query
}

func each(n int, rule func(i int) Rule) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = rule(i)
		rules[i].Outcome = int32(i)
	}
	return rules
}

var everywhere = []Target{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}

var shapes = []shape{
	{"prefixes", func(n int) []Rule {
		return each(n, func(i int) Rule { return Rule{To: []Target{{Prefix: prefix(i, 24)}}} })
	}, func(i int) Query { return Query{Dst: address(i), Protocol: TCP, Port: 443} }},
	{"names", func(n int) []Rule {
		return each(n, func(i int) Rule {
			return Rule{To: []Target{{Name: fmt.Sprintf("h%d.example", i), Scope: Scope(i % 3)}}}
		})
	}, func(i int) Query {
		return Query{Dst: address(i), Name: []string{"", "a.b.", "c."}[i%3] + fmt.Sprintf("h%d.example", i), Port: 443}
	}},
	{"users", func(n int) []Rule {
		return each(n, func(i int) Rule { return Rule{To: everywhere, Protocol: TCP, Users: []string{fmt.Sprint("u", i)}} })
	}, func(i int) Query { return Query{Dst: address(i), Protocol: TCP, User: fmt.Sprint("u", i)} }},
	{"mixed-nested", mixed, func(i int) Query {
		return Query{Dst: address(i), Name: fmt.Sprintf("a.h%d.example", i), Protocol: UDP, Port: uint16(1 + i%60000), Client: address(i + 7), User: fmt.Sprint("u", i)}
	}},
	{"map", func(n int) []Rule {
		m := make(map[Target]int32, n)
		for i := range n {
			m[Target{Prefix: prefix(i, 24)}] = int32(i)
		}
		return []Rule{{Map: m}}
	}, func(i int) Query { return Query{Dst: address(i)} }},
}

// mixed uses every condition, nests prefixes up to 33 deep and names up to four.
func mixed(n int) []Rule {
	return each(n, func(i int) Rule {
		switch i % 7 {
		case 0:
			return Rule{To: []Target{{Prefix: prefix(i, 8+i/7%25)}}, Ports: []PortRange{{1, 1023}}}
		case 1:
			return Rule{To: []Target{{Prefix: prefix(0, i/7%33)}}, Ports: []PortRange{{uint16(1 + i%60000), uint16(1 + i%60000)}}, Protocol: TCP}
		case 2:
			return Rule{To: []Target{{Name: fmt.Sprintf("h%d.example", i), Scope: Below}}, Protocol: TCP}
		case 3:
			return Rule{To: everywhere, Users: []string{fmt.Sprint("u", i)}}
		case 4:
			return Rule{Client: []netip.Prefix{prefix(i+7, 24)}, Protocol: UDP}
		case 5:
			return Rule{To: []Target{{Prefix: prefix(i, 24)}, {Name: fmt.Sprintf("a.h%d.example", i)}}}
		}
		return Rule{Map: map[Target]int32{{Prefix: prefix(i, 24)}: 1, {Prefix: prefix(i, 28)}: 2, {Name: fmt.Sprintf("h%d.example", i), Scope: Both}: 3}}
	})
}

func BenchmarkLookup(b *testing.B) {
	for _, s := range shapes {
		for _, n := range []int{10, 1000, 100000} {
			set := compile(b, s.rules(n))
			queries := make([]Query, 1024)
			for i := range queries {
				queries[i] = s.query(i * 7919 % n)
			}
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					set.First(queries[i%len(queries)])
					i++
				}
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range shapes {
		rules := s.rules(100000)
		b.Run(s.name, func(b *testing.B) {
			var set *Set
			before := heap()
			for b.Loop() {
				set = compile(b, rules)
			}
			b.ReportMetric(float64(heap()-before)/(1<<20), "MB-kept")
			runtime.KeepAlive(set)
			runtime.KeepAlive(rules)
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) // #nosec G115 -- far below 2^63
}

func TestAllocs(t *testing.T) {
	for _, s := range shapes {
		set := compile(t, s.rules(2000))
		i := 0
		for name, f := range map[string]func(Query) (Match, bool){"First": set.First, "FirstByPrefix": set.FirstByPrefix} {
			queries := make([]Query, 64)
			for i := range queries {
				queries[i] = s.query(i)
			}
			if n := testing.AllocsPerRun(200, func() { f(queries[i%64]); i++ }); n != 0 {
				t.Errorf("%s: %s allocates %v times, want 0", s.name, name, n)
			}
		}
	}
	for i := range 40 {
		src := newSource(random(i))
		set := compile(t, src.rules())
		q := src.query()
		if n := testing.AllocsPerRun(10, func() { set.First(q); set.FirstByPrefix(q) }); n != 0 {
			t.Errorf("set %d, %+v: allocates %v times, want 0", i, q, n)
		}
	}
	if n := testing.AllocsPerRun(10, func() { CanonicalName("smtp.mail.example.") }); n != 0 {
		t.Errorf("CanonicalName allocates %v times, want 0", n)
	}
}

// large is enough rules for what is not linear to show.
const large = 20000

// TestLarge holds each shape against the slow twin.
func TestLarge(t *testing.T) {
	const n = large
	for _, s := range shapes {
		rules := s.rules(n)
		set := compile(t, rules)
		for i := range 8 {
			checkTwin(t, rules, set, s.query(i*(n/8)+i))
		}
	}
}

// TestMemory counts what the hard shapes keep: a few candidates for each rule, however they nest.
func TestMemory(t *testing.T) {
	const n = large
	for name, rules := range map[string][]Rule{
		"rules on a default prefix above prefixes": each(n, func(i int) Rule {
			if i < 1000 {
				return Rule{To: everywhere, Users: []string{fmt.Sprint(i % 30)}, Ports: []PortRange{{uint16(1 + i/30), uint16(1 + i/30)}}}
			}
			return Rule{To: []Target{{Prefix: prefix(i, 32)}}}
		}),
		"rules that only the default prefix holds": each(n, func(i int) Rule {
			if i < 1000 {
				return Rule{To: everywhere, Client: prefixes("10.0.0.0/8"), Listeners: []string{"a"}, Users: make1000(i), Protocol: UDP}
			}
			return Rule{To: []Target{{Prefix: prefix(i, 32)}}, Client: prefixes("10.0.0.0/8"), Listeners: []string{"a"}, Users: []string{"u"}}
		}),
		"33 deep": each(n, func(i int) Rule {
			return Rule{To: []Target{{Prefix: prefix(i/33, i%33)}}, Protocol: Protocol(i % 4), Ports: []PortRange{{uint16(1 + i%1000), uint16(1 + i%1000)}}}
		}),
		"names 100 deep": each(n, func(i int) Rule {
			return Rule{To: []Target{{Name: deepName(i), Scope: Below}}, Ports: []PortRange{{uint16(1 + i%1000), uint16(1 + i%1000)}}}
		}),
		"port ranges that overlap": each(n, func(i int) Rule {
			return Rule{Ports: []PortRange{{uint16(1 + i%65535), 65535}}, Users: []string{fmt.Sprint(i % 300)}}
		}),
		"clients": each(n, func(i int) Rule { return Rule{Client: []netip.Prefix{prefix(i, i%33)}, Protocol: TCP} }),
	} {
		start := time.Now()
		set := compile(t, rules)
		t.Logf("%s: %d candidates, %d lists, %d conditions, %v", name, len(set.slab), len(set.nodes), len(set.conds), time.Since(start).Round(time.Millisecond))
		if most := n * (short + 1); len(set.slab) > most {
			t.Errorf("%s: got %d candidates, want at most %d", name, len(set.slab), most)
		}
		src := newSource(random(1))
		q := src.query()
		q.Dst, q.Client, q.User = address(5000), address(33), "7"
		checkTwin(t, rules, set, q)
	}
}

// make1000 returns a list of users of which all rules share the first.
func make1000(i int) []string { return []string{"u", fmt.Sprint("u", i)} }

func deepName(i int) string {
	name := fmt.Sprintf("n%d.example", i/100)
	for range i % 100 {
		name = "a." + name
	}
	return name
}
