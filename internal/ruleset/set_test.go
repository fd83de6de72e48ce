package ruleset

import (
	"net/netip"
	"strings"
	"testing"
)

func to(t testing.TB, list ...string) []Target {
	t.Helper()
	targets := make([]Target, len(list))
	for i, s := range list {
		var err error
		if targets[i], err = ParseTarget(s); err != nil {
			t.Fatal(err)
		}
	}
	return targets
}

// pairs makes a map whose outcomes are 1, 2, 3 ... in the order of list.
func pairs(t testing.TB, list ...string) map[Target]int32 {
	t.Helper()
	m := make(map[Target]int32)
	for i, target := range to(t, list...) {
		m[target] = int32(i + 1)
	}
	return m
}

func prefixes(list ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(list))
	for i, s := range list {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}

func dst(s string) Query { return Query{Dst: netip.MustParseAddr(s)} }

func name(s, address string) Query {
	q := Query{Name: s}
	if address != "" {
		q.Dst = netip.MustParseAddr(address)
	}
	return q
}

// answers writes what First and FirstByPrefix say: "rule/outcome by prefix; rule/outcome by prefix", "-" for no match.
func answers(first Match, ok bool, byPrefix Match, okByPrefix bool) string {
	return first.text(ok) + "; " + byPrefix.text(okByPrefix)
}

func (m Match) text(ok bool) string {
	if !ok {
		return "-"
	}
	by := map[By]string{ByAny: "any", ByName: "name", ByPrefix: m.Prefix.String()}[m.By]
	return string(rune('0'+m.Rule)) + "/" + string('0'+m.Outcome) + " " + by
}

type matchTest struct {
	name  string
	rules []Rule
	query Query
	want  string
}

