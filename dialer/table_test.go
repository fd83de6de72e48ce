package dialer_test

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// verdict is the part of a decision that tables compare.
type verdict struct {
	rule string
	addr string // empty: refused, or left to the kernel
	err  error
}

func (want verdict) check(t *testing.T, table *dialer.Table, f dialer.Flow) {
	t.Helper()
	got := table.Lookup(f)
	addr := ""
	if got.Addr.IsValid() {
		addr = got.Addr.String()
	}
	if got.Rule != want.rule || addr != want.addr {
		t.Errorf("rule %q from %q, want rule %q from %q (%v)", got.Rule, addr, want.rule, want.addr, got.Err)
	}
	if want.err == nil && got.Err != nil {
		t.Errorf("error is %v, want none", got.Err)
	}
	if want.err != nil {
		wantErr(t, got.Err, want.err)
	}
}

func TestPrecedence(t *testing.T) {
	table := newTable(t, from(wan1),
		dialer.Rule{Name: "lists", To: to("192.0.2.1", "*.list.example"), Ports: []dialer.PortRange{{Lo: 25, Hi: 25}, {Lo: 587, Hi: 588}}, Use: from(wan2)},
		dialer.Rule{To: to("2001:db8::/32"), Use: from(wan1)},
		dialer.Rule{To: to("2001:db8::/32"), Use: from(mail)},
		dialer.Rule{Name: "map", Map: map[dialer.Match]dialer.Use{
			key("198.51.100.0/24"):  from(wan1),
			key("198.51.100.64/26"): from(wan2),
			key("www.shop.example"): from(mail),
			key("*.shop.example"):   from(wan2),
			key("*.a.shop.example"): from(wan1),
			key(".both.example"):    from(wan2),
			key("198.51.100.99"):    deny,
		}},
		dialer.Rule{To: to("198.51.100.0/24"), Use: kernel},
		dialer.Rule{Name: "route", To: to("203.0.113.0/24"), Use: kernel},
		dialer.Rule{Name: "no", To: to("203.0.0.0/16")},
	)
	tests := []struct {
		name string
		flow dialer.Flow
		want verdict
	}{
		{"address and port", tcp("192.0.2.1:25"), verdict{"lists", "127.0.0.3", nil}},
		{"end of a port range", tcp("192.0.2.1:588"), verdict{"lists", "127.0.0.3", nil}},
		{"other port", tcp("192.0.2.1:589"), verdict{"default", "127.0.0.2", nil}},
		{"name and port", named("x.list.example", "192.0.2.7:25"), verdict{"lists", "127.0.0.3", nil}},
		{"case and dot", named("X.List.Example.", "192.0.2.7:25"), verdict{"lists", "127.0.0.3", nil}},
		{"the name itself is not below it", named("list.example", "192.0.2.7:25"), verdict{"default", "127.0.0.2", nil}},
		{"first match lacks the family", tcp("[2001:db8::1]:80"), verdict{"rule 2", "", dialer.ErrNoSource}},
		{"default lacks the family", tcp("[2001:db9::1]:80"), verdict{"default", "", dialer.ErrNoSource}},
		{"map, short prefix", tcp("198.51.100.1:80"), verdict{"map", "127.0.0.2", nil}},
		{"map, long prefix", tcp("198.51.100.65:80"), verdict{"map", "127.0.0.3", nil}},
		{"map, exact name", named("www.shop.example", "198.51.100.1:80"), verdict{"map", "127.0.0.4", nil}},
		{"map, longest suffix", named("x.a.shop.example", "198.51.100.65:80"), verdict{"map", "127.0.0.2", nil}},
		{"map, short suffix", named("x.shop.example", "192.0.2.7:80"), verdict{"map", "127.0.0.3", nil}},
		{"map, both", named("both.example", "192.0.2.7:80"), verdict{"map", "127.0.0.3", nil}},
		{"map, address denies", tcp("198.51.100.99:80"), verdict{"map", "", dialer.ErrDenied}},
		{"kernel", tcp("203.0.113.9:80"), verdict{"route", "", nil}},
		{"zero use", tcp("203.0.9.9:80"), verdict{"no", "", dialer.ErrDenied}},
		{"mapped destination", tcp("[::ffff:198.51.100.65]:80"), verdict{"map", "127.0.0.3", nil}},
		{"default", tcp("192.0.2.200:80"), verdict{"default", "127.0.0.2", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.want.check(t, table, tt.flow) })
	}
}

