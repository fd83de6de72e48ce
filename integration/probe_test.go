//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// probeKind is one kind of probe: a source that has it, and the port at which flows go
// by the pool of that source.
type probeKind struct {
	name         string
	source       int // ProxyV4 and ProxyV6
	port         uint16
	four, six    string // the targets
	down4        string // why it is down in IPv4
	addr4, addr6 netip.Addr
}

func probeKinds() []probeKind {
	t4, t6 := nstest.ServerV4(30), nstest.ServerV6(30)
	kinds := []probeKind{
		{name: "tcp", source: 20, port: 1001, four: fmt.Sprintf("%v:80", t4), six: fmt.Sprintf("[%v]:80", t6)},
		{name: "http", source: 21, port: 1002, four: fmt.Sprintf("http://%v/health", t4), six: fmt.Sprintf("http://[%v]/health", t6)},
		{name: "icmp", source: 22, port: 1003, four: t4.String(), six: t6.String()},
		{name: "dns", source: 23, port: 1004, four: fmt.Sprintf("small.example@%v", t4), six: fmt.Sprintf("small.example@%v", t6)},
	}
	for i := range kinds {
		k := &kinds[i]
		k.down4 = "probe " + k.four + " timed out"
		k.addr4, k.addr6 = nstest.ProxyV4(k.source), nstest.ProxyV6(k.source)
	}
	return kinds
}

