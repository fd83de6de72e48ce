//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// explained is what explain --json says of one address.
type explained struct {
	Address netip.Addr
	From    netip.Addr
	Way     struct {
		Link    string
		Gateway netip.Addr
		Table   string
		Fault   *struct {
			Text string
			Cure []string
		}
	}
	Kernel struct {
		Address netip.Addr
		Text    string
	}
	Dialled *struct {
		Local netip.AddrPort
		Error string
	}
}

// explain runs the command with --json on a configuration in the namespace, and returns
// what it says of the only address, with its exit code.
func explain(t *testing.T, n *nstest.Namespace, config string, args ...string) (explained, int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nstest.Binary{}.Build(t), append([]string{"explain", "--json", "-c", path}, args...)...)
	r := n.Run(t, cmd)
	var answer struct {
		Walks []struct{ Addresses []explained }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &answer); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	if len(answer.Walks) != 1 || len(answer.Walks[0].Addresses) != 1 {
		t.Fatalf("not one address: %v", r)
	}
	return answer.Walks[0].Addresses[0], cmd.ProcessState.ExitCode()
}

const foreignSources = `default = "deny"
[timeouts]
dial = "1s"
[sources]
first  = ["198.51.100.10", "2001:db8:1::10"]
second = ["192.0.2.7", "2001:db8:7::7"]
[[rules]]
port = 80
use  = "first"
[[rules]]
port = 81
use  = "second"
`

// TestExplainCuresWrongWay: packets from an address of the second provider leave by the
// first, which drops them. The commands that explain prints, run as they are printed,
// cure it, and only for that source.
func TestExplainCuresWrongWay(t *testing.T) {
	nstest.Need(t, "ip", "nft", "sh")
	for _, tt := range []struct {
		any, server    string
		source, kernel netip.Addr // of the rule, and what the kernel takes
		gateway        netip.Addr
		setUp          string // how the host knows of the second gateway
	}{
		{"0.0.0.0", "203.0.113.9", nstest.Wan2().V4.Addr(), nstest.Wan1().V4.Addr(), nstest.Wan2().GatewayV4, "ip route add default via 192.0.2.1 dev wan2 metric 500"},
		{"[::]", "2001:db8:9::9", nstest.Wan2().V6.Addr(), nstest.Wan1().V6.Addr(), nstest.Wan2().GatewayV6, "ip -6 route add default via 2001:db8:7::1 dev wan2 table 300"},
	} {
		t.Run(tt.server, func(t *testing.T) {
			p := nstest.NewProviders(t)
			first, second := serveBoth(t, p, tt.any)
			shell(t, p.Host, tt.setUp)
			to := netip.AddrPortFrom(netip.MustParseAddr(tt.server), 81).String()

			before, code := explain(t, p.Host, foreignSources, to, "--dial")
			if code != 1 || before.Dialled == nil || before.Dialled.Error == "" || before.Way.Fault == nil || before.Way.Link != "wan1" {
				t.Fatalf("the wrong way is not seen: exit code %d, %+v", code, before)
			}
			dropped := p.Dropped(t, p.First)
			if dropped == 0 || len(first.Peers())+len(second.Peers()) != 0 {
				t.Fatalf("the first provider dropped %d packets, and the servers were called from %v, %v", dropped, first.Peers(), second.Peers())
			}
			if before.From != tt.source || before.Kernel.Address != tt.kernel {
				t.Errorf("got from %v, and by the kernel %v; want %v, %v", before.From, before.Kernel.Address, tt.source, tt.kernel)
			}

			t.Logf("%s. Cure: %q", before.Way.Fault.Text, before.Way.Fault.Cure)
			for _, command := range before.Way.Fault.Cure {
				shell(t, p.Host, command)
			}
			after, code := explain(t, p.Host, foreignSources, to, "--dial")
			if code != 0 || after.Way.Fault != nil || after.Way.Link != "wan2" || after.Way.Gateway != tt.gateway || after.Dialled.Error != "" {
				t.Fatalf("not cured: exit code %d, %+v", code, after)
			}
			wantSources(t, second, tt.source, 1)
			if n := p.Dropped(t, p.First); n != dropped || p.Dropped(t, p.Second) != 0 {
				t.Errorf("the providers dropped %d more packets and %d", n-dropped, p.Dropped(t, p.Second))
			}
			// The other source leaves as before.
			other, code := explain(t, p.Host, foreignSources, netip.AddrPortFrom(netip.MustParseAddr(tt.server), 80).String(), "--dial")
			if code != 0 || other.Way.Link != "wan1" || other.Way.Fault != nil {
				t.Errorf("the other source: exit code %d, %+v", code, other)
			}
		})
	}
}

// serveBoth listens on ports 80 and 81 behind both providers; the servers returned are
// those of the port 81.
func serveBoth(t *testing.T, p *nstest.Providers, any string) (first, second *nstest.Server) {
	t.Helper()
	p.First.EchoTCP(t, any+":80")
	return p.First.EchoTCP(t, any+":81"), p.Second.EchoTCP(t, any+":81")
}

// shell runs a command as somebody who copied it.
func shell(t *testing.T, n *nstest.Namespace, command string) {
	t.Helper()
	if r := n.Run(t, exec.Command("sh", "-c", command)); r.Err != nil {
		t.Fatal(fmt.Errorf("%s: %v", command, r))
	}
}

