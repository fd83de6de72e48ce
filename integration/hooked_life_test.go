//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// mountBPF mounts a BPF file system of the test's own.
func mountBPF(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=755"); err != nil {
		nstest.Skip(t, fmt.Sprintf("no permission to mount a BPF file system: %v", err))
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for those who are not root
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestKernelPlaneOutlivesItsLoader: hooks stay when who loaded them is gone, and the next one takes them over with what
// they know of sockets, while datagrams flow from the right address all the time.
func TestKernelPlaneOutlivesItsLoader(t *testing.T) {
	h := newHooked(t)
	pins := filepath.Join(mountBPF(t), "srcproxy", "one")
	if _, err := cgroupbpf.Open(pins); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Pin: got %v, want %v", err, fs.ErrNotExist)
	}
	h.plane = nil
	for i := range 3 {
		old, err := cgroupbpf.Open(pins)
		if i == 0 {
			old, err = nil, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		h.takeOver(old, pins, 10+i)
		if i == 0 {
			p := h.start("c = connected(\"203.0.113.9\", udp())\nwait()\nc.sendto(b\"x\", (\"203.0.113.8\", 7))\ndisconnect(c)\nconnected(\"203.0.113.7\", c)", true)
			t.Cleanup(func() {
				p.goes()
				p.line()
				h.wantFrom(t, nstest.ServerV4(9), nstest.ProxyV4(10))
				h.wantFrom(t, nstest.ServerV4(8), nstest.ProxyV4(12))
				h.wantFrom(t, nstest.ServerV4(7), nstest.ProxyV4(12))
			})
			p.line()
			p.line()
		}
		h.says(t, fmt.Sprintf(`tcp("203.0.113.%d")`, 1+i), nstest.ProxyV4(10+i).String())
	}
	if err := cgroupbpf.Unpin(pins); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(pins)); err != nil || len(entries) > 0 {
		t.Errorf("left after Unpin: %v, %v", entries, err)
	}
}

// takeOver is a loader that pins what it attaches, and is gone then.
func (h *hooked) takeOver(old *cgroupbpf.Plane, pins string, source int) {
	h.t.Helper()
	p, err := cgroupbpf.Load(old)
	if err != nil {
		h.t.Fatal(err)
	}
	h.plane = p
	h.rule(cgroupbpf.Options{}, leaveFrom(both(source)))
	if err := errors.Join(p.Attach(h.group, old), p.Attach(h.group, old), p.Pin(pins), p.Close()); err != nil {
		h.t.Fatal(err)
	}
	if old == nil {
		return
	}
	if there, err := old.Attached(h.group); there || err != nil {
		h.t.Errorf("the old hooks are still attached: %v, %v", there, err)
	}
	if err := old.Set(nil); err == nil {
		h.t.Error("Set of what Open gave: got no error")
	}
	if err := old.Close(); err != nil {
		h.t.Error(err)
	}
}

// TestKernelPlaneNoGap exchanges hooks and rules under a program that sends all the time.
func TestKernelPlaneNoGap(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	p := h.start(`
say("ready")
import threading
threading.Thread(target=lambda: (sys.stdin.readline(), os._exit(0)), daemon=True).start()
s, s6 = udp(), udp(AF_INET6)
while True:
    s.sendto(b"x", ("203.0.113.1", 9))
    s6.sendto(b"x", ("2001:db8:2::1", 9))
    c = udp()
    c.connect(("203.0.113.1", 9))
    c.send(b"x")
    c.close()`, true)
	p.line()
	old := h.plane
	for i := range 20 {
		h.plane = loadPlane(t, old)
		h.rule(cgroupbpf.Options{}, leaveFrom(both(11+i%4)))
		if err := h.plane.Attach(h.group, old); err != nil {
			t.Fatal(err)
		}
		h.rule(cgroupbpf.Options{}, leaveFrom(both(15+i%4)))
		old = h.plane
	}
	p.goes()
	if err := p.proc.Wait(patience); err != nil {
		t.Error(err)
	}
	var want4, want6 []netip.Addr
	for i := 10; i <= 18; i++ {
		want4, want6 = append(want4, nstest.ProxyV4(i)), append(want6, nstest.ProxyV6(i))
	}
	h.wantFrom(t, nstest.ServerV4(1), want4...)
	h.wantFrom(t, nstest.ServerV6(1), want6...)
}