func TestConditions(t *testing.T) {
	ten := to(t, "10.0.0.0/8")
	long := make([]string, 0, 20)
	for i := range 20 {
		long = append(long, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())
	}
	ports := func(rs ...PortRange) []Rule { return []Rule{{Ports: rs, Outcome: 7}} }
	run(t, []matchTest{
		{"no rules", nil, dst("10.0.0.1"), "-; -"},
		{"no condition", []Rule{{Outcome: 7}}, Query{}, "0/7 any; -"},
		{"first decides", []Rule{{Outcome: 7}, {Outcome: 8}}, Query{}, "0/7 any; -"},
		{"to prefix", []Rule{{To: ten, Outcome: 7}}, dst("10.9.9.9"), "0/7 10.0.0.0/8; 0/7 10.0.0.0/8"},
		{"to prefix, outside", []Rule{{To: ten}}, dst("11.0.0.0"), "-; -"},
		{"to prefix, address unknown", []Rule{{To: ten}}, name("a.example", ""), "-; -"},
		{"to prefix, mapped address", []Rule{{To: ten, Outcome: 7}}, dst("::ffff:10.0.0.1"), "0/7 10.0.0.0/8; 0/7 10.0.0.0/8"},
		{"to prefix, zone", []Rule{{To: to(t, "fe80::/10")}}, dst("fe80::1%eth0"), "0/0 fe80::/10; 0/0 fe80::/10"},
		{"to ::/0 is not IPv4", []Rule{{To: to(t, "::/0")}}, dst("::ffff:10.0.0.1"), "-; -"},
		{"to 0.0.0.0/0 is not IPv6", []Rule{{To: to(t, "0.0.0.0/0")}}, dst("2001:db8::1"), "-; -"},
		{"to address", []Rule{{To: to(t, "203.0.113.5")}}, dst("203.0.113.5"), "0/0 203.0.113.5/32; 0/0 203.0.113.5/32"},
		{"to, one element is enough", []Rule{{To: to(t, "a.example", "10.0.0.0/8")}}, name("b.example", "10.0.0.1"), "0/0 10.0.0.0/8; 0/0 10.0.0.0/8"},
		{"to, longest prefix of the rule", []Rule{{To: to(t, "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0")}}, dst("10.1.1.1"), "0/0 10.1.0.0/16; 0/0 10.1.0.0/16"},
		{"to, the name decides over the prefix", []Rule{{To: to(t, "10.0.0.0/8", "a.example")}}, name("a.example", "10.0.0.1"), "0/0 name; 0/0 10.0.0.0/8"},
		{"to exact name", []Rule{{To: to(t, "a.example"), Outcome: 7}}, name("a.example", ""), "0/7 name; -"},
		{"to exact name, below", []Rule{{To: to(t, "a.example")}}, name("x.a.example", ""), "-; -"},
		{"to below", []Rule{{To: to(t, "*.a.example")}}, name("y.x.a.example", ""), "0/0 name; -"},
		{"to below, itself", []Rule{{To: to(t, "*.a.example")}}, name("a.example", ""), "-; -"},
		{"to below, only the dot", []Rule{{To: to(t, "*.a.example")}}, name(".a.example", ""), "-; -"},
		{"to below, no dot", []Rule{{To: to(t, "*.a.example")}}, name("xa.example", ""), "-; -"},
		{"to both, itself", []Rule{{To: to(t, ".a.example")}}, name("a.example", ""), "0/0 name; -"},
		{"to both, below", []Rule{{To: to(t, ".a.example")}}, name("x.a.example", ""), "0/0 name; -"},
		{"a name is judged again by prefixes", []Rule{{To: to(t, "*.example"), Outcome: 1}, {To: ten, Outcome: 9}}, name("a.example", "10.0.0.1"), "0/1 name; 1/9 10.0.0.0/8"},
		{"the second judgement keeps the order", []Rule{{To: to(t, "10.1.0.0/16"), Users: []string{"ann"}}, {To: to(t, "0.0.0.0/0"), Outcome: 1}, {To: to(t, "10.1.1.0/24"), Outcome: 2}}, dst("10.1.1.1"), "1/1 0.0.0.0/0; 1/1 0.0.0.0/0"},
		{"port", ports(PortRange{25, 25}), Query{Port: 25}, "0/7 any; -"},
		{"port below", ports(PortRange{25, 25}), Query{Port: 24}, "-; -"},
		{"port above", ports(PortRange{25, 25}), Query{Port: 26}, "-; -"},
		{"port unknown", ports(PortRange{0, 65535}), Query{}, "-; -"},
		{"port first of all", ports(PortRange{1, 65535}), Query{Port: 1}, "0/7 any; -"},
		{"port last of all", ports(PortRange{1, 65535}), Query{Port: 65535}, "0/7 any; -"},
		{"port between two", ports(PortRange{24, 24}, PortRange{26, 26}), Query{Port: 25}, "-; -"},
		{"port, overlapping ranges", ports(PortRange{10, 90}, PortRange{20, 30}), Query{Port: 80}, "0/7 any; -"},
		{"port beside to", []Rule{{To: ten, Ports: []PortRange{{24, 24}, {26, 26}}}}, Query{Dst: netip.MustParseAddr("10.0.0.1"), Port: 25}, "-; -"},
		{"protocol", []Rule{{Protocol: UDP}}, Query{Protocol: UDP}, "0/0 any; -"},
		{"protocol, the other", []Rule{{Protocol: UDP}}, Query{Protocol: TCP}, "-; -"},
		{"protocol, both", []Rule{{Protocol: TCP | UDP}}, Query{Protocol: TCP}, "0/0 any; -"},
		{"protocol unknown", []Rule{{Protocol: TCP | UDP}}, Query{}, "-; -"},
		{"client", []Rule{{Client: prefixes("10.0.8.0/24")}}, Query{Client: netip.MustParseAddr("10.0.8.4")}, "0/0 any; -"},
		{"client, mapped", []Rule{{Client: prefixes("10.0.8.0/24")}}, Query{Client: netip.MustParseAddr("::ffff:10.0.8.4")}, "0/0 any; -"},
		{"client, outside", []Rule{{Client: prefixes("10.0.8.0/24")}}, Query{Client: netip.MustParseAddr("10.0.9.4")}, "-; -"},
		{"client unknown", []Rule{{Client: prefixes("0.0.0.0/0", "::/0")}}, Query{}, "-; -"},
		{"user", []Rule{{Users: []string{"ann", "bob"}}}, Query{User: "bob"}, "0/0 any; -"},
		{"user, case counts", []Rule{{Users: []string{"ann"}}}, Query{User: "Ann"}, "-; -"},
		{"user unknown", []Rule{{Users: []string{"ann"}}}, Query{}, "-; -"},
		{"listener", []Rule{{Listeners: []string{"office"}}}, Query{Listener: "office"}, "0/0 any; -"},
		{"service", []Rule{{Services: []string{"a.service"}}}, Query{Service: "a.service"}, "0/0 any; -"},
		{"service unknown", []Rule{{Services: []string{"a.service"}}}, Query{}, "-; -"},
		{"listener unknown", []Rule{{Listeners: []string{"office"}}}, Query{}, "-; -"},
		{"local port", []Rule{{LocalPorts: []PortRange{{5060, 5061}}}}, Query{LocalPort: 5061}, "0/0 any; -"},
		{"local port unknown", []Rule{{LocalPorts: []PortRange{{5060, 5061}}}}, Query{Port: 5060}, "-; -"},
		{"every condition", every(t), everyQuery(), "0/0 203.0.113.0/24; 0/0 203.0.113.0/24"},
		{"filed under the user, first by a name", []Rule{{To: to(t, "0.0.0.0/0"), Users: []string{"bob"}}, {To: to(t, "0.0.0.0/0", ".example"), Users: []string{"ann"}, Outcome: 5}}, Query{User: "ann", Name: "a.example", Dst: netip.MustParseAddr("10.0.0.1")}, "1/5 name; 1/5 0.0.0.0/0"},
		{"a rule without destination hides none from the second judgement", []Rule{{Users: []string{"ann"}, Outcome: 1}, {Users: []string{"ann"}, To: to(t, "0.0.0.0/0"), Outcome: 2}, {To: to(t, "0.0.0.0/0"), Users: []string{"bob"}}, {To: to(t, "0.0.0.0/0"), Users: []string{"cat"}}}, Query{User: "ann", Dst: netip.MustParseAddr("10.0.0.1")}, "0/1 any; 1/2 0.0.0.0/0"},
		{"long to list beside a user", []Rule{{Users: []string{"ann"}, To: to(t, long...)}, {Users: []string{"bob"}, To: to(t, long...)}}, Query{User: "bob", Dst: netip.MustParseAddr("192.0.2.19")}, "1/0 192.0.2.19/32; 1/0 192.0.2.19/32"},
	})
}

