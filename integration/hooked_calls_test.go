//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// call is a row of what programs do: a Python program, in which D is a destination of its own, and what has to come of it.
type call struct {
	name string
	v6   bool
	code string
	// want are the lines it prints; S and K stand for the rules' source and the kernel's choice.
	want []string
	// kernel: the hooks miss this. The far end sees the kernel's choice.
	kernel bool
	// none: nothing must reach the far end.
	none bool
}

// reachedCalls are those of mechanisms A1 that hooks reach.
var reachedCalls = []call{
	{name: "TCP", code: `say(tcp(D).getsockname()[0])`, want: []string{"S", "S"}},
	{name: "TCP", v6: true, code: `say(tcp(D, AF_INET6).getsockname()[0])`, want: []string{"S", "S"}},
	{name: "TCP to a mapped address", code: `say(tcp("::ffff:" + D, AF_INET6).getsockname()[0])`, want: []string{"S", "::ffff:S"}},
	{name: "UDP connected", code: `say(connected(D, udp()).getsockname()[0])`, want: []string{"S:*", "S"}},
	{name: "UDP connected", v6: true, code: `say(connected(D, udp(AF_INET6)).getsockname()[0])`, want: []string{"[S]:*", "S"}},
	{name: "UDP connected to a mapped address", code: `say(connected("::ffff:" + D, udp(AF_INET6)).getsockname()[0])`, want: []string{"S:*", "::ffff:S"}},
	{name: "UDP sendto", code: `say(sent(D, udp()).getsockname()[0])`, want: []string{"S:*", "0.0.0.0"}},
	{name: "UDP sendto", v6: true, code: `say(sent(D, udp(AF_INET6)).getsockname()[0])`, want: []string{"[S]:*", "::"}},
	{name: "UDP sendto a mapped address", code: `say(sent("::ffff:" + D, udp(AF_INET6)).getsockname()[0])`, want: []string{"S:*", "::"}},
	{name: "UDP sendto from a bound port", code: `sent(D, udp(port=6060))`, want: []string{"S:6060"}},
	{name: "UDP sendto from a bound port", v6: true, code: `sent(D, udp(AF_INET6, 6060))`, want: []string{"[S]:6060"}},
	{name: "MPTCP", code: `tcp(D, protocol=262)`, want: []string{"S"}},
	{name: "MPTCP", v6: true, code: `tcp(D, AF_INET6, 262)`, want: []string{"S"}},
	{name: "TCP fast open", code: `
s = socket(AF_INET, SOCK_STREAM)
s.sendto(b"x", MSG_FASTOPEN, (D, 4000))
say(s.makefile().readline().strip())`, want: []string{"S"}},
	{name: "TCP fast open", v6: true, code: `
s = socket(AF_INET6, SOCK_STREAM)
s.sendto(b"x", MSG_FASTOPEN, (D, 4000))
say(s.makefile().readline().strip())`, want: []string{"S"}},
	{name: "ping socket connected", code: `
s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
s.connect((D, 0))
s.send(struct.pack("!BBHHH", 8, 0, 0, 0, 1))
say(s.getsockname()[0])`, want: []string{"S"}},
	{name: "ping socket connected", v6: true, code: `
s = socket(AF_INET6, SOCK_DGRAM, getprotobyname("ipv6-icmp"))
s.connect((D, 0))
s.send(struct.pack("!BBHHH", 128, 0, 0, 0, 1))
say(s.getsockname()[0])`, want: []string{"S"}},
	{name: "TCP without waiting", code: `
s = socket(AF_INET, SOCK_STREAM)
s.setblocking(False)
say(errno.errorcode[s.connect_ex((D, 4000))])
heard(s)`, want: []string{"EINPROGRESS", "S"}},
	{name: "TCP connected again after a refusal", code: `
s = socket(AF_INET, SOCK_STREAM)
say(errno.errorcode[s.connect_ex((D, 4999))])
s.connect((D, 4000))
heard(s)`, want: []string{"ECONNREFUSED", "S"}},
}