func TestConditions(t *testing.T) {
	table := newTable(t, deny,
		dialer.Rule{Name: "user", User: []string{"crawler", "bot"}, Use: from(wan2)},
		dialer.Rule{Name: "client", Client: prefixes("10.0.8.0/24", "2001:db8:8::/48"), Use: from(wan2)},
		dialer.Rule{Name: "listener", Listener: []string{"office"}, Use: from(wan2)},
		dialer.Rule{Name: "sip", Protocol: "udp", LocalPort: []dialer.PortRange{{Lo: 5060, Hi: 5060}}, SourcePort: 5060, Use: from(wan2)},
		dialer.Rule{Name: "udp", Protocol: "udp", Use: from(wan1)},
		dialer.Rule{Name: "tcp to 53", Protocol: "tcp", Ports: []dialer.PortRange{{Lo: 53, Hi: 53}}, Use: from(wan1)},
	)
	with := func(change func(*dialer.Flow)) dialer.Flow {
		f := tcp("192.0.2.1:80")
		change(&f)
		return f
	}
	tests := []struct {
		name string
		flow dialer.Flow
		want verdict
	}{
		{"nothing known", tcp("192.0.2.1:80"), verdict{"default", "", dialer.ErrDenied}},
		{"user", with(func(f *dialer.Flow) { f.User = "bot" }), verdict{"user", "127.0.0.3", nil}},
		{"other user", with(func(f *dialer.Flow) { f.User = "Bot" }), verdict{"default", "", dialer.ErrDenied}},
		{"client", with(func(f *dialer.Flow) { f.Client = netip.MustParseAddrPort("10.0.8.9:1") }), verdict{"client", "127.0.0.3", nil}},
		{"mapped client", with(func(f *dialer.Flow) { f.Client = netip.MustParseAddrPort("[::ffff:10.0.8.9]:1") }), verdict{"client", "127.0.0.3", nil}},
		{"IPv6 client", with(func(f *dialer.Flow) { f.Client = netip.MustParseAddrPort("[2001:db8:8::1]:1") }), verdict{"client", "127.0.0.3", nil}},
		{"other client", with(func(f *dialer.Flow) { f.Client = netip.MustParseAddrPort("10.0.9.9:1") }), verdict{"default", "", dialer.ErrDenied}},
		{"listener", with(func(f *dialer.Flow) { f.Listener = "office" }), verdict{"listener", "127.0.0.3", nil}},
		{"local port", with(func(f *dialer.Flow) { f.Network, f.LocalPort = "udp", 5060 }), verdict{"sip", "127.0.0.3", nil}},
		{"local port unknown", with(func(f *dialer.Flow) { f.Network = "udp" }), verdict{"udp", "127.0.0.2", nil}},
		{"udp4", with(func(f *dialer.Flow) { f.Network = "udp4" }), verdict{"udp", "127.0.0.2", nil}},
		{"local port of tcp", with(func(f *dialer.Flow) { f.LocalPort = 5060 }), verdict{"default", "", dialer.ErrDenied}},
		{"tcp4", with(func(f *dialer.Flow) { f.Network, f.Dst = "tcp4", netip.MustParseAddrPort("192.0.2.1:53") }), verdict{"tcp to 53", "127.0.0.2", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.want.check(t, table, tt.flow) })
	}
}