func every(t *testing.T) []Rule {
	return []Rule{{
		To: to(t, "203.0.113.0/24"), Ports: []PortRange{{5060, 5060}}, Protocol: UDP, Client: prefixes("10.0.0.0/8"),
		Users: []string{"ann"}, Listeners: []string{"office"}, Services: []string{"a.service"}, LocalPorts: []PortRange{{5060, 5060}},
	}}
}

func everyQuery() Query {
	return Query{
		Protocol: UDP, Dst: netip.MustParseAddr("203.0.113.5"), Port: 5060, Client: netip.MustParseAddr("10.1.1.1"),
		User: "ann", Listener: "office", Service: "a.service", LocalPort: 5060,
	}
}

// TestEachConditionCounts takes the query that meets a rule with every condition and spoils one field at a time.
func TestEachConditionCounts(t *testing.T) {
	rules := every(t)
	set := compile(t, rules)
	for condition, spoil := range map[string]func(*Query){
		"to":         func(q *Query) { q.Dst = netip.MustParseAddr("203.0.114.5") },
		"port":       func(q *Query) { q.Port++ },
		"protocol":   func(q *Query) { q.Protocol = TCP },
		"client":     func(q *Query) { q.Client = netip.MustParseAddr("192.0.2.1") },
		"user":       func(q *Query) { q.User = "bob" },
		"listener":   func(q *Query) { q.Listener = "home" },
		"service":    func(q *Query) { q.Service = "b.service" },
		"local_port": func(q *Query) { q.LocalPort = 0 },
	} {
		q := everyQuery()
		spoil(&q)
		if m, ok := set.First(q); ok {
			t.Errorf("%s spoilt: got %+v, want no match", condition, m)
		}
		for _, r := range Walk(rules, q) {
			if r.Matched || r.Condition != condition || !strings.HasPrefix(r.Detail, condition+" ") {
				t.Errorf("%s spoilt: reason %+v", condition, r)
			}
		}
	}
}

