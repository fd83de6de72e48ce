//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const networkd = "/usr/lib/systemd/systemd-networkd"

// planned has conditions and targets of all kinds that routes can have.
const planned = `default = "wan"
[sources]
wan  = ["198.51.100.10", "2001:db8:1::10"]
mail = ["198.51.100.25", "2001:db8:1::25"]
[[rules]]
to   = ["203.0.113.25", "2001:db8:9::/64"]
port = [25, "587-588"]
use  = "mail"
[[rules]]
protocol   = "udp"
local_port = 5060
use        = "mail"
[[rules]]
to  = "198.18.0.0/15"
use = "kernel"
[[rules]]
[rules.map]
"203.0.113.0/24"  = "mail"
"203.0.113.64/26" = "kernel"
"10.0.0.0/8"      = "deny"
`

// TestPlanNetworkdIsThatOfIP lets systemd-networkd load the plan for it, and compares the
// routes and rules that it makes with those of the plan for ip.
func TestPlanNetworkdIsThatOfIP(t *testing.T) {
	n := networkdHost(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte(planned), 0o644); err != nil {
		t.Fatal(err)
	}
	plan := func(kind string) string {
		r := n.Run(t, exec.Command(nstest.Binary{}.Build(t), "plan", kind, "-c", config))
		if r.Err != nil {
			t.Fatal(r)
		}
		return r.Stdout
	}
	byNetworkd, byIP := plan("--networkd"), plan("--iproute")
	shell(t, n, byIP)
	want := routing(t, n, "500")
	_, undo, _ := strings.Cut(byIP, "# To undo it:\n")
	shell(t, n, strings.ReplaceAll(undo, "#   ", ""))
	if left := routing(t, n, "500"); len(want) < 15 || len(left) != 0 {
		t.Fatalf("%d routes and rules, and after the undo %v", len(want), left)
	}

	wantByNetworkd(t, n, dir, byNetworkd, "500", want)
}

// networkdHost is a host with one link, which systemd-networkd can configure.
func networkdHost(t *testing.T) *nstest.Namespace {
	t.Helper()
	nstest.Need(t, "ip", "sh", "unshare", networkd)
	if text, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(text))) != 3 || strings.Fields(string(text))[2] == "1" {
		nstest.Skip(t, "systemd-networkd becomes another user, and there is only one here")
	}
	n := nstest.NewNamespace(t, "host")
	shell(t, n, `set -e
ip link add wan0 type veth peer name p0; ip link set wan0 up; ip link set p0 up
for a in 198.51.100.10 198.51.100.25; do ip addr add $a/24 dev wan0; done
for a in 2001:db8:1::10 2001:db8:1::25; do ip addr add $a/64 dev wan0 nodad; done
ip route add default via 198.51.100.1
ip -6 route add default via 2001:db8:1::1
`)
	return n
}

// wantByNetworkd has systemd-networkd load sections, and waits until it has made these
// routes and rules.
func wantByNetworkd(t *testing.T, n *nstest.Namespace, dir, sections, digits string, want []string) {
	t.Helper()
	startNetworkd(t, n, dir, "[Match]\nName=wan0\n[Network]\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n"+
		"Address=198.51.100.10/24\nAddress=198.51.100.25/24\nAddress=2001:db8:1::10/64\nAddress=2001:db8:1::25/64\n"+
		"Gateway=198.51.100.1\nGateway=2001:db8:1::1\n"+sections)
	var got []string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if got = routing(t, n, digits); slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	t.Errorf("got\n%s\nwant\n%s\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), sections, log)
}

// startNetworkd runs systemd-networkd with one file, and without udev, which it leaves
// alone where /sys cannot be written.
func startNetworkd(t *testing.T, n *nstest.Namespace, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "wan0.network"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n.Start(t, exec.Command("unshare", "-m", "sh", "-ec", fmt.Sprintf(`exec >%[1]s/log 2>&1
cp %[1]s/wan0.network /tmp/wan0.network.$$
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/netif /run/systemd/network
chown systemd-network: /run/systemd/netif
mv /tmp/wan0.network.$$ /run/systemd/network/10-wan0.network
mount -t sysfs -o ro sysfs /sys
exec %[2]s
`, dir, networkd)))
}

// routing lists the routes and rules of the plan, whose numbers begin with these digits,
// without what tells who made them.
func routing(t *testing.T, n *nstest.Namespace, digits string) []string {
	t.Helper()
	var out []string
	for _, family := range []string{"-4", "-6"} {
		rules := n.Run(t, exec.Command("ip", family, "rule"))
		routes := n.Run(t, exec.Command("ip", family, "route", "show", "table", "all"))
		for line := range strings.Lines(rules.Stdout + routes.Stdout) {
			if !strings.HasPrefix(line, digits) && !strings.Contains(line, "table "+digits) {
				continue
			}
			for _, maker := range []string{" proto static", " metric 1024", " pref medium", " linkdown"} {
				line = strings.ReplaceAll(line, maker, "")
			}
			out = append(out, family+" "+strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