func TestDecision(t *testing.T) {
	ports := &dialer.Source{Name: "batch", Addrs: addrs("192.0.2.9"), Ports: dialer.PortRange{Lo: 40000, Hi: 40999}}
	table := newTable(t, kernel,
		dialer.Rule{Name: "fixed", Protocol: "udp", SourcePort: 5060, Use: from(wan1)},
		dialer.Rule{To: to("198.51.100.0/24", "198.51.100.64/26"), Use: from(ports)},
	)
	f := tcp("203.0.113.1:5060")
	f.Network = "udp"
	if d := table.Lookup(f); d.Port != 5060 || d.Index != 0 || d.Source != wan1 || d.Prefix.IsValid() {
		t.Errorf("fixed port: %+v", d)
	}
	if d := table.Lookup(tcp("198.51.100.65:1")); d.Port != 0 || d.Index != 1 || d.Ports != ports.Ports || d.Use != from(ports) ||
		d.Prefix != netip.MustParsePrefix("198.51.100.64/26") {
		t.Errorf("ports: %+v", d)
	}
	if d := table.Lookup(tcp("203.0.113.1:1")); d.Index != -1 || d.Use != kernel || d.Source != nil || d.Err != nil {
		t.Errorf("kernel: %+v", d)
	}
}

func TestZeroTable(t *testing.T) {
	var table dialer.Table
	for _, f := range []dialer.Flow{tcp("192.0.2.1:80"), tcp("[2001:db8::1]:80"), tcp("www.example:80"), {}} {
		verdict{"default", "", dialer.ErrDenied}.check(t, &table, f)
	}
	for range table.Walk(tcp("192.0.2.1:80")) {
		t.Error("the zero table has a rule")
	}
}

func TestRulesAreCopied(t *testing.T) {
	rules := []dialer.Rule{
		{To: to("192.0.2.0/24"), Client: prefixes("10.0.0.0/8"), User: []string{"u"}, Listener: []string{"l"}, Use: from(wan1)},
	}
	table := newTable(t, deny, rules...)
	rules[0].To[0], rules[0].Client[0] = key("198.51.100.0/24"), netip.MustParsePrefix("11.0.0.0/8")
	rules[0].User[0], rules[0].Listener[0] = "x", "x"
	f := tcp("192.0.2.1:80")
	f.Client, f.User, f.Listener = netip.MustParseAddrPort("10.1.1.1:1"), "u", "l"
	verdict{"rule 1", "127.0.0.2", nil}.check(t, table, f)
	for _, r := range table.Walk(f) {
		if !r.Matched {
			t.Errorf("Walk: %s", r.Text)
		}
	}
}

