package explain_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// planSources are on the proxy host of the topology.
const planSources = `
[sources]
one   = "198.51.100.10"
both  = ["198.51.100.11", "2001:db8:1::11"]
six   = "2001:db8:1::12"
fixed = ["198.51.100.13", "2001:db8:1::13"]
some  = { ip = "198.51.100.20-198.51.100.23", ports = "40000-44999" }
crawl = { ip = "2001:db8:64::/64" }
wan   = { interface = "wan0" }

[pools]
turns  = { of = ["one", "both", "six"], pick = "round-robin", weights = [3, 1, 2] }
random = { of = ["one", "both"], pick = "random" }
`

// planRules has one rule of each kind.
const planRules = `default = "both"
` + planSources + `
[pools.safe]
of = ["one", "both"]
[pools.web]
of = ["one", "both"]
pick = "sticky"
by = ["client"]
[pools.least]
of = ["one", "both"]
pick = "least-connections"

[[rules]]
name = "mail"
to   = ["*.mail.example", "203.0.113.25", "203.0.113.0/30", "203.0.113.2"]
port = [25, "588-600", "587-588"]
use  = "one"
[[rules]]
user = "crawler"
use  = "crawl"
[[rules]]
name        = "phone"
protocol    = "udp"
to          = "203.0.113.5"
local_port  = 5060
use         = "fixed"
source_port = 5060
[[rules]]
name = "carriers"
[rules.map]
"203.0.113.0/24"       = "one"
"203.0.113.64/26"      = "both"
"203.0.113.128/26"     = "turns"
"203.0.113.192/26"     = "some"
"203.0.113.200/29"     = "deny"
"203.0.113.194"        = "kernel"
"203.0.113.195"        = "random"
"203.0.113.96/31"      = "safe"
"203.0.113.98/31"      = "web"
"203.0.113.100/31"     = "least"
"2001:db8:9::/64"      = "both"
"2001:db8:9::20/124"   = "crawl"
"2001:db8:9::30/124"   = "one"
"*.shop.example"       = "six"
[[rules]]
to = ["198.18.0.0/16", "2001:db8:9:2::/64"]
[rules.map]
"198.18.0.0/15"    = "one"
"198.18.7.0/24"    = "wan"
"2001:db8:9::/48"  = "six"
[[rules]]
client = "10.0.8.0/24"
use    = "deny"
[[listen]]
udp = "127.0.0.1:5060"
to  = "203.0.113.5:5060"
use = "one"
source_port = 5060
[[listen]]
mixed = "127.0.0.1:1080"
`