// ownCalls are those in which the program itself says where it wants to leave from. K is an address that no rule names.
var ownCalls = []call{
	{name: "TCP bound to an address", code: `
s = socket(AF_INET, SOCK_STREAM)
s.bind((K, 0))
s.connect((D, 4000))
heard(s)`, want: []string{"K"}, kernel: true},
	{name: "TCP bound to an address", v6: true, code: `
s = socket(AF_INET6, SOCK_STREAM)
s.bind((K, 0))
s.connect((D, 4000))
heard(s)`, want: []string{"K"}, kernel: true},
	{name: "TCP bound to an address and no port yet", code: `
s = socket(AF_INET, SOCK_STREAM)
s.setsockopt(IPPROTO_IP, 24, 1)
s.bind((K, 0))
s.connect((D, 4000))
heard(s)`, want: []string{"K"}, kernel: true},
	{name: "TCP bound to an address and no port yet", v6: true, code: `
s = socket(AF_INET6, SOCK_STREAM)
s.setsockopt(IPPROTO_IP, 24, 1)
s.bind((K, 0))
s.connect((D, 4000))
heard(s)`, want: []string{"K"}, kernel: true},
	{name: "UDP bound to an address, connected", code: `connected(D, udp(port=0, host=K))`, want: []string{"K:*"}, kernel: true},
	{name: "UDP bound to an address, sendto", code: `sent(D, udp(port=0, host=K))`, want: []string{"K:*"}, kernel: true},
	{name: "UDP bound to an address, sendto", v6: true, code: `sent(D, udp(AF_INET6, 0, K))`, want: []string{"[K]:*"}, kernel: true},
	{name: "UDP bound to a mapped address, sendto", code: `sent("::ffff:" + D, udp(AF_INET6, 0, "::ffff:" + K))`, want: []string{"K:*"}, kernel: true},
	{name: "UDP with a packet info", code: `
s = udp()
s.sendmsg([b"who"], [(IPPROTO_IP, 8, struct.pack("i4s4s", 0, inet_aton(K), bytes(4)))], 0, (D, 7))
heard(s)`, want: []string{"K:*"}, kernel: true},
	{name: "UDP with a packet info", v6: true, code: `
s = udp(AF_INET6)
s.sendmsg([b"who"], [(IPPROTO_IPV6, IPV6_PKTINFO, inet_pton(AF_INET6, K) + struct.pack("i", 0))], 0, (D, 7))
heard(s)`, want: []string{"[K]:*"}, kernel: true},
}

// missedCalls are those that hooks cannot reach: when a kernel changes that, these rows tell.
var missedCalls = []call{
	{name: "raw", code: `
s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)
s.sendto(struct.pack("!BBHHH", 8, 0, 0xf7fe, 0, 1), (D, 0))
say("sent")`, want: []string{"sent"}, kernel: true},
	{name: "raw", v6: true, code: `
s = socket(AF_INET6, SOCK_RAW, getprotobyname("ipv6-icmp"))
s.sendto(struct.pack("!BBHHH", 128, 0, 0, 0, 1), (D, 0))
say("sent")`, want: []string{"sent"}, kernel: true},
	{name: "raw connected", code: `
s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)
s.connect((D, 0))
s.send(struct.pack("!BBHHH", 8, 0, 0xf7fe, 0, 1))
say("sent")`, want: []string{"sent"}, kernel: true},
	{name: "ping socket not connected", code: `
s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
s.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1), (D, 0))
say("sent")`, want: []string{"sent"}, kernel: true},
	{name: "ping socket not connected", v6: true, code: `
s = socket(AF_INET6, SOCK_DGRAM, getprotobyname("ipv6-icmp"))
s.sendto(struct.pack("!BBHHH", 128, 0, 0, 0, 1), (D, 0))
say("sent")`, want: []string{"sent"}, kernel: true},
}

// heldCalls ask for what a hook cannot do: they are refused, and nothing leaves.
var heldCalls = []call{
	{name: "TCP from a bound port", code: `
s = socket(AF_INET, SOCK_STREAM)
s.bind(("", 4445))
s.connect((D, 4000))`, want: []string{"EPERM"}, none: true},
	{name: "TCP from a bound port", v6: true, code: `
s = socket(AF_INET6, SOCK_STREAM)
s.bind(("", 4445))
s.connect((D, 4000))`, want: []string{"EPERM"}, none: true},
	{name: "UDP connected from a bound port", code: `connected(D, udp(port=6061))`, want: []string{"EPERM"}, none: true},
	{name: "UDP connected from a bound port", v6: true, code: `connected(D, udp(AF_INET6, 6061))`, want: []string{"EPERM"}, none: true},
	{name: "UDP connected to a mapped address from a bound port", code: `connected("::ffff:" + D, udp(AF_INET6, 6061))`, want: []string{"EPERM"}, none: true},
}

