package dialer_test

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestSecondJudgement has a flow that a name decided judged once more by its address.
func TestSecondJudgement(t *testing.T) {
	table := newTable(t, from(wan1),
		dialer.Rule{Name: "open", To: to("198.51.100.0/24"), Use: from(wan2)},
		dialer.Rule{Name: "names", To: to("*.example", "198.18.0.0/15"), Use: from(wan2)},
		dialer.Rule{Name: "map", Map: map[dialer.Match]dialer.Use{
			key("*.test"):        from(wan2),
			key("172.16.0.0/12"): deny,
		}},
		dialer.Rule{Name: "inner", To: to("10.1.0.0/16"), Use: from(wan1)},
		dialer.Rule{Name: "private", To: to("10.0.0.0/8", "198.51.0.0/16", "fd00::/8"), Use: deny},
		dialer.Rule{Name: "by port", To: to("192.0.2.0/24"), Ports: []dialer.PortRange{{Lo: 22, Hi: 22}}, Use: deny},
	)
	tests := []struct {
		name string
		flow dialer.Flow
		want verdict
		both string // the rule that the error names besides
	}{
		{"nothing against it", named("a.example", "203.0.113.1:80"), verdict{"names", "127.0.0.3", nil}, ""},
		{"a later prefix denies", named("a.example", "10.0.0.1:80"), verdict{"names", "", dialer.ErrDenied}, `"private"`},
		{"IPv4-mapped", named("a.example", "[::ffff:10.0.0.1]:80"), verdict{"names", "", dialer.ErrDenied}, `"private"`},
		{"IPv6", named("a.example", "[fd00::1]:80"), verdict{"names", "", dialer.ErrDenied}, `"private"`},
		{"IPv6 with a zone", named("a.example", "[fd00::1%lo]:80"), verdict{"names", "", dialer.ErrDenied}, `"private"`},
		{"an earlier prefix allows", named("a.example", "10.1.0.1:80"), verdict{"names", "127.0.0.3", nil}, ""},
		{"the first by address decides", named("a.test", "198.51.100.1:80"), verdict{"open", "127.0.0.3", nil}, ""},
		{"its own prefix allows", named("a.example", "198.18.0.1:80"), verdict{"names", "127.0.0.3", nil}, ""},
		{"the same map denies", named("a.test", "172.16.0.1:80"), verdict{"map", "", dialer.ErrDenied}, `"map"`},
		{"a condition on the port holds", named("a.example", "192.0.2.1:22"), verdict{"names", "", dialer.ErrDenied}, `"by port"`},
		{"a condition on the port does not", named("a.example", "192.0.2.1:80"), verdict{"names", "127.0.0.3", nil}, ""},
		{"no name decided", named("other", "203.0.113.1:80"), verdict{"default", "127.0.0.2", nil}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.check(t, table, tt.flow)
			d := table.Lookup(tt.flow)
			if tt.both != "" {
				wantText(t, &dialer.RefusedError{Flow: tt.flow, Decision: d}, tt.both, `"`+tt.want.rule+`"`)
			}
			if d.Err != nil && (d.Source != nil || d.Use != dialer.Use{}) {
				t.Errorf("a refused flow has %v and %v", d.Source, d.Use)
			}
		})
	}
}

func TestEmbeddedIPv4(t *testing.T) {
	private := dialer.Rule{Name: "private", To: to("10.0.0.0/8", "127.0.0.0/8"), Use: deny}
	guarded := newTable(t, from(mail), private)
	deliberate := newTable(t, from(mail), dialer.Rule{Name: "nat64", To: to("64:ff9b::/96"), Use: from(six)}, private)
	wide := newTable(t, from(mail), dialer.Rule{Name: "six", To: to("::/0"), Use: from(six)}, private)
	after := newTable(t, from(mail), private, dialer.Rule{Name: "nat64", To: to("64:ff9b::/96"), Use: from(six)})
	tests := []struct {
		name  string
		table *dialer.Table
		dst   string
		want  verdict
	}{
		{"NAT64", guarded, "64:ff9b::10.0.0.1", verdict{"default", "", dialer.ErrDenied}},
		{"NAT64 with a zone", guarded, "64:ff9b::10.0.0.1%lo", verdict{"default", "", dialer.ErrDenied}},
		{"local NAT64", guarded, "64:ff9b:1::10.0.0.1", verdict{"default", "", dialer.ErrDenied}},
		{"6to4", guarded, "2002:a00:1::1", verdict{"default", "", dialer.ErrDenied}},
		{"IPv4-compatible", guarded, "::10.0.0.1", verdict{"default", "", dialer.ErrDenied}},
		{"loopback in NAT64", guarded, "64:ff9b::127.0.0.1", verdict{"default", "", dialer.ErrDenied}},
		{"public in NAT64", guarded, "64:ff9b::192.0.2.1", verdict{"default", "::1", nil}},
		{"public in 6to4", guarded, "2002:c000:201::1", verdict{"default", "::1", nil}},
		{"::1 is no IPv4", guarded, "::1", verdict{"default", "::1", nil}},
		{"plain IPv6", guarded, "2001:db8::a00:1", verdict{"default", "::1", nil}},
		{"deliberate", deliberate, "64:ff9b::10.0.0.1", verdict{"nat64", "::1", nil}},
		{"deliberate for another carrier", deliberate, "2002:a00:1::1", verdict{"default", "", dialer.ErrDenied}},
		{"a wide rule is not deliberate", wide, "64:ff9b::10.0.0.1", verdict{"six", "", dialer.ErrDenied}},
		{"denied above the deliberate rule", after, "64:ff9b::10.0.0.1", verdict{"nat64", "", dialer.ErrDenied}},
		{"not denied above it", after, "64:ff9b::192.0.2.1", verdict{"nat64", "::1", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := dialer.Flow{Network: "tcp", Dst: netip.AddrPortFrom(netip.MustParseAddr(tt.dst), 80)}
			tt.want.check(t, tt.table, f)
		})
	}
	if a := dialer.Embedded(netip.MustParseAddr("2002:c000:201::")); a != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("Embedded: %v", a)
	}
	if a := dialer.Embedded(netip.MustParseAddr("::ffff:192.0.2.1")); a.IsValid() {
		t.Errorf("Embedded of a mapped address: %v", a)
	}
}

