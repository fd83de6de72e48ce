package explain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// hosts is a resolver.
type hosts map[string][]string

func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, s := range h[host] {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// away is the state of sources some of whose addresses are not there.
type away []netip.Addr

func (w away) Down(_ *dialer.Source, a netip.Addr) error {
	if slices.Contains(w, a) {
		return fmt.Errorf("%v is not on this host", a)
	}
	return nil
}

func (w away) LinkAddr(string, bool) netip.Addr { return netip.Addr{} }

func (w away) Flows(*dialer.Source) int { return 0 }

const office = `default = "wan"

[sources]
wan   = "198.51.100.10"
mail  = ["198.51.100.25", "2001:db8::25"]
batch = { ip = "198.51.100.64-198.51.100.95", ports = "40000-44999" }
gone  = "198.51.100.99"

[pools]
web  = { of = ["wan", "mail"], pick = "sticky", by = ["client", "host"] }
hour = { of = ["mail"], pick = "sticky", for = "1h" }
safe = { of = ["gone", "wan"] }
dead = { of = ["gone"] }

[[rules]]
name = "mail keeps its address"
to   = ["*.mail.example", "203.0.113.25"]
port = [25, 465, "587-588"]
use  = "mail"

[[rules]]
user   = "crawler"
client = "10.0.8.0/24"
use    = "batch"

[[rules]]
name = "carriers"
[rules.map]
"203.0.113.0/24"  = "wan"
"203.0.113.64/26" = "safe"
"*.shop.example"  = "web"
"198.18.1.0/24"   = "hour"
"10.0.0.0/8"      = "deny"
"203.0.113.9"     = "dead"

[[rules]]
to  = "192.0.2.0/24"
use = "kernel"

[[rules]]
name        = "phone"
protocol    = "udp"
port        = 5060
source_port = 5060
use         = "wan"

[[listen]]
name  = "office"
mixed = "127.0.0.1:1080"
`

var names = hosts{
	"smtp.mail.example":   {"203.0.113.25", "2001:db8:25::25"},
	"www.shop.example":    {"203.0.113.80"},
	"trap.shop.example":   {"10.1.2.3", "203.0.113.80"},
	"mixed.example":       {"203.0.113.1", "192.0.2.1", "203.0.113.2", "2001:db8:99::1"},
	"www.carrier.example": {"203.0.113.9"},
}

// explainer explains a configuration that is called config.toml.
func explainer(t *testing.T, text string) *explain.Explainer {
	t.Helper()
	cfg, err := config.Parse("config.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	table, err := cfg.Table()
	if err != nil {
		t.Fatal(err)
	}
	return &explain.Explainer{Config: cfg, Dialer: &dialer.Dialer{
		Table:    table,
		State:    away{netip.MustParseAddr("198.51.100.99")},
		Resolver: names,
	}}
}

func client(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 0) }

func TestExplain(t *testing.T) {
	port := func(p uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, p) }
	for _, tt := range []struct {
		name      string
		flow      dialer.Flow
		reachable bool
	}{
		{"name", dialer.Flow{Network: "tcp", Name: "smtp.mail.example", Dst: port(25), Client: client("10.0.8.4"), Listener: "office"}, true},
		{"range", dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("[::ffff:203.0.113.7]:443"), Client: client("10.0.8.4"), User: "crawler", Session: "a"}, true},
		{"sticky", dialer.Flow{Network: "tcp", Name: "www.shop.example", Dst: port(443), Client: client("10.0.8.4")}, true},
		{"first-up", dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("203.0.113.66:443")}, true},
		{"sticky-for", dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("198.18.1.1:443")}, true},
		{"down", dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("203.0.113.9:443")}, false},
		{"second-judgement", dialer.Flow{Network: "tcp", Name: "trap.shop.example", Dst: port(80)}, true},
		{"several-rules", dialer.Flow{Network: "tcp", Name: "mixed.example", Dst: port(80)}, true},
		{"unknown", dialer.Flow{Network: "tcp", Name: "nowhere.example", Dst: port(80)}, false},
		{"port", dialer.Flow{Network: "udp", Dst: netip.MustParseAddrPort("198.18.0.5:5060"), LocalPort: 5070}, true},
		{"family", dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("[2001:db8:1::1]:443")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := explainer(t, office).Explain(t.Context(), explain.Question{Flow: tt.flow})
			golden(t, tt.name+".txt", a.Text(explain.Style{}))
			if got := a.Reachable(); got != tt.reachable {
				t.Errorf("reachable: got %v, want %v", got, tt.reachable)
			}
		})
	}
}

// longList returns a configuration with n rules, of which the one with this number
// matches 192.0.2.1.
func longList(n, match int) string {
	var b strings.Builder
	b.WriteString("default = \"deny\"\n")
	for i := 1; i <= n; i++ {
		to := fmt.Sprintf("198.18.%d.%d", i>>8, i&255)
		if i == match {
			to = "192.0.2.1"
		}
		fmt.Fprintf(&b, "[[rules]]\nto = %q\nuse = \"kernel\"\n", to)
	}
	return b.String()
}