// TestKernelPlaneCalls runs every way in which programs leave a host, and looks at the far end where they came from.
func TestKernelPlaneCalls(t *testing.T) {
	h := newHooked(t)
	h.Proxy.Sysctl(t, "net.ipv4.ping_group_range", "0 2147483647")
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	four, six := 0, 0
	for _, c := range slices.Concat(reachedCalls, ownCalls, missedCalls, heldCalls) {
		dst, src, kernel := nstest.ServerV4(100+four), nstest.ProxyV4(10), nstest.ProxyV4(1)
		if c.v6 {
			dst, src, kernel = nstest.ServerV6(1+six), nstest.ProxyV6(10), nstest.ProxyV6(1)
			six++
		} else {
			four++
		}
		family := map[bool]string{false: "v4", true: "v6"}[c.v6]
		t.Run(c.name+" "+family, func(t *testing.T) {
			got := h.run(fmt.Sprintf("D, K = %q, %q\n%s", dst, kernel, c.code))
			checkLines(t, got, c.want, src, kernel)
			switch {
			case c.none:
				h.wantFrom(t, dst)
			case c.kernel:
				h.wantFrom(t, dst, kernel)
			default:
				h.wantFrom(t, dst, src)
			}
		})
	}
}

// checkLines compares lines with what a row wants; an asterisk at the end is any port.
func checkLines(t *testing.T, got, want []string, src, kernel netip.Addr) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("printed %q, want %q", got, want)
		return
	}
	for i, w := range want {
		if w = strings.ReplaceAll(w, "K", kernel.String()); !strings.HasPrefix(w, "E") {
			w = strings.ReplaceAll(w, "S", src.String())
		}
		prefix, any := strings.CutSuffix(w, "*")
		if got[i] != w && (!any || !strings.HasPrefix(got[i], prefix)) {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
}

// TestKernelPlaneUring connects and sends by io_uring(7), also by its workers.
func TestKernelPlaneUring(t *testing.T) {
	nstest.Need(t, "cc")
	h := newHooked(t)
	program := filepath.Join(t.TempDir(), "uring")
	if out, err := exec.Command("cc", "-o", program, "testdata/uring.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	for i, op := range []string{"connect", "connect-async", "sendmsg"} {
		port, dst := "4000", nstest.ServerV4(1+i)
		if op == "sendmsg" {
			port = "7"
		}
		if got := h.output(h.inside(exec.Command(program, op, dst.String(), port))); !strings.HasPrefix(got[0], nstest.ProxyV4(10).String()) {
			t.Errorf("%s: the server saw %q, want %v", op, got, nstest.ProxyV4(10))
		}
		h.wantFrom(t, dst, nstest.ProxyV4(10))
	}
}

// TestKernelPlaneOneSocketManySources sends from one socket to three destinations, which have a source each.
func TestKernelPlaneOneSocketManySources(t *testing.T) {
	h := newHooked(t)
	var rules []dialer.Rule
	for i := range 3 {
		rules = append(rules, dialer.Rule{To: matches(t, nstest.ServerV4(1+i), nstest.ServerV6(1+i)), Use: leaveFrom(both(10 + i))})
	}
	h.rule(cgroupbpf.Options{}, dialer.Use{}, rules...)
	h.attach()
	for _, tt := range []struct{ socket, dst string }{
		{"udp(AF_INET, 6070)", "203.0.113.%d"},
		{"udp(AF_INET6, 6070)", "2001:db8:2::%d"},
		{"udp(AF_INET6, 6070)", "::ffff:203.0.113.%d"},
	} {
		got := h.run(fmt.Sprintf("s = %s\nfor i in 1, 2, 3, 1: sent(%q %% i, s)", tt.socket, tt.dst))
		for i, n := range []int{10, 11, 12, 10} {
			want := netip.AddrPortFrom(nstest.ProxyV4(n), 6070)
			if strings.HasPrefix(tt.dst, "2001") {
				want = netip.AddrPortFrom(nstest.ProxyV6(n), 6070)
			}
			if i >= len(got) || got[i] != want.String() {
				t.Fatalf("%s to %s: the server saw %q, want %v at %d", tt.socket, tt.dst, got, want, i)
			}
		}
	}
}
