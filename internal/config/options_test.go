package config

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/dialer"
)

func TestOptions(t *testing.T) {
	c, err := Parse("testdata/config.toml", []byte(`default = "198.51.100.9"
[sources]
dsl  = { ip = "198.51.100.10", hold = "5s" }
wan  = { ip = "198.51.100.11" }
idle = "198.51.100.12"
ppp  = { interface = "ppp0", probe = { dns = ["a.example@203.0.113.53", "a.example@[2001:db8::53]:5353"], every = "1m", rise = 5 } }
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
