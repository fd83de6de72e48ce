//go:build linux

package integration

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const steeringConfig = `
default = "deny"
[sources]
plain  = ["198.51.100.10", "2001:db8:1::10"]
device = { ip = ["198.51.100.11", "2001:db8:1::11"], device = "lan0", gateway = ["192.0.2.100", "2001:db8:8::100"] }
mark   = { ip = ["198.51.100.12", "2001:db8:1::12"], mark = 7, gateway = ["192.0.2.100", "2001:db8:8::100"] }
ports  = { ip = "198.51.100.11", device = "lan0", gateway = "192.0.2.100", ports = "40000-40009" }
[[rules]]
port = [80, 180]
use  = "plain"
[[rules]]
port = [81, 181]
use  = "device"
[[rules]]
port = [82, 182]
use  = "mark"
[[rules]]
port = [83, 183]
use  = "ports"
[[listen]]
mixed = "127.0.0.1:1080"
[[listen]]
udp = "127.0.0.1:5300"
to  = "203.0.113.1:180"
[[listen]]
udp = "127.0.0.1:5301"
to  = "203.0.113.1:181"
[[listen]]
udp = "127.0.0.1:5302"
to  = "203.0.113.1:182"
[[listen]]
udp = "127.0.0.1:5303"
to  = "203.0.113.1:183"
[[listen]]
udp = "127.0.0.1:5304"
to  = "[2001:db8:2::1]:181"
`

// twoWays makes the client a second provider: it has the address of the server, too. The
// first one has the default route; the second one a default route of a high metric,
// which counts for sockets of its device, and one in a table for the mark 7.
func twoWays(t *testing.T) (r *rig, second *nstest.Namespace) {
	t.Helper()
	nstest.Need(t, "ip")
	r = newRig(t, nstest.WithClient)
	second, r.Client = r.Client, nil
	r.Proxy.Sysctl(t, "net.ipv4.ip_local_port_range", "32768 60999")
	for _, way := range []struct {
		n     *nstest.Namespace
		lines string
	}{
		{second, `addr add 203.0.113.1/32 dev lo
			-6 addr add 2001:db8:2::1/128 dev lo nodad
			route add 198.51.100.0/24 via 192.0.2.1
			-6 route add 2001:db8:1::/64 via 2001:db8:8::1`},
		{r.Proxy, `route add default via 192.0.2.100 dev lan0 metric 9999
			-6 route add default via 2001:db8:8::100 dev lan0 metric 9999
			route add default via 192.0.2.100 dev lan0 table 107
			-6 route add default via 2001:db8:8::100 dev lan0 table 107
			rule add fwmark 7 lookup 107
			-6 rule add fwmark 7 lookup 107`},
	} {
		for line := range strings.Lines(way.lines) {
			if res := way.n.Run(t, r.command("ip", strings.Fields(line)...)); res.Err != nil {
				t.Fatalf("ip %s: %v", line, res)
			}
		}
	}
	for _, name := range []string{"all", "lan0", "wan0"} {
		r.Proxy.Sysctl(t, "net.ipv4.conf."+name+".rp_filter", "0")
	}
	return r, second
}

// provider is a far end that says its name and who asks.
func provider(t *testing.T, n *nstest.Namespace, name string) {
	t.Helper()
	tell := func(peer net.Addr) string {
		p := netip.MustParseAddrPort(peer.String())
		return name + " " + p.Addr().Unmap().String()
	}
	for _, wild := range []string{"0.0.0.0", "[::]"} {
		for port := 80; port <= 83; port++ {
			n.ServeTCP(t, fmt.Sprintf("%s:%d", wild, port), func(c *net.TCPConn) {
				_, _ = fmt.Fprintln(c, tell(c.RemoteAddr())) // the client says what it got
			})
			n.ServeUDP(t, fmt.Sprintf("%s:%d", wild, 100+port), func(peer, _ netip.AddrPort, _ []byte) []byte {
				return []byte(tell(net.UDPAddrFromAddrPort(peer)))
			})
		}
	}
}