func TestMaps(t *testing.T) {
	m := []Rule{{Map: pairs(t, "203.0.113.0/24", "203.0.113.64/26", "*.shop.example", "10.0.0.0/8", ".shop.example", "shop.example", "a.shop.example", ".b.shop.example")}}
	both := func(to []Target) []Rule { return []Rule{{To: to, Map: m[0].Map}, {Outcome: 9}} }
	run(t, []matchTest{
		{"no hit", m, dst("192.0.2.1"), "-; -"},
		{"no hit, next rule", append(m[:1:1], Rule{Outcome: 9}), name("other.example", "192.0.2.1"), "1/9 any; -"},
		{"prefix", m, dst("203.0.113.1"), "0/1 203.0.113.0/24; 0/1 203.0.113.0/24"},
		{"longest prefix", m, dst("203.0.113.65"), "0/2 203.0.113.64/26; 0/2 203.0.113.64/26"},
		{"suffix, the narrower scope", m, name("x.shop.example", ""), "0/3 name; -"},
		{"exact before both", m, name("shop.example", ""), "0/6 name; -"},
		{"exact before suffix", m, name("a.shop.example", ""), "0/7 name; -"},
		{"below an exact name", m, name("x.a.shop.example", ""), "0/3 name; -"},
		{"longest suffix", m, name("x.b.shop.example", ""), "0/8 name; -"},
		{"longest suffix, itself", m, name("b.shop.example", ""), "0/8 name; -"},
		{"name before prefix", m, name("x.shop.example", "10.0.0.1"), "0/3 name; 0/4 10.0.0.0/8"},
		{"name of no key, prefix", m, name("x.example", "10.0.0.1"), "0/4 10.0.0.0/8; 0/4 10.0.0.0/8"},
		{"and to, both by prefix", both(to(t, "10.1.0.0/16")), dst("10.1.0.1"), "0/4 10.1.0.0/16; 0/4 10.1.0.0/16"},
		{"and to, to fails", both(to(t, "10.1.0.0/16")), dst("10.2.0.1"), "1/9 any; -"},
		{"and to, map fails", both(to(t, "192.0.2.0/24")), dst("192.0.2.1"), "1/9 any; -"},
		{"and to, to by name", both(to(t, "x.example")), name("x.example", "10.0.0.1"), "0/4 name; -"},
		{"and to, map by name", both(to(t, "192.0.2.0/24")), name("a.shop.example", "192.0.2.1"), "0/7 name; -"},
		{"and a condition", []Rule{{Map: m[0].Map, Protocol: UDP}}, dst("10.0.0.1"), "-; -"},
	})
}

