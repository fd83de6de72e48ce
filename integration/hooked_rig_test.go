//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// hooked is a topology with a cgroup for programs of the proxy host, and the hooks that rule them.
type hooked struct {
	*nstest.Topology
	t     testing.TB
	group *cgroup.Group
	plane *cgroupbpf.Plane
	rules *cgroupbpf.Rules // that it was given last
	leaks *nstest.LeakCounter
}

// newHooked makes the cgroup and loads the hooks; rules and attach then do the rest. The server greets on TCP port 4000,
// and answers datagrams on port 7 with the address and the port that they came from.
func newHooked(t testing.TB) *hooked {
	t.Helper()
	nstest.Need(t, "python3")
	h := &hooked{Topology: nstest.NewTopology(t), t: t, group: newGroup(t), plane: loadPlane(t, nil)}
	for _, wild := range []string{"0.0.0.0", "[::]"} {
		h.Server.GreetTCP(t, wild+":4000")
		h.Server.ServeUDP(t, wild+":7", whence)
	}
	h.leaks = h.Server.CountLeaks(t, "wan0")
	return h
}

// whence answers with where a datagram came from.
func whence(peer, _ netip.AddrPort, _ []byte) []byte { return []byte(peer.String() + "\n") }

// newGroup makes a cgroup below that of the test. It is removed with what is in it.
func newGroup(t testing.TB) *cgroup.Group {
	t.Helper()
	tree, err := cgroup.Mounted()
	if err != nil {
		nstest.Skip(t, err.Error())
	}
	own, err := tree.Own()
	if err != nil {
		t.Fatal(err)
	}
	g, err := cgroup.Create(own, "srcproxy-test-")
	if errors.Is(err, os.ErrPermission) {
		nstest.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Remove(), g.Close()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// loadPlane is cgroupbpf.Load, with a skip where that is not allowed.
func loadPlane(t testing.TB, old *cgroupbpf.Plane) *cgroupbpf.Plane {
	t.Helper()
	p, err := cgroupbpf.Load(old)
	if errors.Is(err, os.ErrPermission) {
		nstest.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// rule compiles rules and gives them to the hooks.
func (h *hooked) rule(o cgroupbpf.Options, otherwise dialer.Use, rules ...dialer.Rule) {
	h.t.Helper()
	table, err := dialer.NewTable(rules, otherwise)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := cgroupbpf.Compile(table, o)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.plane.Set(r); err != nil {
		h.t.Fatal(err)
	}
	h.rules = r
}

// survey tells the hooks where the marks of the rules lead on the proxy host.
func (h *hooked) survey() {
	h.t.Helper()
	err := h.Proxy.Do(func() error {
		routing, err := host.ReadMarks()
		if err != nil {
			return err
		}
		var ways []cgroupbpf.Way
		for _, m := range h.rules.Marks(nil) {
			answer := routing.Leads(host.MarkQuery{Mark: m.Source.Mark, Src: m.Addr, Within: m.Within})
			for dst, leads := range answer.Leads {
				ways = append(ways, cgroupbpf.Way{Mark: m.Source.Mark, Src: m.Addr, Dst: dst, Leads: leads})
			}
		}
		return h.plane.SetWays(ways)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hooked) attach() {
	h.t.Helper()
	if err := h.plane.Attach(h.group, nil); err != nil {
		h.t.Fatal(err)
	}
}

// inside makes cmd start in the cgroup.
func (h *hooked) inside(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: h.group.FD()}
	return cmd
}

// prelude is what all Python programs of these tests begin with. say prints a line, heard the answer of the server.
const prelude = `
import errno, fcntl, os, struct, sys
from socket import *
def say(*what): print(*what, flush=True)
def heard(s):
    s.settimeout(5)
    say(s.recv(100).decode().strip())
def wait():
    say("ready")
    sys.stdin.readline()
def tcp(to, family=AF_INET, protocol=0):
    s = socket(family, SOCK_STREAM, protocol)
    s.connect((to, 4000))
    heard(s)
    return s
def udp(family=AF_INET, port=None, host=""):
    s = socket(family, SOCK_DGRAM)
    if port is not None: s.bind((host, port))
    return s
def connected(to, s):
    s.connect((to, 7))
    s.send(b"who")
    heard(s)
    return s
def sent(to, s):
    s.sendto(b"who", (to, 7))
    heard(s)
    return s
def disconnect(s):
    import ctypes
    if ctypes.CDLL(None, use_errno=True).connect(s.fileno(), struct.pack("H14x", AF_UNSPEC), 16) != 0:
        raise OSError(ctypes.get_errno(), "connect")
def attempt(f, *args):
    try: return f(*args)
    except OSError as e: say(errno.errorcode.get(e.errno, e))
`

// python is a Python program for the cgroup. Errors of the system end it with their name printed.
func (h *hooked) python(code string) *exec.Cmd {
	body := strings.ReplaceAll("\n"+code, "\n", "\n    ")
	return h.inside(exec.Command("python3", "-c", prelude+"def main():"+body+"\nattempt(main)\n"))
}

// run runs a Python program in the cgroup and returns the lines it printed.
func (h *hooked) run(code string) []string {
	h.t.Helper()
	return h.output(h.python(code))
}

func (h *hooked) output(cmd *exec.Cmd) []string {
	h.t.Helper()
	r := h.Proxy.Run(h.t, cmd)
	if r.Err != nil {
		h.t.Fatal(r)
	}
	return strings.Split(strings.TrimSpace(r.Stdout), "\n")
}

// from returns the sources that the far end has seen of packets to dst.
func (h *hooked) from(dst netip.Addr) map[netip.Addr]bool {
	h.t.Helper()
	all := make(map[netip.Addr]bool)
	for p := range h.leaks.Seen(h.t) {
		if p.Dst == dst {
			all[p.Src] = true
		}
	}
	return all
}

// wantFrom fails unless packets to dst came, and from these addresses alone; none wants that no packet came.
func (h *hooked) wantFrom(t testing.TB, dst netip.Addr, want ...netip.Addr) {
	t.Helper()
	got := h.from(dst)
	ok := len(got) == len(want)
	for _, a := range want {
		ok = ok && got[a]
	}
	if !ok {
		t.Errorf("packets to %v came from %v, want %v", dst, got, want)
	}
}

// both is a source with the addresses i of both families.
func both(i int) *dialer.Source {
	return &dialer.Source{Name: fmt.Sprintf("s%d", i), Addrs: []netip.Addr{nstest.ProxyV4(i), nstest.ProxyV6(i)}}
}

func leaveFrom(s *dialer.Source) dialer.Use { return dialer.Use{Source: s} }

// matches makes the matches of addresses and prefixes.
func matches(t testing.TB, list ...any) []dialer.Match {
	t.Helper()
	var all []dialer.Match
	for _, e := range list {
		m, err := dialer.ParseMatch(fmt.Sprint(e))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}