// kernelRows are what decides about the source that the kernel takes; all of them stand
// in the test of package host, these are asked of the program.
var kernelRows = []struct {
	name, setUp, to, text string
}{
	{"route src", "ip addr add 198.51.100.20/24 dev w1; ip route add default via 198.51.100.1 src 198.51.100.20", "203.0.113.9", "the src of the route default via 198.51.100.1 dev w1"},
	{"subnet", "ip addr add 192.0.2.10/24 dev w1", "192.0.2.9", "the address of w1 in the destination's subnet 192.0.2.0/24"},
	{"gateway", "ip addr add 192.0.2.10/24 dev w1; ip route add default via 192.0.2.1", "203.0.113.9", "the address of w1 in the subnet of the gateway 192.0.2.1"},
	{"primary", "ip addr add 198.51.100.5/24 dev w1; ip route add default via 198.51.100.1", "203.0.113.9", "the primary address of w1, the first added of its 2"},
	{"other link", "ip route add default dev w2", "203.0.113.9", "an address of w1, since w2 has none that fits"},
	{"lo first", "ip addr add 198.51.100.99/32 dev lo; ip route add default dev w2", "203.0.113.9", "an address of lo, since w2 has none that fits"},
	{"scope", "ip addr add 169.254.7.7/16 dev w2 scope link; ip addr add 192.0.2.10/24 dev w2; ip route add 203.0.113.0/24 dev w2 scope link", "203.0.113.9", "which is of scope link"},
	{"own address", "ip addr add 198.51.100.20/24 dev w1", "198.51.100.20", "the primary address of the destination's subnet"},
	{"ip rule", "ip addr add 192.0.2.10/24 dev w2; ip route add default via 198.51.100.1; ip route add default via 192.0.2.1 table 102; ip rule add dport 7 lookup 102 priority 1000", "203.0.113.9", "(table 102 by ip rule 1000: from all dport 7 lookup 102)"},
	{"v6 newest", "ip addr add 2001:db8:1::20/64 dev w1 nodad; ip -6 route add default via 2001:db8:1::1", "2001:db8:9::9", "the newest of the addresses of w1 that are equal"},
	{"v6 route src", "ip addr add 2001:db8:1::20/64 dev w1 nodad; ip -6 route add default via 2001:db8:1::1 src 2001:db8:1::10", "2001:db8:9::9", "the src of the route default"},
	{"v6 longest match", "ip addr add 2001:db8:9:1::10/64 dev w1 nodad; ip addr add 2001:db8:1::11/64 dev w1 nodad; ip -6 route add default via 2001:db8:1::1", "2001:db8:9::9", "with 63 leading bits of the destination"},
	{"v6 label", "ip addr add fd00:1::10/64 dev w1 nodad; ip addr add 2001:db8:1::11/64 dev w1 nodad; ip -6 route add default via 2001:db8:1::1", "fd00:9::9", "with the label of the destination, 5"},
	{"v6 addrlabel", "ip addr add 2001:db8:1::20/64 dev w1 nodad; ip addrlabel add prefix 2001:db8:1::10/128 label 99; ip addrlabel add prefix 2001:db8:9::/48 label 99; ip -6 route add default via 2001:db8:1::1", "2001:db8:9::9", "with the label of the destination, 99"},
	{"v6 deprecated", "ip addr add 2001:db8:9::20/64 dev w1 nodad valid_lft forever preferred_lft 0; ip -6 route add default via 2001:db8:1::1", "2001:db8:9::9", "not deprecated; 2001:db8:9::20 is"},
	{"v6 link", "ip addr add 2001:db8:9::10/64 dev w2 nodad; ip -6 route add 2001:db8:9::9/128 via 2001:db8:1::1", "2001:db8:9::9", "an address of w1, the outgoing link; 2001:db8:9::10 is on w2"},
}

// TestExplainKernelAlone compares the address that explain names with that of a socket
// which is then connected without a bind, in the same namespace.
func TestExplainKernelAlone(t *testing.T) {
	nstest.Need(t, "ip", "sh")
	const links = `set -e
for i in 1 2; do ip link add w$i type veth peer name p$i; ip link set w$i up; ip link set p$i up; done
ip addr add 198.51.100.10/24 dev w1
ip addr add 2001:db8:1::10/64 dev w1 nodad
`
	for _, tt := range kernelRows {
		t.Run(tt.name, func(t *testing.T) {
			n := nstest.NewNamespace(t, "host")
			shell(t, n, links+tt.setUp)
			to := netip.AddrPortFrom(netip.MustParseAddr(tt.to), 7).String()
			a, _ := explain(t, n, `default = "kernel"`, "--udp", to)
			c, err := n.Dial(net.Dialer{}, "udp", to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			real := netip.MustParseAddrPort(c.LocalAddr().String()).Addr()
			if a.Kernel.Address != real || !strings.Contains(a.Kernel.Text, tt.text) {
				t.Errorf("got %v, %q; a socket has %v, want %q", a.Kernel.Address, a.Kernel.Text, real, tt.text)
			}
			t.Logf("the kernel alone: %v, %s", a.Kernel.Address, a.Kernel.Text)
		})
	}
}
