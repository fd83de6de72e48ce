//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// twin is one of two hosts that share addresses by VRRP (RFC 9568).
type twin struct {
	*rig
	link     string
	addr     netip.Addr
	priority int
	vrrp     *nstest.Process
}

// The addresses that move.
var (
	shared4 = netip.MustParseAddr("192.0.2.100")
	shared6 = netip.MustParseAddr("2001:db8:9::100")
)

// TestKeepalived moves addresses between two hosts. A source is up on the one that gets
// them within a second, and down on the other, where its relays end.
func TestKeepalived(t *testing.T) {
	nstest.Need(t, "keepalived", "ip")
	first := &twin{rig: newRig(t), link: "lana", addr: netip.MustParseAddr("192.0.2.1"), priority: 200}
	second := &twin{
		rig:  &rig{Topology: &nstest.Topology{Proxy: nstest.NewNamespace(t, "standby"), Server: first.Server}, t: t, dir: t.TempDir()},
		link: "lanb", addr: netip.MustParseAddr("192.0.2.2"), priority: 100,
	}
	t.Cleanup(second.judge)
	bridge(t, first.Server, first.Proxy, second.Proxy)
	first.Server.GreetTCP(t, wildcard(nstest.ServerV4(1), 4000))
	first.Server.GreetTCP(t, wildcard(nstest.ServerV6(1), 4000))
	for _, w := range []*twin{first, second} {
		w.settle()
		w.serve(fmt.Sprintf("default = \"shared\"\n[sources]\nshared = [%q, %q]\n[admin]\nsocket = %q\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", shared4, shared6, w.path("admin.sock")))
		w.inState("waiting", 2)
	}
	first.keepalived()
	first.uses(1)
	second.keepalived()

	c, err := first.through("127.0.0.1:1080", at(nstest.ServerV4(1), 4000))
	if err != nil {
		t.Fatal(err)
	}
	first.vrrp.Signal(syscall.SIGTERM)
	second.uses(1)
	first.inState("down", 2)
	ended := watchEnds([]net.Conn{c})
	ended.wait()
	if err := ended.errs[0]; err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the relay of the first host ended by %v", err)
	}
	if _, err := first.sourceOf(at(nstest.ServerV4(1), 4000)); err != refused(replyNetwork) {
		t.Errorf("the first host has no address any more: %v, want %v", err, refused(replyNetwork))
	}

	if err := first.vrrp.Wait(patience); errors.Is(err, nstest.ErrStillRunning) { // a second one would end at once
		t.Fatal(err)
	}
	first.keepalived() // it has the higher priority
	first.uses(2)
	second.inState("down", 2)
}

// bridge joins two hosts and the server as one LAN.
func bridge(t *testing.T, server, a, b *nstest.Namespace) {
	t.Helper()
	nstest.Join(t, "lana", a, server)
	nstest.Join(t, "lanb", b, server)
	for _, line := range []string{
		"ip link add br0 type bridge", "ip link set lana master br0", "ip link set lanb master br0", "ip link set br0 up",
		"ip addr add 192.0.2.254/24 dev br0", "ip -6 addr add 2001:db8:9::254/64 dev br0 nodad",
	} {
		words := strings.Fields(line)
		if got := server.Run(t, exec.Command(words[0], words[1:]...)); got.Err != nil {
			t.Fatalf("%s: %v", line, got)
		}
	}
}

// settle gives a host its own address, and the way to the server.
func (w *twin) settle() {
	w.t.Helper()
	w.Proxy.AddAddr(w.t, w.link, netip.PrefixFrom(w.addr, 24))
	w.Proxy.AddAddr(w.t, w.link, netip.PrefixFrom(netip.MustParseAddr(strings.Replace(w.addr.String(), "192.0.2.", "2001:db8:9::", 1)), 64))
	w.mustRun("ip", "route", "replace", "203.0.113.0/24", "via", "192.0.2.254", "dev", w.link)
	w.mustRun("ip", "-6", "route", "replace", "2001:db8:2::/64", "via", "2001:db8:9::254", "dev", w.link)
}

// keepalived starts it on the host.
func (w *twin) keepalived() {
	w.t.Helper()
	peer := "192.0.2.2"
	if w.link == "lanb" {
		peer = "192.0.2.1"
	}
	config := w.write("keepalived.conf", fmt.Sprintf(`global_defs {
	vrrp_version 3
	vrrp_garp_master_refresh 0
	script_user root
}
vrrp_instance shared {
	state BACKUP
	interface %s
	virtual_router_id 51
	priority %d
	advert_int 0.1
	unicast_src_ip %v
	unicast_peer {
		%s
	}
	virtual_ipaddress {
		%v/24
	}
	virtual_ipaddress_excluded {
		%v/64
	}
}
`, w.link, w.priority, w.addr, peer, shared4, shared6))
	cmd := exec.Command("keepalived", "--dont-fork", "--log-console", "--vrrp",
		"--pid", w.path("keepalived.pid"), "--vrrp_pid", w.path("vrrp.pid"), "--use-file", config)
	w.vrrp = w.Proxy.Start(w.t, cmd)
}

// uses waits until the host has the addresses for the n-th time, and wants flows to leave
// from them soon after.
func (w *twin) uses(n int) {
	w.t.Helper()
	eventually(w.t, "keepalived gives the host the addresses", w.hasShared)
	came := time.Now()
	up := w.inState("up", 2*n)
	for _, e := range up[2*(n-1):] {
		at, err := time.Parse(time.RFC3339Nano, e.text("time"))
		if err != nil || at.Sub(came) > time.Second {
			w.t.Errorf("%s: %s was up at %v, and the address there at %v", w.link, e.text("addr"), at, came)
		}
		w.t.Logf("%s: %s up %v after the address was seen", w.link, e.text("addr"), at.Sub(came).Round(time.Microsecond))
	}
	for dst, want := range map[netip.Addr]netip.Addr{nstest.ServerV4(1): shared4, nstest.ServerV6(1): shared6} {
		eventually(w.t, "flows leave from the shared address", func() bool { // neighbours learn of it
			source, err := w.sourceOf(at(dst, 4000))
			return err == nil && source == want
		})
	}
}

// hasShared reports whether both shared addresses are on the host.
func (w *twin) hasShared() bool {
	var text string
	err := w.Proxy.Do(func() error {
		addrs, err := net.InterfaceAddrs()
		text = fmt.Sprint(addrs)
		return err
	})
	return err == nil && strings.Contains(text, shared4.String()+"/") && strings.Contains(text, shared6.String()+"/")
}