// parse reads a configuration that is called config.toml.
func parse(t *testing.T, text string) (*config.Config, *dialer.Table) {
	t.Helper()
	cfg, err := config.Parse("config.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	table, err := cfg.Table()
	if err != nil {
		t.Fatal(err)
	}
	return cfg, table
}

func TestPlanNFT(t *testing.T) {
	cfg, _ := parse(t, planRules)
	p := explain.PlanNFT(cfg)
	golden(t, "plan.nft", p.Text)
	missing := 0
	for _, g := range p.Gaps {
		if !g.Partly {
			missing++
		}
	}
	if want := fmt.Sprintf("# What it cannot express: %d; in part: %d.\n", missing, len(p.Gaps)-missing); missing != 3 || !strings.Contains(p.Text, want) {
		t.Errorf("want 3 gaps and %q", want)
	}
}

// TestPlanNFTSendsAsTheRules compares, at the far end, where flows under the plan come
// from with what the table says: for one rule of each kind, and for random ones.
func TestPlanNFTSendsAsTheRules(t *testing.T) {
	nstest.Need(t, "nft", "ip")
	configs := map[string]string{"each kind": planRules}
	for seed := range uint64(6) {
		configs[fmt.Sprintf("seed %d", seed)] = randomRules(rand.New(rand.NewPCG(seed, 4)))
	}
	for name, text := range configs {
		t.Run(name, func(t *testing.T) {
			cfg, table := parse(t, text)
			far := newFarEnd(t)
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(explain.PlanNFT(cfg).Text)
			if r := far.Proxy.Run(t, cmd); r.Err != nil {
				t.Fatalf("%v\n%s", r, explain.PlanNFT(cfg).Text)
			}
			far.compare(t, table, rand.New(rand.NewPCG(7, 7)))
			if t.Failed() {
				t.Logf("%s\n%s", text, explain.PlanNFT(cfg).Text)
			}
		})
	}
}

// TestPlanIPRouteSendsAsTheRules does the same with routes.
func TestPlanIPRouteSendsAsTheRules(t *testing.T) {
	nstest.Need(t, "ip", "sh")
	configs := map[string]string{"each kind": planRules}
	for seed := range uint64(6) {
		configs[fmt.Sprintf("seed %d", seed)] = randomRules(rand.New(rand.NewPCG(seed, 5)))
	}
	for name, text := range configs {
		t.Run(name, func(t *testing.T) {
			cfg, table := parse(t, text)
			far := newFarEnd(t)
			far.routes = true
			plan := routePlan(t, far.Proxy, cfg, explain.PlanIPRoute).Text
			cmd := exec.Command("sh", "-e")
			cmd.Stdin = strings.NewReader(plan)
			if r := far.Proxy.Run(t, cmd); r.Err != nil {
				t.Fatalf("%v\n%s", r, plan)
			}
			far.compare(t, table, rand.New(rand.NewPCG(7, 7)))
			if t.Failed() {
				t.Logf("%s\n%s", text, plan)
				return
			}
			_, undo, _ := strings.Cut(plan, "# To undo it:\n")
			script(t, far.Proxy, strings.ReplaceAll(undo, "#   ", ""))
			var left strings.Builder
			for _, family := range []string{"-4", "-6"} {
				left.WriteString(far.Proxy.Run(t, exec.Command("ip", family, "rule")).Stdout)
			}
			if n := strings.Count(left.String(), "\n"); n != 5 { // local, main and default; local and main
				t.Errorf("rules that are left:\n%s", left.String())
			}
		})
	}
}

// routePlan makes a plan for a namespace.
func routePlan(t *testing.T, n *nstest.Namespace, cfg *config.Config, of func(*config.Config, *host.Snapshot, *host.Policy) *explain.Plan) *explain.Plan {
	t.Helper()
	var p *explain.Plan
	if err := n.Do(func() error {
		h, err := settled()
		if err != nil {
			return err
		}
		policy, err := host.ReadPolicy()
		if err != nil {
			return err
		}
		p = of(cfg, h, policy)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

// atTwoProviders has sources at both.
const atTwoProviders = `default = "first"
[sources]
first  = ["198.51.100.10", "2001:db8:1::10"]
second = ["192.0.2.7", "2001:db8:7::7"]
[[rules]]
to  = ["203.0.113.128/25", "2001:db8:9::8000/113"]
use = "second"
[[rules]]
name     = "calls"
protocol = "udp"
port     = "5060-5070"
use      = "second"
[[rules]]
to  = "203.0.113.66"
use = "deny"
`

// TestPlanIPRouteLeavesByTheLink: flows leave by the link of their source, so that the
// providers drop nothing, whether a route or the configuration names the gateway there.
func TestPlanIPRouteLeavesByTheLink(t *testing.T) {
	nstest.Need(t, "ip", "sh", "nft")
	const second = `second = ["192.0.2.7", "2001:db8:7::7"]`
	t.Run("route", func(t *testing.T) {
		p := nstest.NewProviders(t)
		script(t, p.Host, "ip route add default via 192.0.2.1 dev wan2 metric 500\nip -6 route add default via 2001:db8:7::1 dev wan2 metric 5000\n")
		cfg, _ := parse(t, atTwoProviders)
		golden(t, "plan.network", routePlan(t, p.Host, cfg, explain.PlanNetworkd).Text)
		plan := routePlan(t, p.Host, cfg, explain.PlanIPRoute)
		golden(t, "plan.sh", plan.Text)
		leavesByItsLink(t, p, plan.Text)
	})
	t.Run("gateway", func(t *testing.T) {
		p := nstest.NewProviders(t)
		named := strings.Replace(second, "[", "{ ip = [", 1) + `, gateway = ["192.0.2.1", "2001:db8:7::1"] }`
		cfg, _ := parse(t, strings.Replace(atTwoProviders, second, named, 1))
		leavesByItsLink(t, p, routePlan(t, p.Host, cfg, explain.PlanIPRoute).Text)
	})
}

// leavesByItsLink runs a plan of atTwoProviders and connects to both sides of it.
func leavesByItsLink(t *testing.T, p *nstest.Providers, plan string) {
	t.Helper()
	cmd := exec.Command("sh", "-e")
	cmd.Stdin = strings.NewReader(plan)
	if r := p.Host.Run(t, cmd); r.Err != nil {
		t.Fatal(r)
	}
	for _, tt := range []struct {
		to     string
		behind *nstest.Namespace
		want   netip.Addr
	}{
		{"203.0.113.1:7000", p.First, nstest.Wan1().V4.Addr()},
		{"203.0.113.200:7000", p.Second, nstest.Wan2().V4.Addr()},
		{"[2001:db8:9::1]:7000", p.First, nstest.Wan1().V6.Addr()},
		{"[2001:db8:9::8001]:7000", p.Second, nstest.Wan2().V6.Addr()},
	} {
		at := "0.0.0.0:7000"
		if strings.HasPrefix(tt.to, "[") {
			at = "[::]:7000"
		}
		s := tt.behind.EchoTCP(t, at)
		c, err := p.Host.Dial(net.Dialer{Timeout: 10 * time.Second}, "tcp", tt.to)
		if err != nil {
			t.Fatalf("%s: %v", tt.to, err)
		}
		if got := netip.MustParseAddrPort(c.LocalAddr().String()).Addr(); got != tt.want {
			t.Errorf("%s: from %v, want %v", tt.to, got, tt.want)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			_, err = c.Read(make([]byte, 1))
			if err != nil || s.Sources()[tt.want] != 1 {
				t.Errorf("%s: %v; the server saw %v", tt.to, err, s.Sources())
			}
		}
		c.Close()
	}
	if n := p.Dropped(t, p.First) + p.Dropped(t, p.Second); n != 0 {
		t.Errorf("the providers dropped %d packets", n)
	}
}

// randomRules returns a configuration whose rules overlap much.
func randomRules(r *rand.Rand) string {
	uses := []string{"one", "both", "six", "fixed", "some", "crawl", "turns", "random", "kernel", "deny"}
	use := func() string { return fmt.Sprintf("%q", uses[r.IntN(len(uses))]) }
	prefix := func() string {
		a := randomDestination(r)
		bits := a.BitLen() - r.IntN(10)
		if r.IntN(3) == 0 {
			bits = a.BitLen() - r.IntN(17)
		}
		return fmt.Sprintf("%q", netip.PrefixFrom(a, bits).Masked())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "default = %s\n%s", use(), planSources)
	for range 4 + r.IntN(8) {
		b.WriteString("[[rules]]\n")
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "port = [%d, \"%d-%d\"]\n", probePorts[r.IntN(len(probePorts))], 400+r.IntN(100), 500+r.IntN(6000))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "protocol = %q\n", []string{"tcp", "udp"}[r.IntN(2)])
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, "local_port = \"%d-%d\"\n", 5000+r.IntN(200), 5200+r.IntN(300))
		}
		if r.IntN(6) == 0 { // left out of the plan, and never true here
			b.WriteString("client = \"192.0.2.0/24\"\n")
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "to = [%s, %s, %s, \"name.example\"]\n", prefix(), prefix(), prefix())
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "use = %s\n", use())
			continue
		}
		b.WriteString("[rules.map]\n\"*.map.example\" = \"deny\"\n")
		keys := make(map[string]bool)
		for range 12 {
			if k := prefix(); !keys[k] {
				keys[k] = true
				fmt.Fprintf(&b, "%s = %s\n", k, use())
			}
		}
	}
	return b.String()
}