func TestNewTableErrors(t *testing.T) {
	good := dialer.Rule{Use: from(wan1)}
	second := func(r dialer.Rule) []dialer.Rule { return []dialer.Rule{good, r} }
	src := func(s dialer.Source) dialer.Rule { return dialer.Rule{Use: from(&s)} }
	tests := []struct {
		name      string
		rules     []dialer.Rule
		otherwise dialer.Use
		want      []string
	}{
		{"protocol", second(dialer.Rule{Protocol: "sctp", Use: from(wan1)}), deny, []string{"rule 2: ", "sctp"}},
		{"map and use", second(dialer.Rule{Name: "two", Map: map[dialer.Match]dialer.Use{key("192.0.2.1"): deny}, Use: kernel}), deny, []string{"two: ", "both a map and a use"}},
		{"empty map", second(dialer.Rule{Map: map[dialer.Match]dialer.Use{}}), deny, []string{"rule 2: map"}},
		{"ports upside down", second(dialer.Rule{Ports: []dialer.PortRange{{Lo: 9, Hi: 1}}}), deny, []string{"rule 2: port"}},
		{"prefix with host bits", second(dialer.Rule{Name: "office", Client: prefixes("10.0.0.1/8")}), deny, []string{"office: client"}},
		{"empty user", second(dialer.Rule{User: []string{""}}), deny, []string{"rule 2: user"}},
		{"zero match", second(dialer.Rule{To: []dialer.Match{{}}}), deny, []string{"rule 2: to"}},
		{"two uses", second(dialer.Rule{Use: dialer.Use{Source: wan1, Kernel: true}}), deny, []string{"rule 2: "}},
		{"use in a map", second(dialer.Rule{Map: map[dialer.Match]dialer.Use{key("*.a.example"): of(&dialer.Pool{Name: "p"})}}), deny, []string{`rule 2: map key "*.a.example": pool "p"`}},
		{"default", []dialer.Rule{good}, of(&dialer.Pool{Name: "p"}), []string{`default: pool "p"`}},
		{"pool of nothing", second(dialer.Rule{Use: of(&dialer.Pool{Name: "p", Of: []dialer.Member{{}}})}), deny, []string{`rule 2: pool "p"`}},
		{"negative weight", second(dialer.Rule{Use: of(&dialer.Pool{Of: []dialer.Member{{wan1, -1}}})}), deny, []string{"rule 2: ", "weight"}},
		{"unknown pick", second(dialer.Rule{Use: of(&dialer.Pool{Of: []dialer.Member{{wan1, 0}}, Pick: 77})}), deny, []string{"rule 2: ", "77"}},
		{"source without address", second(src(dialer.Source{Name: "s"})), deny, []string{`rule 2: source "s"`}},
		{"two of a family", second(src(dialer.Source{Addrs: addrs("192.0.2.1", "192.0.2.2")})), deny, []string{"rule 2: ", "family"}},
		{"two kinds", second(src(dialer.Source{Addrs: addrs("192.0.2.1"), Prefix: netip.MustParsePrefix("192.0.2.0/24")})), deny, []string{"rule 2: "}},
		{"mapped source", second(src(dialer.Source{Addrs: addrs("::ffff:192.0.2.1")})), deny, []string{"rule 2: ", "mapped"}},
		{"range of one end", second(src(dialer.Source{First: addrs("192.0.2.1")[0]})), deny, []string{"rule 2: ", "range"}},
		{"range upside down", second(src(dialer.Source{First: addrs("192.0.2.2")[0], Last: addrs("192.0.2.1")[0]})), deny, []string{"rule 2: ", "range"}},
		{"range of two families", second(src(dialer.Source{First: addrs("192.0.2.2")[0], Last: addrs("2001:db8::")[0]})), deny, []string{"rule 2: ", "range"}},
		{"source ports upside down", second(src(dialer.Source{Addrs: addrs("192.0.2.1"), Ports: dialer.PortRange{Lo: 2, Hi: 1}})), deny, []string{"rule 2: ", "ports"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := dialer.NewTable(tt.rules, tt.otherwise)
			if err == nil || table != nil {
				t.Fatalf("table %v, error %v", table, err)
			}
			wantText(t, err, tt.want...)
		})
	}
}

func TestWords(t *testing.T) {
	for _, p := range []dialer.Pick{dialer.FirstUp, dialer.RoundRobin, dialer.Random, dialer.Sticky, dialer.LeastConnections} {
		if got, err := dialer.ParsePick(p.String()); got != p || err != nil {
			t.Errorf("ParsePick(%q) = %v, %v", p, got, err)
		}
	}
	for k := dialer.ByClient; k <= dialer.ByListener; k++ {
		if got, err := dialer.ParseKey(k.String()); got != k || err != nil {
			t.Errorf("ParseKey(%q) = %v, %v", k, got, err)
		}
	}
	if _, err := dialer.ParsePick("best"); err == nil {
		t.Error("ParsePick takes any word")
	}
	if p := dialer.Pick(9).String(); p != "unknown(9)" {
		t.Errorf("unknown pick is called %q", p)
	}
}
