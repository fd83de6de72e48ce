package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/dialer"
)

// listen returns the only listener of a file.
func listen(t *testing.T, text string) Listener {
	t.Helper()
	c, err := Parse("c.toml", []byte("default = \"kernel\"\n[[listen]]\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return c.Listen[0]
}

// TestAssociate: what the keys of UDP ASSOCIATE and BIND are, and when they are not
// there.
func TestAssociate(t *testing.T) {
	want := Listener{Name: "x", Kind: SOCKS, Addrs: []netip.AddrPort{addrPort("127.0.0.1:1080")}, Bind: true}
	if diff := cmp.Diff(want, listen(t, "socks = \"127.0.0.1:1080\"\nname = \"x\"\n"), options); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want.RelayPorts = dialer.PortRange{Lo: 40000, Hi: 40999}
	want.Advertise = addr("203.0.113.7")
	want.Filter = FilterAddressAndPort
	want.Bind = false
	want.DSCP = 34
	got := listen(t, `socks = "127.0.0.1:1080"
name = "x"
relay_ports = "40000-40999"
advertise = "::ffff:203.0.113.7"
filter = "address-and-port"
bind = false
dscp = "af41"
`)
	if diff := cmp.Diff(want, got, options); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if listen(t, `http = "127.0.0.1:1080"`).Bind {
		t.Error("BIND is allowed where nobody speaks SOCKS")
	}
}

func TestFilter(t *testing.T) {
	for f := FilterAddress; f <= FilterNone; f++ {
		l := listen(t, `mixed = "127.0.0.1:1080"`+"\nfilter = \""+f.String()+"\"\n")
		if l.Filter != f {
			t.Errorf("got %v, want %v", l.Filter, f)
		}
	}
	if got := Filter(9).String(); got != "unknown(9)" {
		t.Errorf("got %q", got)
	}
}

// TestTrunk: many phones on one port.
func TestTrunk(t *testing.T) {
	got := listen(t, `udp = ["127.0.0.1:5060", "[::1]:5060"]
to = "203.0.113.5:5060"
use = "198.51.100.30"
source_port = 5060
share = "sip"
inbound = "[::ffff:127.0.0.1]:5080"
inbound_from = ["203.0.113.0/24", "192.0.2.9"]
dscp = "cs3"
`)
	want := Listener{
		Name: "udp 127.0.0.1:5060", Kind: UDP, Addrs: []netip.AddrPort{addrPort("127.0.0.1:5060"), addrPort("[::1]:5060")}, DSCP: 24,
		To: Target{Addr: addr("203.0.113.5"), Port: 5060}, Use: &dialer.Use{Source: named("198.51.100.30", "198.51.100.30")}, SourcePort: 5060,
		Share: "sip", Inbound: addrPort("127.0.0.1:5080"), InboundFrom: []netip.Prefix{prefix("203.0.113.0/24"), prefix("192.0.2.9/32")},
	}
	if diff := cmp.Diff(want, got, options); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestPortRange: a range of ports that are kept on both sides.
func TestPortRange(t *testing.T) {
	l := listen(t, `udp = ["127.0.0.1:10000-10002", "[::1]:10000-10002"]
to = "media.example"
use = "198.51.100.30"
source_port = "same"
`)
	if want := "udp 127.0.0.1:10000-10002"; l.Name != want {
		t.Errorf("name: got %q, want %q", l.Name, want)
	}
	var got []string
	for a := range l.Endpoints() {
		got = append(got, a.String())
	}
	want := []string{
		"127.0.0.1:10000", "127.0.0.1:10001", "127.0.0.1:10002",
		"[::1]:10000", "[::1]:10001", "[::1]:10002",
	}
	if !slices.Equal(got, want) {
		t.Errorf("endpoints: got %q, want %q", got, want)
	}
	to, from := l.At(10001)
	if to != (Target{Name: "media.example", Port: 10001}) || from != 10001 {
		t.Errorf("at 10001: to %v from %d", to, from)
	}
}

// TestAt: where a target has a port, or the sender a fixed one, the port asked does
// not count.
func TestAt(t *testing.T) {
	l := Listener{Kind: UDP, To: Target{Name: "a.example", Port: 53}, SourcePort: 5353}
	if to, from := l.At(10001); to != l.To || from != 5353 {
		t.Errorf("to %v from %d", to, from)
	}
	l.SourcePort = 0
	if _, from := l.At(10001); from != 0 {
		t.Errorf("from %d, want a free port", from)
	}
}

// TestEndpointsUpToTheLastPort: port 65535 is the last of a loop that ends.
func TestEndpointsUpToTheLastPort(t *testing.T) {
	l := listen(t, "udp = \"127.0.0.1:65534-65535\"\nto = \"a.example:53\"\n")
	if n := len(slices.Collect(l.Endpoints())); n != 2 {
		t.Errorf("got %d endpoints, want 2", n)
	}
	l = listen(t, "udp = \"127.0.0.1:40000-49999\"\nto = \"a.example:53\"\n")
	if n := len(slices.Collect(l.Endpoints())); n != maxEndpoints {
		t.Errorf("got %d endpoints, want %d", n, maxEndpoints)
	}
}

// TestTargetWithoutPort: the spellings of a host alone.
func TestTargetWithoutPort(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.5":   "203.0.113.5",
		"2001:db8::5":   "2001:db8::5",
		"[2001:db8::5]": "2001:db8::5",
		"Media.Example": "media.example",
		"[a.example]":   "",
		"[203.0.113.5]": "",
		"[[::1]]":       "",
		"a.example:":    "",
	} {
		text := "default = \"kernel\"\n[[listen]]\nudp = \"127.0.0.1:5060\"\nto = \"" + in + "\"\n"
		c, err := Parse("c.toml", []byte(text))
		switch {
		case err != nil && want != "":
			t.Errorf("%s: %v", in, err)
		case err == nil && want == "":
			t.Errorf("%s: got %v, want an error", in, c.Listen[0].To)
		case err == nil && c.Listen[0].To.String() != want:
			t.Errorf("%s: got %v, want %s", in, c.Listen[0].To, want)
		}
	}
}

// TestDSCP compares code points with those of the RFCs.
func TestDSCP(t *testing.T) {
	for in, want := range map[string]uint8{
		`"cs0"`: 0, `"cs1"`: 8, `"cs3"`: 24, `"cs7"`: 56,
		`"af11"`: 10, `"af13"`: 14, `"af21"`: 18, `"af31"`: 26, `"af41"`: 34, `"af43"`: 38,
		`"ef"`: 46, `"va"`: 44, `"le"`: 1, `0`: 0, `46`: 46, `63`: 63, `0x2e`: 46,
	} {
		if got := listen(t, "udp = \"127.0.0.1:5060\"\nto = \"a.example\"\ndscp = "+in).DSCP; got != want {
			t.Errorf("%s: got %d, want %d", in, got, want)
		}
	}
	seen := make(map[uint8]string)
	for _, c := range codePoints() {
		if other := seen[c.value]; other != "" {
			t.Errorf("%s and %s are both %d", other, c.name, c.value)
		}
		seen[c.value] = c.name
	}
}

// TestClashes: forwards that cannot tell their answers apart are warned of.
func TestClashes(t *testing.T) {
	const use = "use = \"198.51.100.30\"\n"
	one := func(at, rest string) string { return "[[listen]]\nudp = \"127.0.0.1:" + at + "\"\n" + use + rest }
	for _, c := range []struct {
		name, text, want string
	}{
		{"shared by SIP", one("5060", "to = \"a.example:5060\"\nsource_port = 5060\nshare = \"sip\"\n") + one("5062", "to = \"a.example:5060\"\nsource_port = 5060\nshare = \"sip\"\n"), ""},
		{"shared by one of them", one("5060", "to = \"a.example:5060\"\nsource_port = 5060\nshare = \"sip\"\n") + one("5062", "to = \"a.example:5060\"\nsource_port = 5060\n"), "port 5060 of"},
		{"ranges apart", one("10000-10009", "to = \"a.example\"\nsource_port = \"same\"\n") + one("10010-10019", "to = \"a.example\"\nsource_port = \"same\"\n"), ""},
		{"a range and a port in it", one("10000-10009", "to = \"a.example\"\nsource_port = \"same\"\n") + one("20000", "to = \"a.example:10005\"\nsource_port = 10005\n"), "port 10005 of"},
		{"one sender, ports kept", one("10000", "to = \"a.example\"\nsource_port = 5060\n") + one("10001", "to = \"a.example\"\nsource_port = 5060\n"), ""},
		{"a range from one port to one port", one("10000-10009", "to = \"a.example:53\"\nsource_port = 5353\n"), "only one of the ports 10000-10009"},
		{"a range from one port, ports kept", one("10000-10009", "to = \"a.example\"\nsource_port = 5353\n"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Parse("c.toml", []byte("default = \"kernel\"\n"+c.text))
			if err != nil {
				t.Fatal(err)
			}
			got := cfg.Warnings()
			if len(got) > 1 || (len(got) == 1) != (c.want != "") || len(got) == 1 && !strings.HasPrefix(got[0].Message, c.want) {
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
}