// TestSteering sends by the device and by the mark of a source: over TCP, over UDP
// forwards and over associations, in both families, what has neither takes the other way.
func TestSteering(t *testing.T) {
	r, second := twoWays(t)
	provider(t, r.Server, "first")
	provider(t, second, "second")
	r.serve(steeringConfig)
	want := []string{"first 198.51.100.10", "second 198.51.100.11", "second 198.51.100.12", "second 198.51.100.11"}
	want6 := []string{"first 2001:db8:1::10", "second 2001:db8:1::11", "second 2001:db8:1::12"}
	a := r.associate()
	for round := range 3 { // of UDP, so that what there is is used again
		for i, want := range want {
			r.wantWay(t, a, nstest.ServerV4(1), uint16(80+i), want)
			u := r.dialUDP(fmt.Sprintf("127.0.0.1:%d", 5300+i))
			if got := toldUDP(t, u, "who am I"); got != want {
				t.Errorf("round %d: the UDP forward %d took %q, want %q", round, i, got, want)
			}
		}
		for i, want := range want6 {
			r.wantWay(t, a, nstest.ServerV6(1), uint16(80+i), want)
		}
	}
	if got := toldUDP(t, r.dialUDP("127.0.0.1:5304"), "who am I"); got != want6[1] {
		t.Errorf("the UDP forward to IPv6 took %q, want %q", got, want6[1])
	}
}

// wantWay asks dst by CONNECT and by an association.
func (r *rig) wantWay(t *testing.T, a *association, dst netip.Addr, port uint16, want string) {
	t.Helper()
	c, err := r.through("127.0.0.1:1080", at(dst, port))
	if err != nil {
		t.Fatal(err)
	}
	if got := greeting(t, c); got != want {
		t.Errorf("CONNECT to %v took %q, want %q", at(dst, port), got, want)
	}
	if got, err := a.ask(at(dst, 100+port), "who am I", patience); err != nil || got != want {
		t.Errorf("a datagram to %v took %q, %v, want %q", at(dst, 100+port), got, err, want)
	}
}

// TestSteeringWithoutRights has no capability: a device needs none, and who has a mark is
// told what is missing, while nothing leaves by the other way.
func TestSteeringWithoutRights(t *testing.T) {
	nstest.Need(t, "setpriv")
	r, second := twoWays(t)
	provider(t, r.Server, "first")
	provider(t, second, "second")
	r.wrap = []string{"setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-net_raw,-net_admin"}
	r.serve(steeringConfig)
	leaks := r.Server.CountLeaks(t, "wan0")
	a := r.associate()
	r.wantWay(t, a, nstest.ServerV4(1), 81, "second 198.51.100.11")
	if _, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), 82)); err != refused(replyNetwork) {
		t.Errorf("with a mark: %v, want %v", err, refused(replyNetwork))
	}
	if err := a.send(at(nstest.ServerV4(1), 182), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.dialUDP("127.0.0.1:5302").Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	told := func() (n int) {
		lines, _ := r.log.with("flow")
		for _, l := range lines {
			if strings.Contains(l.text("err"), "mark 7 needs CAP_NET_ADMIN or CAP_NET_RAW") {
				n++
			}
		}
		return n
	}
	eventually(t, "TCP, the association and the forward are told", func() bool { return told() == 3 })
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets left by the other way: %q", n, details)
	}
	args := slices.Concat(r.wrap[1:], []string{r.binary.Build(t), "check", "-c", r.path("config.toml")})
	if got := r.run(r.wrap[0], args...); !strings.Contains(got.Stdout+got.Stderr, `source "mark" has a mark, which needs CAP_NET_ADMIN or CAP_NET_RAW; this process has neither`) {
		t.Errorf("check: %v", got)
	}
}
