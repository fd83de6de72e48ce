package config

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/srcproxy/srcproxy/dialer"
)

var options = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}, dialer.Match{}),
	cmpopts.IgnoreUnexported(Config{}),
}

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func match(t *testing.T, s string) dialer.Match {
	t.Helper()
	m, err := dialer.ParseMatch(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func named(name string, addrs ...string) *dialer.Source {
	s := &dialer.Source{Name: name}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, addr(a))
	}
	return s
}

// base is the Config of a file that holds nothing but default = "kernel".
func base() *Config {
	c := Default()
	c.Path, c.Listen = "testdata/config.toml", nil
	return c
}

// TestGoodFiles compares what is read with what is meant.
func TestGoodFiles(t *testing.T) {
	for _, f := range []struct {
		name, text string
		want       func(t *testing.T, c *Config)
	}{
		{"shortest", "default = \"198.51.100.10\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", func(_ *testing.T, c *Config) {
			c.Default = dialer.Use{Source: named("198.51.100.10", "198.51.100.10")}
			c.Listen = []Listener{{Name: "mixed 127.0.0.1:1080", Kind: Mixed, Addrs: []netip.AddrPort{addrPort("127.0.0.1:1080")}, Bind: true}}
		}},
		{"nothing but a default", "default = \"deny\"\n", func(_ *testing.T, c *Config) { c.Default = dialer.Use{} }},
		{"CR LF", "default = \"kernel\"\r\nprefer = \"ipv4\"\r\n", func(_ *testing.T, c *Config) { c.PreferIPv4 = true }},
		{"sources", `default = "kernel"
[sources]
one    = "198.51.100.10"
both   = ["2001:db8::25", "198.51.100.25"]
mapped = "::ffff:198.51.100.26"
host   = "198.51.100.27/32"
net    = "2001:db8:64::/64"
net4   = { ip = "198.51.100.128/25" }
range  = { ip = "198.51.100.64 - 198.51.100.95", ports = "40000-44999" }
single = { ip = ["198.51.100.11", "2001:db8::11"], ports = 40000, freebind = true }
[sources.long]
ip = "198.51.100.12-198.51.100.12"
`, func(_ *testing.T, c *Config) {
			c.Sources = []*dialer.Source{
				named("one", "198.51.100.10"),
				named("both", "2001:db8::25", "198.51.100.25"),
				named("mapped", "198.51.100.26"),
				named("host", "198.51.100.27"),
				{Name: "net", Prefix: prefix("2001:db8:64::/64")},
				{Name: "net4", Prefix: prefix("198.51.100.128/25")},
				{Name: "range", First: addr("198.51.100.64"), Last: addr("198.51.100.95"), Ports: dialer.PortRange{Lo: 40000, Hi: 44999}},
				{
					Name: "single", Addrs: []netip.Addr{addr("198.51.100.11"), addr("2001:db8::11")},
					Ports: dialer.PortRange{Lo: 40000, Hi: 40000}, FreeBind: true,
				},
				named("long", "198.51.100.12"),
			}
		}},
		{"pools, before the sources they name", `default = "web"
[pools]
safe = { of = ["a", "b"] }
one  = { of = "a" }
[pools.web]
of = ["a", "b", "198.51.100.3"]
pick = "sticky"
weights = [3, 2, 1]
by = ["session", "host"]
for = "30m"
retry = true
[sources]
a = "198.51.100.1"
b = "198.51.100.2"
`, func(_ *testing.T, c *Config) {
			a, b, literal := named("a", "198.51.100.1"), named("b", "198.51.100.2"), named("198.51.100.3", "198.51.100.3")
			c.Sources = []*dialer.Source{a, b}
			web := &dialer.Pool{
				Name: "web", Of: []dialer.Member{{Source: a, Weight: 3}, {Source: b, Weight: 2}, {Source: literal, Weight: 1}},
				Pick: dialer.Sticky, By: []dialer.Key{dialer.BySession, dialer.ByHost}, For: 30 * time.Minute, Retry: true,
			}
			c.Pools = []*dialer.Pool{
				{Name: "safe", Of: []dialer.Member{{Source: a}, {Source: b}}},
				{Name: "one", Of: []dialer.Member{{Source: a}}},
				web,
			}
			c.Default = dialer.Use{Pool: web}
		}},
		{"rules", `default = "kernel"
[[rules]]
name = "all of it"
to = ["*.mail.example", ".Both.Example", "203.0.113.25", "::ffff:203.0.113.0/120", "file:lists/good.txt"]
port = [25, "465", "587-588"]
protocol = "tcp"
client = ["10.0.8.0/24", "10.0.9.1"]
user = ["crawler", "robot"]
listener = "office"
local_port = "5060"
use = "198.51.100.10"
source_port = 4000
[[rules]]
to = "2001:db8::/32"
port = 25
use = "deny"
[[rules]]
[rules.map]
"10.0.0.0/8" = "198.51.100.10"
"c.example" = "kernel"
"file:lists/good.txt" = "deny"
`, func(t *testing.T, c *Config) {
			literal := dialer.Use{Source: named("198.51.100.10", "198.51.100.10")}
			c.Rules = []dialer.Rule{
				{
					Name: "all of it",
					To: []dialer.Match{
						match(t, "*.mail.example"), match(t, ".both.example"), match(t, "203.0.113.25"), match(t, "203.0.113.0/24"),
						match(t, "a.example"), match(t, "*.b.example"), match(t, "203.0.113.0/24"),
					},
					Ports:    []dialer.PortRange{{Lo: 25, Hi: 25}, {Lo: 465, Hi: 465}, {Lo: 587, Hi: 588}},
					Protocol: "tcp",
					Client:   []netip.Prefix{prefix("10.0.8.0/24"), prefix("10.0.9.1/32")},
					User:     []string{"crawler", "robot"}, Listener: []string{"office"},
					LocalPort: []dialer.PortRange{{Lo: 5060, Hi: 5060}}, Use: literal, SourcePort: 4000,
				},
				{To: []dialer.Match{match(t, "2001:db8::/32")}, Ports: []dialer.PortRange{{Lo: 25, Hi: 25}}},
				{Map: map[dialer.Match]dialer.Use{
					match(t, "10.0.0.0/8"): literal, match(t, "c.example"): {Kernel: true},
					match(t, "a.example"): {}, match(t, "*.b.example"): {}, match(t, "203.0.113.0/24"): {},
				}},
			}
		}},
		{"listeners", `default = "kernel"
[sources]
voip = "198.51.100.30"
[[listen]]
name = "office"
mixed = [":1080", "198.51.100.10:1081"]
allow = ["192.0.2.0/24", "192.0.3.1"]
users = "users"
limit = 5
idle = "1h"
[[listen]]
socks = "0.0.0.0:2080"
open = true
[[listen]]
http = "[::1]:3128"
[[listen]]
tcp = "127.0.0.1:2525"
to = "Smtp.Mail.Example.:25"
use = "kernel"
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
[[listen]]
udp = ["127.0.0.1:5061", "127.0.0.1:0", "127.0.0.1:0"]
to = "[2001:db8::5]:5061"
`, func(_ *testing.T, c *Config) {
			voip := named("voip", "198.51.100.30")
			c.Sources = []*dialer.Source{voip}
			c.Listen = []Listener{
				{
					Name: "office", Kind: Mixed, Addrs: []netip.AddrPort{addrPort("[::]:1080"), addrPort("198.51.100.10:1081")},
					Allow: []netip.Prefix{prefix("192.0.2.0/24"), prefix("192.0.3.1/32")}, Limit: 5, Idle: time.Hour,
					UsersFile: "testdata/users", Users: []byte("crawler:$2y$10$abcdefghijklmnopqrstuv\n"), Bind: true,
				},
				{Name: "socks 0.0.0.0:2080", Kind: SOCKS, Addrs: []netip.AddrPort{addrPort("0.0.0.0:2080")}, Open: true, Bind: true},
				{Name: "http [::1]:3128", Kind: HTTP, Addrs: []netip.AddrPort{addrPort("[::1]:3128")}},
				{
					Name: "tcp 127.0.0.1:2525", Kind: TCP, Addrs: []netip.AddrPort{addrPort("127.0.0.1:2525")},
					To: Target{Name: "smtp.mail.example", Port: 25}, Use: &dialer.Use{Kernel: true},
				},
				{
					Name: "udp 127.0.0.1:5060", Kind: UDP, Addrs: []netip.AddrPort{addrPort("127.0.0.1:5060")},
					To: Target{Addr: addr("203.0.113.5"), Port: 5060}, Use: &dialer.Use{Source: voip}, SourcePort: 5060,
				},
				{
					Name: "udp 127.0.0.1:5061", Kind: UDP,
					Addrs: []netip.AddrPort{addrPort("127.0.0.1:5061"), addrPort("127.0.0.1:0"), addrPort("127.0.0.1:0")},
					To:    Target{Addr: addr("2001:db8::5"), Port: 5061},
				},
			}
		}},
		{"dns", `default = "kernel"
[dns]
servers = ["203.0.113.53", "203.0.113.54:5353", "2001:db8::53", "[::ffff:203.0.113.55]:53"]
timeout = "500ms"
cache = 0
`, func(_ *testing.T, c *Config) {
			c.DNS = DNS{
				Servers: []netip.AddrPort{
					addrPort("203.0.113.53:53"), addrPort("203.0.113.54:5353"), addrPort("[2001:db8::53]:53"), addrPort("203.0.113.55:53"),
				},
				Timeout: 500 * time.Millisecond,
			}
		}},
		{"servers of the system", `default = "kernel"
dns.servers = "system"
`, func(*testing.T, *Config) {}},
		{"limits, timeouts, log", `default = "kernel"
limits = { connections = 5_000, udp_flows = 0x10 }
log.level = "warn"
log.format = "json"
log.flows = false
log.destinations = false
[timeouts]
handshake = "5s"
dial = "1m30s"
idle = "2h"
half_closed = "1m"
udp = "90s"
drain = "0s"
user = "0s"
keepalive = "0s"
`, func(_ *testing.T, c *Config) {
			c.Limits = Limits{Connections: 5000, UDPFlows: 16}
			c.Log = Log{Level: slog.LevelWarn, Format: "json"}
			c.Timeouts = Timeouts{
				Handshake: 5 * time.Second, Dial: 90 * time.Second, Idle: 2 * time.Hour,
				HalfClosed: time.Minute, UDP: 90 * time.Second,
			}
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			got, err := Parse("testdata/config.toml", []byte(f.text))
			if err != nil {
				t.Fatal(err)
			}
			want := base()
			f.want(t, want)
			if diff := cmp.Diff(want, got, options); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if _, err := got.Table(); err != nil {
				t.Errorf("Table: %v", err)
			}
		})
	}
}

