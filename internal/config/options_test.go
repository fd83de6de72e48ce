package config

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/dialer"
)

func TestOptions(t *testing.T) {
	c, err := Parse("testdata/config.toml", []byte(`default = "198.51.100.9"
[sources]
dsl  = { ip = "198.51.100.10", hold = "5s", gateway = "198.51.100.1" }
wan  = { ip = "198.51.100.11" }
idle = "198.51.100.12"
ppp  = { interface = "ppp0", gateway = ["fe80::1", "192.0.2.1"], probe = { dns = ["a.example@203.0.113.53", "a.example@[2001:db8::53]:5353"], every = "1m", rise = 5 } }
lte  = { ip = "198.51.100.13", probe = "www.example:443" }
[pools]
both = { of = ["wan", "198.51.100.8"] }
[[rules]]
use = "198.51.100.7"
to  = "203.0.113.1"
[[rules]]
[rules.map]
"203.0.113.2" = "198.51.100.6"
"203.0.113.3" = "198.51.100.7"
"203.0.113.4" = "deny"
[[listen]]
tcp = "127.0.0.1:2525"
to  = "203.0.113.5:25"
use = "198.51.100.5"
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Options("dsl").Hold; got != 5*time.Second {
		t.Errorf("hold of dsl: got %v, want 5s", got)
	}
	for _, g := range []struct {
		source string
		is4    bool
		want   netip.Addr
	}{
		{"dsl", true, addr("198.51.100.1")},
		{"dsl", false, netip.Addr{}},
		{"ppp", true, addr("192.0.2.1")},
		{"ppp", false, addr("fe80::1")},
		{"wan", true, netip.Addr{}},
	} {
		if got := c.Options(g.source).Gateway(g.is4); got != g.want {
			t.Errorf("gateway of %s, IPv4 %v: got %v, want %v", g.source, g.is4, got, g.want)
		}
	}
	probes := map[string]*Probe{
		"lte": {Kind: "tcp", Targets: []string{"www.example:443"}, Every: 10 * time.Second, Timeout: 3 * time.Second, Rise: 2, Fall: 3},
		"ppp": {
			Kind: "dns", Targets: []string{"a.example@203.0.113.53", "a.example@[2001:db8::53]:5353"},
			Every: time.Minute, Timeout: 3 * time.Second, Rise: 5, Fall: 3,
		},
	}
	for name, want := range probes {
		if diff := cmp.Diff(want, c.Options(name).Probe); diff != "" {
			t.Errorf("probe of %s: -want +got:\n%s", name, diff)
		}
	}
	if got := c.Options("wan"); got != (SourceOptions{}) || len(c.SourceOptions) != 3 {
		t.Errorf("options of wan: got %v, of %d sources", got, len(c.SourceOptions))
	}
	if got := c.Sources[3]; got.Interface != "ppp0" || !has(dialer.Use{Source: got}, true) || !has(dialer.Use{Source: got}, false) {
		t.Errorf("ppp: got %+v, want a source of ppp0 that may have both families", got)
	}
	var got []string
	for _, s := range c.AllSources() {
		got = append(got, s.Name)
	}
	want := []string{"dsl", "wan", "idle", "ppp", "lte", "198.51.100.5", "198.51.100.6", "198.51.100.7", "198.51.100.8", "198.51.100.9"}
	if !slices.Equal(got, want) {
		t.Errorf("all sources: got %q, want %q", got, want)
	}
}