func compile(t testing.TB, rules []Rule) *Set {
	t.Helper()
	set, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func run(t *testing.T, tests []matchTest) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := compile(t, tt.rules)
			first, ok := set.First(tt.query)
			byPrefix, okByPrefix := set.FirstByPrefix(tt.query)
			if got := answers(first, ok, byPrefix, okByPrefix); got != tt.want {
				t.Errorf("Set: got %s, want %s", got, tt.want)
			}
			first, ok = Slow(tt.rules, tt.query)
			byPrefix, okByPrefix = SlowByPrefix(tt.rules, tt.query)
			if got := answers(first, ok, byPrefix, okByPrefix); got != tt.want {
				t.Errorf("Slow: got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestZeroSet(t *testing.T) {
	var s Set
	if m, ok := s.First(everyQuery()); ok {
		t.Errorf("First of the zero Set: got %+v, want none", m)
	}
	if m, ok := s.FirstByPrefix(everyQuery()); ok {
		t.Errorf("FirstByPrefix of the zero Set: got %+v, want none", m)
	}
}

// TestCompileCopies changes everything that was handed to Compile.
func TestCompileCopies(t *testing.T) {
	rules := []Rule{
		{To: to(t, "10.0.0.0/8"), Ports: []PortRange{{25, 25}}, Client: prefixes("10.0.0.0/8"), Users: []string{"ann"}, LocalPorts: []PortRange{{1, 9}}, Outcome: 7},
		{Map: pairs(t, "192.0.2.0/24"), Users: []string{"ann"}},
	}
	set := compile(t, rules)
	rules[0].To[0], rules[0].Ports[0], rules[0].Client[0] = Target{}, PortRange{}, netip.Prefix{}
	rules[0].Users[0], rules[0].LocalPorts[0], rules[0].Outcome = "bob", PortRange{}, 0
	clear(rules[1].Map)
	a := netip.MustParseAddr("10.0.0.1")
	q := Query{Dst: a, Port: 25, Client: a, User: "ann", LocalPort: 5}
	if m, ok := set.First(q); !ok || m.Outcome != 7 {
		t.Errorf("First: got %+v %v, want rule 0 with outcome 7", m, ok)
	}
	if m, ok := set.First(Query{Dst: netip.MustParseAddr("192.0.2.1"), User: "ann"}); !ok || m.Rule != 1 {
		t.Errorf("First: got %+v %v, want rule 1", m, ok)
	}
}

func TestFirstAddressRule(t *testing.T) {
	names, prefix := to(t, "a.example"), to(t, "a.example", "10.0.0.0/8")
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  int
	}{
		{"none", nil, 0},
		{"only names", []Rule{{To: names}, {Client: prefixes("10.0.0.0/8")}, {Map: pairs(t, "b.example")}}, 3},
		{"to", []Rule{{To: names}, {To: prefix}, {To: prefix}}, 1},
		{"map", []Rule{{}, {Map: pairs(t, "b.example")}, {Map: pairs(t, "b.example", "::/0")}}, 2},
	} {
		if got := compile(t, tt.rules).FirstAddressRule(); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		want string
	}{
		{Rule{To: []Target{{}}}, "rule 1: to: "},
		{Rule{To: []Target{{Name: "A.example"}}}, "rule 1: to: target \"A.example\""},
		{Rule{To: []Target{{Name: "a.example", Scope: 3}}}, "scope 3"},
		{Rule{To: []Target{{Name: "a.example", Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}, "a prefix and a name"},
		{Rule{To: []Target{{Prefix: netip.MustParsePrefix("10.0.0.1/8")}}}, "write 10.0.0.0/8"},
		{Rule{To: []Target{{Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/104")}}}, "write 10.0.0.0/8"},
		{Rule{Map: map[Target]int32{}}, "map: has no key"},
		{Rule{Map: map[Target]int32{{}: 1}}, "rule 1: map: "},
		{Rule{Ports: []PortRange{{2, 1}}}, "port: range 2-1"},
		{Rule{Ports: []PortRange{{}}}, "port: range 0"},
		{Rule{LocalPorts: []PortRange{{2, 1}}}, "local_port: range 2-1"},
		{Rule{Client: []netip.Prefix{{}}}, "client: prefix is not valid"},
		{Rule{Client: prefixes("10.0.0.1/8")}, "client: prefix 10.0.0.1/8: write 10.0.0.0/8"},
		{Rule{Users: []string{""}}, "user: name is empty"},
		{Rule{Listeners: []string{""}}, "listener: name is empty"},
		{Rule{Services: []string{""}}, "service: name is empty"},
		{Rule{Protocol: 4}, "protocol: 0x4"},
	} {
		rules := []Rule{{}, tt.rule}
		if _, err := Compile(rules); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Compile(%+v): got %v, want %q", tt.rule, err, tt.want)
		}
		if _, err := Prefixes(rules, View{}); err == nil {
			t.Errorf("Prefixes(%+v): got no error", tt.rule)
		}
	}
}