// TestOneSource: what has one name or address is one value, so that tables and pools
// see the same source.
func TestOneSource(t *testing.T) {
	c, err := Parse("c.toml", []byte(`default = "198.51.100.1"
[sources]
a = "198.51.100.2"
[pools]
p = { of = ["a", "198.51.100.1"] }
[[rules]]
use = "a"
[[listen]]
tcp = "127.0.0.1:25"
to = "a.example:25"
use = "::ffff:198.51.100.1"
`))
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Sources[0]; c.Rules[0].Use.Source != a || c.Pools[0].Of[0].Source != a {
		t.Error("the named source is several values")
	}
	if l := c.Default.Source; c.Pools[0].Of[1].Source != l || c.Listen[0].Use.Source != l {
		t.Error("the address is several values")
	}
}

func TestPosition(t *testing.T) {
	c, err := Parse("dir/c.toml", []byte(`default = "web"
[sources]
wan = "198.51.100.2"
[pools]
web = { of = ["wan"] }

[[rules]]
name = "first"
to = "a.example"
use = "wan"
[[rules]]
use = "wan"
[[listen]]
mixed = "127.0.0.1:1080"
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct{ kind, name, want string }{
		{"default", "", "dir/c.toml:1"},
		{"source", "wan", "dir/c.toml:3"},
		{"pool", "web", "dir/c.toml:5"},
		{"rule", "first", "dir/c.toml:7"},
		{"rule", "rule 2", "dir/c.toml:11"},
		{"listener", "mixed 127.0.0.1:1080", "dir/c.toml:13"},
		{"rule", "rule 1", ""},
		{"source", "198.51.100.2", ""},
	} {
		if got := c.Position(p.kind, p.name); got != p.want {
			t.Errorf("Position(%q, %q): got %q, want %q", p.kind, p.name, got, p.want)
		}
	}
	if got := Default().Position("listener", "mixed 127.0.0.1:1080"); got != "" {
		t.Errorf("the built-in configuration stands at %q", got)
	}
}

func TestDefault(t *testing.T) {
	c := Default()
	if _, err := c.Table(); err != nil {
		t.Fatal(err)
	}
	if got := c.Warnings(); len(got) > 0 {
		t.Errorf("got warnings %v", got)
	}
	if len(c.Listen) != 1 || c.Listen[0].Name != "mixed 127.0.0.1:1080" || !c.Default.Kernel {
		t.Errorf("got %+v, default %v", c.Listen, c.Default)
	}
}

func TestTargetString(t *testing.T) {
	for _, x := range []struct {
		target Target
		want   string
	}{
		{Target{Name: "a.example", Port: 25}, "a.example:25"},
		{Target{Addr: addr("203.0.113.5"), Port: 5060}, "203.0.113.5:5060"},
		{Target{Addr: addr("2001:db8::5"), Port: 5060}, "[2001:db8::5]:5060"},
		{Target{Name: "a.example"}, "a.example"},
		{Target{Addr: addr("2001:db8::5")}, "2001:db8::5"},
	} {
		if got := x.target.String(); got != x.want {
			t.Errorf("got %q, want %q", got, x.want)
		}
	}
}