// TestDeniedBeforeResolution dials names that no address can save: nobody may be asked
// for one.
func TestDeniedBeforeResolution(t *testing.T) {
	late := dialer.Rule{To: to("203.0.113.0/24"), Use: from(wan1)}
	tests := []struct {
		name  string
		table *dialer.Table
		host  string
		rule  string
	}{
		{"zero table", new(dialer.Table), "a.example", "default"},
		{"default of a table of names", newTable(t, deny, dialer.Rule{To: to("b.example"), Use: from(wan1)}), "a.example", "default"},
		{"name above all prefixes", newTable(t, kernel, dialer.Rule{Name: "ads", To: to("*.ads.example")}, late), "x.Ads.Example.", "ads"},
		{"name beside a prefix", newTable(t, kernel, dialer.Rule{Name: "ads", To: to("*.ads.example", "192.0.2.0/24")}, late), "x.ads.example", "ads"},
		{"name beside a prefix in a map", newTable(t, kernel, dialer.Rule{Name: "ads", Map: map[dialer.Match]dialer.Use{
			key("*.ads.example"): deny, key("192.0.2.0/24"): from(wan1),
		}}), "x.ads.example", "ads"},
		{"by user", newTable(t, kernel, dialer.Rule{Name: "guest", Listener: []string{"office"}}, late), "a.example", "guest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := dialer.Dialer{Table: tt.table, Resolver: noResolver{t}}
			f := tcp(tt.host + ":80")
			f.Listener = "office"
			c, dec, err := d.DialFlow(t.Context(), f)
			if err == nil {
				_ = c.Close()
			}
			wantErr(t, err, dialer.ErrDenied)
			wantText(t, err, tt.host)
			if dec.Rule != tt.rule {
				t.Errorf("rule %q, want %q", dec.Rule, tt.rule)
			}
		})
	}
}

// TestUndecidedByName looks up names that an address may still decide otherwise.
func TestUndecidedByName(t *testing.T) {
	table := newTable(t, deny,
		dialer.Rule{To: to("203.0.113.0/24"), Use: from(wan1)},
		dialer.Rule{Name: "ads", To: to("*.ads.example")},
		dialer.Rule{Name: "shop", To: to("*.shop.example"), Use: from(wan2)},
	)
	verdict{"ads", "", dialer.ErrUnresolved}.check(t, table, tcp("x.ads.example:80"))
	verdict{"shop", "", dialer.ErrUnresolved}.check(t, table, tcp("x.shop.example:80"))
	verdict{"default", "", dialer.ErrUnresolved}.check(t, table, tcp("a.example:80"))
	verdict{"rule 1", "127.0.0.2", nil}.check(t, table, named("x.ads.example", "203.0.113.1:80"))
}

// TestUnspecified dials the address that the kernel takes for this host.
func TestUnspecified(t *testing.T) {
	server := serve(t, "127.0.0.2:0")
	local := dialer.Rule{Name: "local", To: to("127.0.0.0/8", "::1"), Use: deny}
	d := &dialer.Dialer{Table: newTable(t, from(mail), dialer.Rule{Name: "www", To: to("www.example"), Use: from(wan1)}, local)}
	for _, host := range []string{"0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "[::%lo]"} {
		wantErr(t, refused(t, d, tcp(host+":"+port(server))), dialer.ErrDenied)
	}
	d.Resolver = answers{"www.example": addrs("0.0.0.0", "::")}
	wantErr(t, refused(t, d, tcp("www.example:"+port(server))), dialer.ErrDenied)
	open := &dialer.Dialer{Table: newTable(t, deny, dialer.Rule{To: to("0.0.0.0"), Use: from(wan1)}, local)}
	if saw, _ := dial(t, open, tcp("0.0.0.0:"+port(server))); saw.Addr() != wan1.Addrs[0] {
		t.Errorf("the server saw %v", saw)
	}
}
