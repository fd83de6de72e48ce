//go:build linux

package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// ends calls End in the namespace of the proxy host, and wants that many sockets of each address to end.
func (h *hooked) ends(want map[netip.Addr]int, addrs ...netip.Addr) {
	h.t.Helper()
	err := h.Proxy.Do(func() error {
		got := h.plane.End(addrs)
		if !maps.Equal(got.Sockets, want) || got.Failed != nil || got.Err != nil {
			h.t.Errorf("End(%v): got %+v, want %v", addrs, got, want)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestKernelPlaneEndSamePort has sockets that share all their addresses (SO_REUSEPORT), of which the kernel knows one at a
// time.
func TestKernelPlaneEndSamePort(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)), dialer.Rule{Protocol: "udp", SourcePort: 5060, To: matches(t, "203.0.113.0/24", "2001:db8:2::/64"), Use: leaveFrom(both(10))})
	h.attach()
	p := h.start(`
all = []
for to, family in ("203.0.113.1", AF_INET), ("2001:db8:2::1", AF_INET6):
    for i in range(5):
        s = socket(family, SOCK_DGRAM)
        s.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        s.connect((to, 7))
        all.append(s)
wait()
say(*[errno.errorcode.get(s.getsockopt(SOL_SOCKET, SO_ERROR), "-") for s in all])`, true)
	p.line()
	four, six := nstest.ProxyV4(10), nstest.ProxyV6(10)
	h.ends(map[netip.Addr]int{four: 5, six: 5}, four, six, nstest.ProxyV4(11))
	h.ends(nil, four, six)
	p.goes()
	if got, want := p.line(), strings.TrimSpace(strings.Repeat("ECONNABORTED ", 10)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKernelPlaneEndMarked ends sockets for which the mark of a source chose the address.
func TestKernelPlaneEndMarked(t *testing.T) {
	nstest.Need(t, "ip")
	h := newHooked(t)
	marked := both(10)
	marked.Mark = 107
	h.rule(cgroupbpf.Options{MarkWildcard: true}, leaveFrom(marked), dialer.Rule{To: matches(t, "203.0.113.64/26"), Use: dialer.Use{Kernel: true}})
	h.attach()
	for _, args := range []string{
		"rule add fwmark 107 lookup 107", "-6 rule add fwmark 107 lookup 107",
		"route add default via 198.51.100.254 src 198.51.100.10 table 107",
		"-6 route add default via 2001:db8:1::254 src 2001:db8:1::10 table 107",
	} {
		if r := h.Proxy.Run(t, exec.Command("ip", strings.Fields(args)...)); r.Err != nil {
			t.Fatal(r)
		}
	}
	h.survey()
	p := h.start(`
all = [connected("203.0.113.1", udp(port=5060)), connected("2001:db8:2::1", udp(AF_INET6, 5061)), connected("203.0.113.65", udp(port=5062))]
wait()
say(*[errno.errorcode.get(s.getsockopt(SOL_SOCKET, SO_ERROR), "-") for s in all])`, true)
	for _, want := range []string{at4(10, 5060), at6(10, 5061), at4(1, 5062), "ready"} {
		if got := p.line(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	h.ends(nil, nstest.ProxyV4(1))
	h.ends(map[netip.Addr]int{nstest.ProxyV4(10): 1}, nstest.ProxyV4(10))
	h.ends(map[netip.Addr]int{nstest.ProxyV6(10): 1}, nstest.ProxyV6(10), nstest.ProxyV6(11))
	p.goes()
	if got, want := p.line(), "ECONNABORTED ECONNABORTED -"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKernelPlaneEndHere has one address in two network namespaces, with programs of one cgroup in both, and one of another
// cgroup with hooks of its own: what has gone from one namespace may be there in the other.
func TestKernelPlaneEndHere(t *testing.T) {
	h := newHooked(t)
	a := netip.MustParseAddr("192.0.2.99")
	h.rule(cgroupbpf.Options{}, leaveFrom(&dialer.Source{Name: "one", Addrs: []netip.Addr{a}}))
	h.attach()
	h.Proxy.EchoUDP(t, "0.0.0.0:7")
	other := &hooked{Topology: h.Topology, t: t, group: newGroup(t), plane: loadPlane(t, nil), leaks: h.leaks}
	other.rule(cgroupbpf.Options{}, leaveFrom(&dialer.Source{Name: "one", Addrs: []netip.Addr{a}}))
	other.attach()
	const code = `
s = udp()
s.connect((%q, 7))
say(s.getsockname()[0])
wait()
say(errno.errorcode.get(s.getsockopt(SOL_SOCKET, SO_ERROR), "-"))`
	h.Server.AddAddr(t, "lo", netip.PrefixFrom(a, 32))
	h.Proxy.AddAddr(t, "lo", netip.PrefixFrom(a, 32))
	here := fmt.Sprintf(code, nstest.ProxyV4(1))
	programs := []*talk{
		h.start(here, true),
		startTalk(t, h.Server, h.python(fmt.Sprintf(code, nstest.ServerV4(1)))),
		other.start(here, true),
	}
	for _, p := range programs {
		if got := p.line(); got != a.String() {
			t.Fatalf("got %s, want %v", got, a)
		}
		p.line()
	}
	h.ends(map[netip.Addr]int{a: 1}, a)
	for i, want := range []string{"ECONNABORTED", "-", "-"} {
		programs[i].goes()
		if got := programs[i].line(); got != want {
			t.Errorf("program %d: got %s, want %s", i, got, want)
		}
	}
}
