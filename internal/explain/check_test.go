package explain_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

// server is a host with one link that has addresses of both families.
func server() *host.Snapshot {
	addr := func(s, link string, f host.Flags) host.Address {
		p := netip.MustParsePrefix(s)
		return host.Address{Addr: p.Addr(), Prefix: p.Masked(), Link: link, Flags: f}
	}
	return host.NewSnapshot(
		[]host.Link{{Index: 1, Name: "lo", Up: true, Loopback: true}, {Index: 2, Name: "eth0", Up: true, Running: true}},
		[]host.Address{
			addr("127.0.0.1/8", "lo", host.Permanent),
			addr("198.51.100.10/24", "eth0", host.Permanent),
			addr("198.51.100.64/24", "eth0", host.Permanent|host.Secondary),
			addr("2001:db8::10/64", "eth0", host.Permanent),
			addr("2001:db8::11/64", "eth0", host.Tentative),
			addr("2001:db8::12/64", "eth0", host.Tentative|host.DADFailed),
		},
		[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8:64::/64")},
	)
}

func facts() host.Facts {
	return host.Facts{
		Files: 1024, PortLo: 32768, PortHi: 60999, Unprivileged: 1024,
		Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
	}
}

const fine = `default = "wan"
[sources]
wan   = ["198.51.100.10", "2001:db8::10"]
crawl = "2001:db8:64::/64"
batch = { ip = "198.51.100.64", ports = "40000-44999" }
[[rules]]
to  = "203.0.113.0/24"
use = "batch"
[[rules]]
to  = "2001:db8:f::/48"
use = "crawl"
[[listen]]
mixed = "127.0.0.1:1080"
`

const steered = `default = "wan"
[sources]
wan = { ip = ["198.51.100.10", "2001:db8::10"], device = "wwan0", mark = 7, limit = 449 }
[[rules]]
to  = "203.0.113.0/24"
use = "same"
[[listen]]
mixed = "198.51.100.10:1080"
allow = "198.51.100.0/24"
[limits]
per_source = { connections = 448, new_per_second = 100000 }
per_client = { connections = 500 }
`

const noQueries = `default = "kernel"
[[rules]]
name = "documentation"
to   = "192.0.2.0/24"
use  = "deny"
[[listen]]
mixed = "127.0.0.1:1080"
`

const troubled = `default = "wan"
[sources]
wan     = ["198.51.100.10", "2001:db8::99"]
slow    = "2001:db8::11"
twin    = "2001:db8::12"
crawl   = "2001:db8:65::/64"
lent    = "203.0.113.0/28"
batch   = { ip = "198.51.100.64-198.51.100.95", ports = "20000-44999" }
six     = "2001:db8::20-2001:db8::2f"
foreign = { ip = "192.0.2.200", freebind = true }
[pools]
all = { of = ["slow", "twin", "crawl", "lent", "batch", "six", "foreign"], pick = "random" }
[[rules]]
name = "everything"
to   = ["203.0.113.0/24", "2001:db8:f::/48"]
use  = "all"
[[rules]]
protocol    = "udp"
to          = "198.18.0.0/15"
use         = "192.0.2.7"
source_port = 123
[[listen]]
name  = "web"
mixed = ["198.51.100.20:80", "127.0.0.1:81"]
allow = "127.0.0.0/8"
[limits]
connections = 5000
`

func check(t *testing.T, text string, f host.Facts) *explain.Report {
	t.Helper()
	cfg, err := config.Parse("config.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return explain.Check(cfg, server(), f)
}

func TestCheck(t *testing.T) {
	stub, rights := facts(), facts()
	stub.Nameservers = []netip.Addr{netip.MustParseAddr("127.0.0.53")}
	rights.BindService, rights.Mark = true, true
	stub.Upstreams = []netip.Addr{netip.MustParseAddr("203.0.113.53"), netip.MustParseAddr("2001:db8::53")}
	mute := facts()
	mute.NoPing = true
	unbound := facts()
	unbound.Nameservers = []netip.Addr{netip.MustParseAddr("::1")}
	for _, tt := range []struct {
		name, text     string
		facts          host.Facts
		failed, strict bool
	}{
		{"check-fine", fine, facts(), false, false},
		{"check-troubled", troubled, facts(), false, true},
		{"check-stub", fine, stub, false, true},
		{"check-own-resolver", fine, unbound, false, true},
		{"check-named-resolver", fine + "[dns]\nservers = [\"127.0.0.1:5353\", \"198.51.100.10\"]\n", stub, false, false},
		{"check-named-denied-resolver", noQueries + "[dns]\nservers = [\"203.0.113.53\", \"192.0.2.54:5353\"]\n", stub, false, true},
		{"check-ping", "default = \"wan\"\n[sources]\nwan = { ip = [\"198.51.100.10\", \"2001:db8::10\"], probe = { icmp = \"203.0.113.1\" } }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", mute, true, true},
		{"check-steered", steered, facts(), false, true},
		{"check-marked", "default = \"wan\"\n[sources]\nwan = { ip = [\"198.51.100.10\", \"2001:db8::10\"], device = \"eth0\", mark = 7 }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", rights, false, false},
		{"check-no-names", "default = \"deny\"\n[[listen]]\ntcp = \"127.0.0.1:2525\"\nto = \"203.0.113.25:25\"\n", facts(), false, false},
		{"check-refused-resolver", "default = \"deny\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", facts(), false, true},
		{"check-denied-resolver", noQueries, facts(), false, true},
		{"check-rights", "default = \"kernel\"\n[[listen]]\nhttp = \"127.0.0.1:80\"\n", rights, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := check(t, tt.text, tt.facts)
			golden(t, tt.name+".txt", r.Text(explain.Style{}))
			if got := r.Failed(false); got != tt.failed {
				t.Errorf("failed: got %v, want %v", got, tt.failed)
			}
			if got := r.Failed(true); got != tt.strict {
				t.Errorf("failed when strict: got %v, want %v", got, tt.strict)
			}
		})
	}
}

func TestCheckInterface(t *testing.T) {
	var got []string
	for _, f := range check(t, `default = "up"
[sources]
up    = { interface = "eth0" }
empty = { interface = "lo" }
none  = { interface = "ppp0" }
[pools]
all = { of = ["up", "empty", "none"] }
[[rules]]
to  = "203.0.113.0/24"
use = "all"
[[listen]]
tcp = "127.0.0.1:2525"
to  = "203.0.113.25:25"
`, facts()).Findings {
		got = append(got, f.Position+": "+f.Text)
	}
	want := []string{
		`config.toml:4: source "empty": lo has no address to send from; flows are refused until it has one`,
		`config.toml:5: source "none": there is no interface ppp0 on this host; flows are refused until it comes`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCuresAreCommands lets a shell parse each cure.
func TestCuresAreCommands(t *testing.T) {
	stub := facts()
	stub.Nameservers = []netip.Addr{netip.MustParseAddr("127.0.0.53")}
	n := 0
	for _, f := range check(t, troubled, stub).Findings {
		for _, c := range f.Cure {
			n++
			if out, err := exec.Command("sh", "-n", "-c", c).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", c, err, out)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d cures", n)
	}
}

func TestFromError(t *testing.T) {
	_, err := config.Parse("config.toml", []byte("default = \"wam\"\n[sources]\nwan = \"198.51.100.300\"\n[timeouts]\ndail = \"3s\"\n"))
	if err == nil {
		t.Fatal("no error")
	}
	found := explain.FromError(err)
	if len(found) != 3 {
		t.Fatalf("got %d findings, want 3: %+v", len(found), found)
	}
	// The text is the error's own, and so the same as serve prints.
	got := (&explain.Report{Findings: found}).Text(explain.Style{})
	if want := err.Error() + "\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r := (&explain.Report{Findings: found}); !r.Failed(false) {
		t.Error("errors do not fail")
	}
	other := explain.FromError(errors.New("something else"))
	if len(other) != 1 || other[0].Text != "something else" || other[0].Severity != explain.Error {
		t.Errorf("got %+v", other)
	}
}

func TestManyFindings(t *testing.T) {
	r := explain.Report{Summary: "x", Findings: make([]explain.Finding, 60)}
	if text := r.Text(explain.Style{}); !strings.Contains(text, "and 10 more\n") {
		t.Errorf("got %q", text)
	}
}