// TestKernelPlaneWithdraws takes an address away under a socket that sends. The kernel itself would go on with the dead
// IPv6 address.
func TestKernelPlaneWithdraws(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	h.says(t, `sent("2001:db8:2::1", udp(AF_INET6, 6060))`, at6(10, 6060))
	h.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV6(10), 64))
	h.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV4(10), 24))
	h.says(t, `s = udp(AF_INET6); s.sendto(b"x", ("2001:db8:2::2", 7)); say("sent")`, "sent")
	h.wantFrom(t, nstest.ServerV6(2), nstest.ProxyV6(10)) // what SetState is for
	start := time.Now()
	if err := h.plane.SetState(away{nstest.ProxyV6(10): true, nstest.ProxyV4(10): true}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 50*time.Millisecond {
		t.Errorf("SetState took %v, want less than 50 ms", took)
	}
	h.says(t, `attempt(sent, "2001:db8:2::3", udp(AF_INET6))
attempt(sent, "203.0.113.3", udp())
attempt(tcp, "2001:db8:2::3", AF_INET6)
attempt(tcp, "203.0.113.3")`, "EADDRNOTAVAIL", "EADDRNOTAVAIL", "EADDRNOTAVAIL", "EADDRNOTAVAIL")
	h.wantFrom(t, nstest.ServerV6(3))
	h.Proxy.AddAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV6(10), 64))
	if err := h.plane.SetState(away{nstest.ProxyV4(10): true}); err != nil {
		t.Fatal(err)
	}
	h.says(t, `sent("2001:db8:2::4", udp(AF_INET6, 6060))`, at6(10, 6060))
}

// TestKernelPlaneCounts counts by rule, over an exchange of the rules.
func TestKernelPlaneCounts(t *testing.T) {
	h := newHooked(t)
	rules := []dialer.Rule{
		{Name: "one", To: matches(t, nstest.ServerV4(1)), Use: leaveFrom(both(10))},
		{Name: "never", User: []string{"ann"}, Use: leaveFrom(both(10))},
		{Name: "denied", To: matches(t, nstest.ServerV4(2)), Use: dialer.Use{}},
	}
	h.rule(cgroupbpf.Options{}, dialer.Use{Kernel: true}, rules...)
	h.attach()
	const code = `
for i in range(3): connected("203.0.113.1", udp())
s = udp()
for i in range(5): sent("203.0.113.1", s)
attempt(tcp, "203.0.113.2")
attempt(sent, "203.0.113.2", udp())
sent("203.0.113.3", udp())
udp().connect(("127.0.0.1", 9))`
	for round := range uint64(3) {
		h.run(code)
		got, err := h.plane.Counters()
		if err != nil {
			t.Fatal(err)
		}
		n := round + 1
		want := []cgroupbpf.Counter{
			{Rule: "one", Connects: 3 * n, Datagrams: 5 * n},
			{Rule: "denied", Refused: 2 * n},
			{Rule: "default", Datagrams: n},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("round %d (-want +got):\n%s", round, diff)
		}
		if round == 1 {
			slices.Reverse(rules)
			h.rule(cgroupbpf.Options{}, dialer.Use{Kernel: true}, rules...)
			slices.Reverse(rules)
			h.rule(cgroupbpf.Options{}, dialer.Use{Kernel: true}, rules...)
		}
	}
}

// TestKernelPlaneNetns rules one network namespace alone.
func TestKernelPlaneNetns(t *testing.T) {
	h := newHooked(t)
	var cookies []uint64
	for _, n := range []*nstest.Namespace{h.Proxy, h.Server} {
		err := n.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
			cookies = append(cookies, cookie)
			return errors.Join(err, unix.Close(fd))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{10, 1} {
		h.rule(cgroupbpf.Options{Netns: cookies[i]}, leaveFrom(both(10)))
		h.attach()
		h.says(t, fmt.Sprintf(`tcp("203.0.113.%d")`, 1+i), nstest.ProxyV4(want).String())
		h.says(t, fmt.Sprintf(`sent("2001:db8:2::%d", udp(AF_INET6, 6060))`, 1+i), at6(want, 6060))
	}
}
