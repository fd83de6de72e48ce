package config

import (
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestSame reads it wherever a use may stand.
func TestSame(t *testing.T) {
	c, err := Parse("c.toml", []byte(`default = "same"
[[rules]]
to = "192.0.2.1"
use = "same"
[[rules]]
map = { "192.0.2.2" = "same" }
[[listen]]
tcp = "198.51.100.10:25"
to = "192.0.2.3:25"
use = "same"
`))
	if err != nil {
		t.Fatal(err)
	}
	same := dialer.Use{Same: true}
	if c.Default != same || c.Rules[0].Use != same || *c.Listen[0].Use != same {
		t.Errorf("got %v, %v and %v", c.Default, c.Rules[0].Use, c.Listen[0].Use)
	}
	for _, u := range c.Rules[1].Map {
		if u != same {
			t.Errorf("in the map: got %v", u)
		}
	}
}

// TestWay reads what steers a source's packets, and what bounds its flows.
func TestWay(t *testing.T) {
	c, err := Parse("c.toml", []byte(`default = "lte"
[sources]
lte = { ip = "192.0.2.7", device = "wwan0", mark = 4294967295, limit = 5, new_per_second = 7 }
[limits]
per_source = { new_per_second = 9 }
per_client.connections = 11
[limits.per_user]
connections = 13
new_per_second = 17
`))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Sources[0]; s.Device != "wwan0" || s.Mark != 1<<32-1 {
		t.Errorf("got device %q and mark %d", s.Device, s.Mark)
	}
	if got, want := c.Options("lte").Limit, (Bound{5, 7}); got != want {
		t.Errorf("limit of the source: got %v, want %v", got, want)
	}
	want := Limits{UDPFlows: 100000, PerSource: Bound{0, 9}, PerClient: Bound{11, 0}, PerUser: Bound{13, 17}}
	if c.Limits != want {
		t.Errorf("got %+v, want %+v", c.Limits, want)
	}
}

// TestSameWarnings wants a word where same refuses everybody, and none where it does not.
func TestSameWarnings(t *testing.T) {
	const (
		listen   = "[[listen]]\nname = \"x\"\n"
		loopback = `the default "same" refuses all clients: they connect to loopback, which is no address to leave by`
		forward  = `use = "same" refuses all clients: they connect to loopback, which is no address to leave by`
	)
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"default", "default = \"same\"\n" + listen + "mixed = [\"127.0.0.1:1080\", \"[::1]:1080\"]\n", []string{loopback}},
		{"one that is not loopback", "default = \"same\"\n" + listen + "mixed = [\"127.0.0.1:1080\", \"192.0.2.1:1080\"]\nallow = \"192.0.2.0/24\"\n", nil},
		{"wildcard", "default = \"same\"\n" + listen + "mixed = \":1080\"\nallow = \"192.0.2.0/24\"\n", nil},
		{"rule", "default = \"deny\"\nrules = [{ use = \"same\" }]\n" + listen + "mixed = \"127.0.0.1:1080\"\n", []string{forward}},
		{"rule for a listener", "default = \"deny\"\nrules = [{ listener = \"x\", map = { \"192.0.2.1\" = \"same\" } }]\n" + listen + "mixed = \"127.0.0.1:1080\"\n" +
			"[[listen]]\nmixed = \"192.0.2.1:1080\"\nallow = \"192.0.2.0/24\"\n", []string{forward}},
		{"forward", "default = \"deny\"\n" + listen + "udp = \"127.0.0.1:53\"\nto = \"203.0.113.53:53\"\nuse = \"same\"\n", []string{forward}},
		{
			"forward to the other family", "default = \"deny\"\n" + listen + "udp = \"192.0.2.1:53\"\nto = \"[2001:db8::53]:53\"\nuse = \"same\"\nallow = \"192.0.2.0/24\"\n",
			[]string{`use = "same" refuses all clients: they connect by the other family than that of 2001:db8::53`},
		},
		{"forward on all addresses", "default = \"deny\"\n" + listen + "udp = \":53\"\nto = \"203.0.113.53:53\"\nuse = \"same\"\nallow = \"192.0.2.0/24\"\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("c.toml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range c.Warnings() {
				got = append(got, w.Message)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