func TestLongLists(t *testing.T) {
	for _, tt := range []struct {
		name     string
		n, match int
		reached  bool
	}{
		{"long-middle", 500, 300, true},
		{"long-end", 500, 500, true},
		{"long-none", 500, 0, false},
		{"long-start", 500, 1, true},
		{"short-below", 5, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("192.0.2.1:80")}
			a := explainer(t, longList(tt.n, tt.match)).Explain(t.Context(), explain.Question{Flow: f})
			golden(t, tt.name+".txt", a.Text(explain.Style{}))
			w := a.Walks[0]
			total := w.Above + len(w.Steps) + w.Below
			if !tt.reached {
				total-- // the default
			}
			if total != tt.n {
				t.Errorf("the walk accounts for %d rules, want %d", total, tt.n)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	f := dialer.Flow{Network: "tcp", Name: "mixed.example", Dst: netip.AddrPortFrom(netip.Addr{}, 80), Client: client("10.0.8.4")}
	a := explainer(t, office).Explain(t.Context(), explain.Question{Flow: f})
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(a); err != nil {
		t.Fatal(err)
	}
	golden(t, "answer.json", b.String())
}

func TestColor(t *testing.T) {
	f := dialer.Flow{Network: "tcp", Name: "trap.shop.example", Dst: netip.AddrPortFrom(netip.Addr{}, 80)}
	a := explainer(t, office).Explain(t.Context(), explain.Question{Flow: f})
	colored, uncolored := a.Text(explain.Style{Color: true}), a.Text(explain.Style{})
	if !strings.Contains(colored, "\x1b[31mrefused by") || strings.Contains(uncolored, "\x1b") {
		t.Errorf("got %q and %q", colored, uncolored)
	}
	stripped := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(colored)
	if d := cmp.Diff(uncolored, stripped); d != "" {
		t.Errorf("colours change the text (-without +with):\n%s", d)
	}
}

func TestOwnUse(t *testing.T) {
	e := explainer(t, `default = "deny"
[sources]
voip = "198.51.100.30"
[[listen]]
name = "trunk"
udp  = "127.0.0.1:5060"
to   = "203.0.113.5:5060"
use  = "voip"
source_port = 5060
`)
	e.Own = &e.Config.Listen[0]
	table, err := dialer.NewTable([]dialer.Rule{{Name: "trunk", Use: *e.Own.Use, SourcePort: e.Own.SourcePort}}, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	e.Dialer.Table = table
	f := dialer.Flow{Network: "udp", Dst: netip.MustParseAddrPort("203.0.113.5:5060"), Listener: "trunk"}
	golden(t, "own-use.txt", e.Explain(t.Context(), explain.Question{Flow: f}).Text(explain.Style{}))
}

// TestExplainSame takes for the address that clients connect to that of the listener, of
// the family of the destination.
func TestExplainSame(t *testing.T) {
	e := explainer(t, `default = "same"
[[listen]]
name  = "office"
mixed = ["198.51.100.10:1080", "[2001:db8::10]:1080"]
open  = true
[[listen]]
name  = "all"
mixed = ":1081"
open  = true
`)
	for _, tt := range []struct{ listener, dst, from, refusal string }{
		{"office", "203.0.113.1:80", "198.51.100.10", ""},
		{"office", "[2001:db8:2::1]:80", "2001:db8::10", ""},
		{"all", "203.0.113.1:80", "", "which address the client connected to is not known"},
		{"", "203.0.113.1:80", "", "which address the client connected to is not known"},
	} {
		f := dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort(tt.dst), Listener: tt.listener}
		a := e.Explain(t.Context(), explain.Question{Flow: f})
		got := a.Walks[0].Addresses[0]
		if from := got.From; (tt.from != "" || from.IsValid()) && from.String() != tt.from || !strings.Contains(got.Refusal, tt.refusal) {
			t.Errorf("%s at %q: from %v, %q; want %q, %q", tt.dst, tt.listener, from, got.Refusal, tt.from, tt.refusal)
		}
		if tt.refusal == "" && got.Source != "same" {
			t.Errorf("%s at %q: the source is %q", tt.dst, tt.listener, got.Source)
		}
	}
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(chan netip.AddrPort, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(seen)
			return
		}
		seen <- netip.MustParseAddrPort(c.RemoteAddr().String())
		c.Close()
	}()
	e := explainer(t, `default = "127.0.0.2"
[[rules]]
to  = "127.0.0.9"
use = "127.0.0.3"
[[rules]]
to  = "127.0.0.8"
use = "deny"
`)
	e.Dialer.Resolver = hosts{"several.example": {"127.0.0.1", "127.0.0.9", "127.0.0.8"}}
	server := netip.MustParseAddrPort(l.Addr().String())
	f := dialer.Flow{Network: "tcp", Name: "several.example", Dst: netip.AddrPortFrom(netip.Addr{}, server.Port())}
	a := e.Explain(t.Context(), explain.Question{Flow: f, Dial: true})
	if len(a.Walks) != 3 || !a.Reachable() {
		t.Fatalf("got %+v", a)
	}
	up, closed, denied := a.Walks[0].Addresses[0], a.Walks[1].Addresses[0], a.Walks[2].Addresses[0]
	if remote := <-seen; remote.Addr() != netip.MustParseAddr("127.0.0.2") || up.Dialled == nil || up.Dialled.Local != remote {
		t.Errorf("the server saw %v, the answer is %+v", remote, up.Dialled)
	}
	if closed.Dialled == nil || closed.Dialled.Err != "connect: connection refused" || closed.From != netip.MustParseAddr("127.0.0.3") {
		t.Errorf("got %+v, %+v", closed, closed.Dialled)
	}
	if denied.Dialled != nil || denied.Refusal == "" {
		t.Errorf("dialled although denied: %+v", denied)
	}
	text := a.Text(explain.Style{})
	if want := fmt.Sprintf("from port %d", up.Dialled.Local.Port()); !strings.Contains(text, want) {
		t.Errorf("got %q, want in it %q", text, want)
	}
	f.Name = ""
	f.Dst = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), server.Port())
	if e.Explain(t.Context(), explain.Question{Flow: f, Dial: true}).Reachable() {
		t.Error("an address that refuses the connection is reachable")
	}
}
