//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// talk is a Python program that waits for a line at each wait().
type talk struct {
	t    testing.TB
	proc *nstest.Process
	in   io.Writer
	out  *bufio.Scanner
}

// start starts the program, in the cgroup or outside.
func (h *hooked) start(code string, inside bool) *talk {
	h.t.Helper()
	cmd := h.python(code)
	if !inside {
		cmd.SysProcAttr = nil
	}
	return startTalk(h.t, h.Proxy, cmd)
}

// startTalk starts such a program in a namespace.
func startTalk(t testing.TB, n *nstest.Namespace, cmd *exec.Cmd) *talk {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &talk{t: t, in: in, out: bufio.NewScanner(out)}
	p.proc = n.Start(t, cmd)
	return p
}

// line is the next line the program prints.
func (p *talk) line() string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("the program ended: %v", p.out.Err())
	}
	return p.out.Text()
}

// goes lets the program go on after a wait().
func (p *talk) goes() {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// move puts the program into a cgroup.
func (p *talk) move(dir string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, p.proc.Pid()), 0); err != nil {
		p.t.Fatal(err)
	}
}

// sockets makes one of each kind, waits, and then uses them.
const sockets = `
t, u, c = socket(AF_INET, SOCK_STREAM), udp(), udp()
c.connect(("203.0.113.%[1]d", 7))
wait()
t.connect(("203.0.113.%[1]d", 4000))
heard(t)
sent("203.0.113.%[1]d", u)
c.send(b"who")
heard(c)
tcp("203.0.113.%[1]d")`

// TestKernelPlaneMoments attaches, enters and leaves in the middle: what counts is the cgroup of the socket when it was
// made, and for connected sockets what was attached when they were connected.
func TestKernelPlaneMoments(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	s, k := nstest.ProxyV4(10).String(), nstest.ProxyV4(1).String()
	check := func(t *testing.T, p *talk, want ...string) {
		t.Helper()
		p.goes()
		for i, w := range want {
			if got, _, _ := strings.Cut(p.line(), ":"); got != w {
				t.Errorf("call %d came from %s, want %s", i, got, w)
			}
		}
	}
	t.Run("sockets made before attach", func(t *testing.T) {
		p := h.start(fmt.Sprintf(sockets, 1), true)
		p.line()
		h.attach()
		check(t, p, s, s, k, s)
	})
	t.Run("sockets made outside", func(t *testing.T) {
		p := h.start(fmt.Sprintf(sockets, 2), false)
		p.line()
		p.move(h.group.Path())
		check(t, p, k, k, k, s)
	})
	t.Run("process moved out", func(t *testing.T) {
		p := h.start(fmt.Sprintf(sockets, 3), true)
		p.line()
		p.move(filepath.Dir(h.group.Path()))
		check(t, p, s, s, s, k)
	})
	t.Run("cgroup below", func(t *testing.T) {
		below, err := cgroup.Create(h.group.Path(), "below-")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(below.Remove(), below.Close()); err != nil {
				t.Error(err)
			}
		}()
		p := h.start("wait()\ntcp(\"203.0.113.4\")\nsent(\"203.0.113.4\", udp())", false)
		p.line()
		p.move(below.Path())
		check(t, p, s, s)
		p.proc.Kill()
	})
	t.Run("after detach", func(t *testing.T) {
		if err := h.plane.Detach(h.group); err != nil {
			t.Fatal(err)
		}
		if there, err := h.plane.Attached(h.group); there || err != nil {
			t.Errorf("attached: %v, %v", there, err)
		}
		h.says(t, `tcp("203.0.113.5")`, k)
	})
}

// TestKernelPlaneNested has hooks on a cgroup and on one below: the inner ones choose, and both may refuse.
func TestKernelPlaneNested(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)), dialer.Rule{To: matches(t, nstest.ServerV4(9)), Use: dialer.Use{}})
	h.attach()
	below, err := cgroup.Create(h.group.Path(), "below-")
	if err != nil {
		t.Fatal(err)
	}
	inner := &hooked{Topology: h.Topology, t: t, group: below, plane: loadPlane(t, nil), leaks: h.leaks}
	t.Cleanup(func() {
		if err := errors.Join(below.Remove(), below.Close()); err != nil {
			t.Error(err)
		}
	})
	inner.rule(cgroupbpf.Options{}, leaveFrom(both(20)))
	inner.attach()
	inner.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(20).String())
	inner.says(t, `sent("2001:db8:2::1", udp(AF_INET6, 6090))`, at6(20, 6090))
	inner.says(t, `sent("203.0.113.1", udp(port=6090))`, at4(20, 6090))
	inner.says(t, `tcp("203.0.113.9")`, "EPERM")
	h.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(10).String())
}