func probeConfig(kinds []probeKind) string {
	var b strings.Builder
	fmt.Fprintf(&b, "default = \"deny\"\n[sources]\nwan = [%q, %q]\n", wan4, wan6)
	for _, k := range kinds {
		fmt.Fprintf(&b, "%s = { ip = [%q, %q], probe = { %s = [%q, %q], every = \"1s\", timeout = \"1s\", rise = 2, fall = 3 } }\n",
			k.name, k.addr4, k.addr6, k.name, k.four, k.six)
	}
	b.WriteString("[pools]\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "%s-pool = { of = [%q, \"wan\"] }\n", k.name, k.name)
	}
	for _, k := range kinds {
		fmt.Fprintf(&b, "[[rules]]\nname = \"%s alone\"\nport = %d\nuse = %q\n", k.name, k.port+1000, k.name)
		fmt.Fprintf(&b, "[[rules]]\nport = %d\nuse = \"%s-pool\"\n", k.port, k.name)
	}
	b.WriteString("[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	return b.String()
}

const dropProbes = `
table inet probes {
	chain arrivals {
		type filter hook prerouting priority -200; policy accept;
		ip daddr 203.0.113.30 drop
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		ip6 daddr 2001:db8:2::30 drop
	}
}
`

// TestProbes: when nothing comes back from the targets, each source goes down in both
// families, its pool takes the next one, and who insists is told why. It comes back
// with its target, and over all of that no packet to a target is from another source.
func TestProbes(t *testing.T) {
	nstest.Need(t, "nft", "sysctl", "setpriv")
	for _, sockets := range []struct {
		name, groups string
		wrap         []string
	}{
		{"with the right to open raw sockets", "1 0", nil},
		{"with a group that may ping", "0 2147483647", []string{"setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"}},
	} {
		t.Run(sockets.name, func(t *testing.T) {
			r := newRig(t)
			r.wrap = sockets.wrap
			if res := r.run("sysctl", "-qw", "net.ipv4.ping_group_range="+sockets.groups); res.Err != nil {
				t.Fatal(res)
			}
			testProbes(t, r)
		})
	}
}

// TestProbesThatCannotBe are refused at the start, as their source would be up for ever.
func TestProbesThatCannotBe(t *testing.T) {
	nstest.Need(t, "sysctl", "setpriv")
	r := newRig(t)
	if res := r.run("sysctl", "-qw", "net.ipv4.ping_group_range=1 0"); res.Err != nil {
		t.Fatal(res)
	}
	path := r.write("config.toml", probeConfig(probeKinds()))
	for _, command := range []string{"serve", "check"} {
		res := r.run("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", r.binary.Build(t), command, "-c", path)
		if out := res.Stdout + res.Stderr; res.Err == nil || !strings.Contains(out, "net.ipv4.ping_group_range") {
			t.Errorf("%s: %v", command, res)
		}
	}
}

func testProbes(t *testing.T, r *rig) {
	t.Helper()
	kinds := probeKinds()
	leaks := serveProbes(t, r, kinds)
	config := probeConfig(kinds)
	r.serve(config)
	r.wantSources(t, kinds, true)

	dropTargets(t, r)
	r.wantChanged(t, kinds, "down")
	r.wantSources(t, kinds, false)
	for _, k := range kinds {
		r.wantTold(t, k)
	}
	changes, _ := r.log.with("source changed")
	if e := r.reload(config + "[log]\nlevel = \"info\"\n"); e.text("msg") != "reloaded" {
		t.Fatal(e)
	}
	r.wantSources(t, kinds, false)
	if now, _ := r.log.with("source changed"); len(now) != len(changes) {
		t.Errorf("a reload changed sources: %v", now[len(changes):])
	}

	if res := r.Server.Run(t, exec.Command("nft", "delete", "table", "inet", "probes")); res.Err != nil {
		t.Fatal(res)
	}
	r.wantChanged(t, kinds, "up")
	r.wantSources(t, kinds, true)
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// TestRunProbes: under the kernel plane an unmodified program connects from the next
// source of the pool once the probe of the first has failed.
func TestRunProbes(t *testing.T) {
	nstest.Need(t, "nft", "bash")
	kernelTree(t)
	r := newRig(t)
	r.Server.GreetTCP(t, "203.0.113.9:7")
	dropTargets(t, r)
	config := r.write("config.toml", fmt.Sprintf(`default = "lines"
[sources]
lte = { ip = %q, probe = { tcp = "203.0.113.30:80", every = "1s", timeout = "500ms", fall = 2 } }
wan = %q
[pools]
lines = { of = ["lte", "wan"] }
`, nstest.ProxyV4(20), wan4))
	const loop = `while read -r from < /dev/tcp/203.0.113.9/7; do echo $from; [ $from = "$0" ] && exit; sleep 0.05; done; exit 1`
	res := r.program("run", "-c", config, "--", "bash", "-c", loop, wan4.String())
	seen := strings.Fields(res.Stdout)
	if res.Err != nil || len(seen) < 2 || seen[0] != nstest.ProxyV4(20).String() {
		t.Errorf("seen from %q, want from the first source and in the end from the second: %v %s", seen, res.Err, res.Stderr)
	}
}

// dropTargets has the server drop what comes to the targets.
func dropTargets(t *testing.T, r *rig) {
	t.Helper()
	drop := exec.Command("nft", "-f", "-")
	drop.Stdin = strings.NewReader(dropProbes)
	if res := r.Server.Run(t, drop); res.Err != nil {
		t.Fatal(res)
	}
}

// serveProbes serves the targets and the destinations of flows.
func serveProbes(t *testing.T, r *rig, kinds []probeKind) *nstest.LeakCounter {
	t.Helper()
	leaks := r.Server.CountLeaks(t, "wan0")
	names := map[string][]netip.Addr{"small.example": {nstest.ServerV4(9)}}
	for _, target := range []netip.Addr{nstest.ServerV4(30), nstest.ServerV6(30)} {
		r.Server.ServeHTTP(t, at(target, 80).String(), nil)
		r.Server.ServeDNSOn(t, target, names)
	}
	leaks.AllowTo(nstest.ServerV4(9), netip.PrefixFrom(wan4, 32))
	leaks.AllowTo(nstest.ServerV6(9), netip.PrefixFrom(wan6, 128))
	for _, k := range kinds {
		r.Server.GreetTCP(t, fmt.Sprintf("0.0.0.0:%d", k.port))
		r.Server.GreetTCP(t, fmt.Sprintf("[::]:%d", k.port))
		for _, dst := range []netip.Addr{nstest.ServerV4(9), nstest.ServerV4(30)} {
			leaks.AllowTo(dst, netip.PrefixFrom(k.addr4, 32))
		}
		for _, dst := range []netip.Addr{nstest.ServerV6(9), nstest.ServerV6(30)} {
			leaks.AllowTo(dst, netip.PrefixFrom(k.addr6, 128))
		}
	}
	return leaks
}

// wantSources fails unless flows by each pool leave from its first source, or else from
// the second one.
func (r *rig) wantSources(t *testing.T, kinds []probeKind, first bool) {
	t.Helper()
	for _, k := range kinds {
		want4, want6 := wan4, wan6
		if first {
			want4, want6 = k.addr4, k.addr6
		}
		for dst, want := range map[netip.Addr]netip.Addr{nstest.ServerV4(9): want4, nstest.ServerV6(9): want6} {
			c, err := r.through("127.0.0.1:1080", at(dst, k.port))
			if err != nil {
				t.Errorf("%s to %v: %v", k.name, dst, err)
				continue
			}
			if got, err := readAddr(c); err != nil || got != want {
				t.Errorf("%s to %v: from %v, %v, want from %v", k.name, dst, got, err, want)
			}
			c.Close()
		}
	}
}

// wantChanged waits until both families of all sources are in that state.
func (r *rig) wantChanged(t *testing.T, kinds []probeKind, state string) {
	t.Helper()
	for _, k := range kinds {
		for _, a := range []netip.Addr{k.addr4, k.addr6} {
			e := r.log.waitFor(t, 1, func(e entry) bool {
				return e.text("source") == k.name && e.text("addr") == a.String() && e.text("state") == state
			}, "source changed")[0]
			if a.Is4() && state == "down" && e.text("err") != k.down4 {
				t.Errorf("%s is down as %q, want %q", k.name, e.text("err"), k.down4)
			}
		}
	}
}

// wantTold fails unless a flow that may leave from the source alone is refused, with the
// reason in the log.
func (r *rig) wantTold(t *testing.T, k probeKind) {
	t.Helper()
	dst := at(nstest.ServerV4(9), k.port+1000)
	if _, err := r.through("127.0.0.1:1080", dst); err != refused(replyNetwork) {
		t.Errorf("%s alone: got %v, want %v", k.name, err, refused(replyNetwork))
	}
	e := r.log.waitFor(t, 1, func(e entry) bool { return e.text("dst") == dst.String() }, "flow")[0]
	if !strings.Contains(e.text("err"), k.down4) {
		t.Errorf("the log says %q, want %q in it", e.text("err"), k.down4)
	}
}