// TestKernelPlaneLeavesAlone: loopback, link-local addresses and groups are the kernel's, unless a rule lies inside.
func TestKernelPlaneLeavesAlone(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, dialer.Use{}, dialer.Rule{To: matches(t, "0.0.0.0/0", "::/0"), Use: leaveFrom(both(10))})
	h.attach()
	h.Proxy.EchoUDP(t, "0.0.0.0:7")
	h.Proxy.EchoUDP(t, "[::]:7")
	const local = `
for to, family in ("127.0.0.1", AF_INET), ("0.0.0.0", AF_INET), ("::1", AF_INET6), ("::", AF_INET6), ("::ffff:127.0.0.1", AF_INET6):
    s = udp(family)
    s.connect((to, 7))
    say(s.getsockname()[0])
    sent(to, udp(family))`
	h.says(t, local, "127.0.0.1", "who", "127.0.0.1", "who", "::1", "who", "::1", "who", "::ffff:127.0.0.1", "who")
	group, broadcast := netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("198.51.100.255")
	const groups = `
s = udp()
s.setsockopt(SOL_SOCKET, SO_BROADCAST, 1)
s.sendto(b"x", ("239.1.2.3", 9))
s.sendto(b"x", ("198.51.100.255", 9))
s = udp(AF_INET6)
s.setsockopt(IPPROTO_IPV6, IPV6_MULTICAST_IF, if_nametoindex("wan0"))
s.sendto(b"x", ("ff05::1234", 9))
say("sent")`
	h.says(t, groups, "sent")
	h.wantFrom(t, group, nstest.ProxyV4(1))
	h.wantFrom(t, broadcast, nstest.ProxyV4(10)) // that a network ends there is not to be seen from an address
	if h.from(netip.MustParseAddr("ff05::1234"))[nstest.ProxyV6(10)] {
		t.Error("a group of IPv6 was ruled")
	}
	h.rule(cgroupbpf.Options{}, dialer.Use{},
		dialer.Rule{To: matches(t, "239.1.0.0/16", "127.0.0.0/8", "ff05::/16"), Use: leaveFrom(both(11))},
		dialer.Rule{Use: leaveFrom(both(10))})
	h.says(t, groups, "sent")
	h.wantFrom(t, group, nstest.ProxyV4(1), nstest.ProxyV4(11))
	if !h.from(netip.MustParseAddr("ff05::1234"))[nstest.ProxyV6(11)] {
		t.Error("a group of IPv6 that a rule names was not ruled")
	}
	h.says(t, "s = udp()\ns.connect((\"127.0.0.1\", 7))\nsay(s.getsockname()[0])", nstest.ProxyV4(11).String())
}

// TestKernelPlaneAnyIP has sources of a prefix that is local as a whole, on no link.
func TestKernelPlaneAnyIP(t *testing.T) {
	nstest.Need(t, "ip")
	h := newHooked(t)
	if r := h.Proxy.Run(t, exec.Command("ip", "route", "add", "local", "192.0.2.0/28", "dev", "lo")); r.Err != nil {
		t.Fatal(r)
	}
	if r := h.Server.Run(t, exec.Command("ip", "route", "add", "192.0.2.0/28", "via", nstest.ProxyV4(1).String())); r.Err != nil {
		t.Fatal(r)
	}
	any := &dialer.Source{Name: "any", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8:64::7")}}
	h.rule(cgroupbpf.Options{}, leaveFrom(any))
	h.attach()
	h.says(t, `tcp("203.0.113.1")`, "192.0.2.7")
	h.says(t, `sent("203.0.113.1", udp(port=6060))`, "192.0.2.7:6060")
	h.says(t, `sent("2001:db8:2::1", udp(AF_INET6, 6060))`, "[2001:db8:64::7]:6060")
	// A hook cannot bind freely: IPv6 needs the sysctl.
	h.says(t, `tcp("2001:db8:2::2", AF_INET6)`, "EADDRNOTAVAIL")
	h.wantFrom(t, nstest.ServerV6(2))
	h.Proxy.Sysctl(t, "net.ipv6.ip_nonlocal_bind", "1")
	h.says(t, `tcp("2001:db8:2::2", AF_INET6)`, "2001:db8:64::7")
}

// TestKernelPlanePorts holds 1,000 connections to 20 destinations with 100 ports: a hook does not take a port for itself.
func TestKernelPlanePorts(t *testing.T) {
	h := newHooked(t)
	h.Proxy.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40099")
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	h.says(t, `
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
all = []
for i in range(1000):
    s = socket(AF_INET, SOCK_STREAM)
    s.connect(("203.0.113.%d" % (1 + i % 20), 4000))
    all.append(s)
say(len(all), {s.getsockname()[0] for s in all})`, "1000 {'198.51.100.10'}")
}
