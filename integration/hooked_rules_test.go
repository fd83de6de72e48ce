//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// says runs a Python program and compares what it prints.
func (h *hooked) says(t testing.TB, code string, want ...string) {
	t.Helper()
	if got := h.run(code); !slices.Equal(got, want) {
		t.Errorf("%s\nprinted %q, want %q", strings.TrimSpace(code), got, want)
	}
}

// at4 and at6 are an address of the proxy host and a port as the server prints them.
func at4(i, port int) string { return fmt.Sprintf("%v:%d", nstest.ProxyV4(i), port) }
func at6(i, port int) string { return fmt.Sprintf("[%v]:%d", nstest.ProxyV6(i), port) }

// TestKernelPlaneClassicRule is what iptables says as "-p udp -d D --sport 5060 -j SNAT --to-source S".
func TestKernelPlaneClassicRule(t *testing.T) {
	h := newHooked(t)
	trunk := dialer.Rule{
		Protocol: "udp", To: matches(t, nstest.ServerV4(5), nstest.ServerV6(5)),
		LocalPort: []dialer.PortRange{{Lo: 5060, Hi: 5060}}, Use: leaveFrom(both(30)),
	}
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)), trunk)
	h.attach()
	h.says(t, `sent("203.0.113.5", udp(port=5060))`, at4(30, 5060))
	h.says(t, `sent("::ffff:203.0.113.5", udp(AF_INET6, 5060))`, at4(30, 5060))
	h.says(t, `sent("2001:db8:2::5", udp(AF_INET6, 5060))`, at6(30, 5060))
	h.says(t, `sent("203.0.113.5", udp(port=5070))`, at4(10, 5070))
	h.says(t, `sent("203.0.113.6", udp(port=5060))`, at4(10, 5060))
	h.says(t, `sent("2001:db8:2::6", udp(AF_INET6, 5060))`, at6(10, 5060))
	// An address of its own counts, unless the rules override it: then answers find no socket.
	h.says(t, `sent("203.0.113.5", udp(port=5060, host="198.51.100.20"))`, at4(20, 5060))
	h.rule(cgroupbpf.Options{Override: true}, leaveFrom(both(10)), trunk)
	h.says(t, "s = udp(port=5060, host=\"198.51.100.20\")\ns.sendto(b\"x\", (\"203.0.113.15\", 7))\nsay(\"sent\")", "sent")
	h.wantFrom(t, nstest.ServerV4(15), nstest.ProxyV4(10))
	h.says(t, "s = udp(AF_INET6, 5060, \"2001:db8:1::20\")\ns.sendto(b\"x\", (\"2001:db8:2::15\", 7))\nsay(\"sent\")", "sent")
	h.wantFrom(t, nstest.ServerV6(15), nstest.ProxyV6(10))
}

// TestKernelPlaneOverride takes addresses away from programs that bound one: as far as a hook can, else it refuses.
func TestKernelPlaneOverride(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{Override: true}, leaveFrom(both(10)))
	h.attach()
	const bound = `
s = socket(%[1]s, SOCK_STREAM)
s.setsockopt(IPPROTO_IP, 24, %[2]d)
s.bind((%[3]q, 0))
s.connect((%[4]q, 4000))
heard(s)`
	h.says(t, fmt.Sprintf(bound, "AF_INET", 1, nstest.ProxyV4(20), nstest.ServerV4(1)), nstest.ProxyV4(10).String())
	h.says(t, fmt.Sprintf(bound, "AF_INET6", 1, nstest.ProxyV6(20), nstest.ServerV6(1)), nstest.ProxyV6(10).String())
	h.says(t, fmt.Sprintf(bound, "AF_INET", 0, nstest.ProxyV4(20), nstest.ServerV4(2)), "EPERM")
	h.says(t, fmt.Sprintf(bound, "AF_INET6", 0, nstest.ProxyV6(20), nstest.ServerV6(2)), "EPERM")
	h.says(t, fmt.Sprintf(bound, "AF_INET", 0, nstest.ProxyV4(10), nstest.ServerV4(3)), nstest.ProxyV4(10).String())
	h.wantFrom(t, nstest.ServerV4(2))
	h.wantFrom(t, nstest.ServerV6(2))
}

// TestKernelPlaneFixedPort fixes the port that flows leave from.
func TestKernelPlaneFixedPort(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, dialer.Use{}, dialer.Rule{SourcePort: 5060, Use: leaveFrom(both(10))})
	h.attach()
	h.says(t, `say(tcp("203.0.113.1").getsockname())`, nstest.ProxyV4(10).String(), "('198.51.100.10', 5060)")
	h.says(t, `connected("203.0.113.2", udp())`, at4(10, 5060))
	h.says(t, `connected("2001:db8:2::2", udp(AF_INET6))`, at6(10, 5060))
	h.says(t, `connected("::ffff:203.0.113.2", udp(AF_INET6))`, at4(10, 5060))
	h.says(t, `sent("203.0.113.3", udp(port=5060))`, at4(10, 5060))
	// No hook can change the port of a datagram.
	h.says(t, `sent("203.0.113.4", udp())`, "EPERM")
	h.says(t, `sent("2001:db8:2::4", udp(AF_INET6, 5070))`, "EPERM")
	h.wantFrom(t, nstest.ServerV4(4))
	h.wantFrom(t, nstest.ServerV6(4))
}

// TestKernelPlaneReconnects uses one UDP socket for one destination after the other, as getaddrinfo of glibc does.
func TestKernelPlaneReconnects(t *testing.T) {
	h := newHooked(t)
	var rules []dialer.Rule
	for i := range 3 {
		rules = append(rules, dialer.Rule{To: matches(t, nstest.ServerV4(1+i), nstest.ServerV6(1+i)), Use: leaveFrom(both(10 + i))})
	}
	rules = append(rules, dialer.Rule{To: matches(t, nstest.ServerV4(4), nstest.ServerV6(4)), Use: dialer.Use{Kernel: true}})
	h.rule(cgroupbpf.Options{}, dialer.Use{}, rules...)
	h.attach()
	const again = `
s = udp(%[1]s)
for i in %[3]s:
    s.connect((%[2]q %% i, 7))
    say(s.getsockname()[0].removeprefix("::ffff:"))
    connected(%[2]q %% i, s)
    disconnect(s)`
	for _, tt := range []struct {
		family, format string
		address        func(int) netip.Addr
	}{
		{"AF_INET", "203.0.113.%d", nstest.ProxyV4},
		{"AF_INET6", "2001:db8:2::%d", nstest.ProxyV6},
		{"AF_INET6", "::ffff:203.0.113.%d", nstest.ProxyV4},
	} {
		// 1, 2 and 3 have a source each, 4 is left to the kernel: at the beginning, in between and at the end.
		got := h.run(fmt.Sprintf(again, tt.family, tt.format, "1, 2, 4, 3, 1, 4, 4"))
		wants := []int{10, 11, 1, 12, 10, 1, 1}
		if len(got) != 2*len(wants) {
			t.Fatalf("%s: printed %q", tt.format, got)
		}
		for i, n := range wants {
			if want := tt.address(n).String(); got[2*i] != want || !strings.Contains(got[2*i+1], want) {
				t.Errorf("%s: connect %d: from %q, and the server saw %q, want %v", tt.format, i, got[2*i], got[2*i+1], want)
			}
		}
		got = h.run(fmt.Sprintf(again, tt.family, tt.format, "4, 1"))
		if want := tt.address(10).String(); got[2] != want {
			t.Errorf("%s: after one of the kernel's: got %q, want %v", tt.format, got, want)
		}
	}
}

// TestKernelPlaneSendsFromConnected sends from a connected socket to another destination.
func TestKernelPlaneSendsFromConnected(t *testing.T) {
	h := newHooked(t)
	one := dialer.Rule{To: matches(t, nstest.ServerV4(1), nstest.ServerV6(1)), Use: leaveFrom(both(11))}
	kernel := dialer.Rule{To: matches(t, nstest.ServerV4(2), nstest.ServerV6(2)), Use: dialer.Use{Kernel: true}}
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)), one, kernel)
	h.attach()
	const code = `
for first, second, family in (1, 3, %[1]s), (2, 3, %[1]s), (1, 2, %[1]s):
    s = udp(family)
    s.connect((%[2]q %% first, 7))
    s.sendto(b"x", (%[2]q %% (second + 10 * first), 7))
say("sent")`
	for _, tt := range []struct {
		family, format  string
		server, address func(int) netip.Addr
	}{
		{"AF_INET", "203.0.113.%d", nstest.ServerV4, nstest.ProxyV4},
		{"AF_INET6", "2001:db8:2::%d", nstest.ServerV6, nstest.ProxyV6},
	} {
		h.says(t, fmt.Sprintf(code, tt.family, tt.format), "sent")
		for _, dst := range []int{13, 23, 12} {
			h.wantFrom(t, tt.server(dst), tt.address(10))
		}
	}
	// Connected again, without a disconnect in between, the address cannot be changed any more.
	h.says(t, `
s = udp()
s.connect(("203.0.113.1", 7))
attempt(s.connect, ("203.0.113.3", 7))
attempt(s.connect, ("203.0.113.2", 7))
s.connect(("203.0.113.1", 9))
say(s.getsockname()[0])`, "EPERM", "EPERM", nstest.ProxyV4(11).String())
}

// TestKernelPlaneMark lets a socket that holds a port, but no address, leave by a policy route. That of dig is one.
func TestKernelPlaneMark(t *testing.T) {
	nstest.Need(t, "ip", "dig")
	h := newHooked(t)
	names, _ := h.Server.ServeDNSOn(t, nstest.DNSServer(), map[string][]netip.Addr{"a.example": {nstest.ServerV4(9)}})
	dig := func() []string {
		return h.output(h.inside(exec.Command("dig", "+short", "+tries=1", "@"+nstest.DNSServer().String(), "a.example")))
	}
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	if r := h.Proxy.Run(t, h.inside(exec.Command("dig", "+tries=1", "@"+nstest.DNSServer().String(), "a.example"))); !strings.Contains(r.Stdout, "permission denied") || len(names.Peers()) > 0 {
		t.Errorf("dig without a mark: got %v, and the server was asked from %v", r, names.Peers())
	}
	marked := both(10)
	marked.Mark = 107
	h.rule(cgroupbpf.Options{MarkWildcard: true}, leaveFrom(marked), dialer.Rule{To: matches(t, "203.0.113.64/26"), Use: dialer.Use{Kernel: true}})
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
	if got := dig(); got[0] != nstest.ServerV4(9).String() {
		t.Errorf("dig: got %q", got)
	}
	wantSources(t, names, nstest.ProxyV4(10), 1)
	h.says(t, `connected("203.0.113.1", udp(port=5060))`, at4(10, 5060))
	h.says(t, `connected("2001:db8:2::1", udp(AF_INET6, 5060))`, at6(10, 5060))
	h.says(t, `connected("::ffff:203.0.113.2", udp(AF_INET6, 5060))`, at4(10, 5060))
	h.says(t, "s = socket(AF_INET, SOCK_STREAM)\ns.bind((\"\", 4446))\ns.connect((\"203.0.113.3\", 4000))\nheard(s)\nsay(s.getsockname()[1], s.getsockopt(SOL_SOCKET, 36))",
		nstest.ProxyV4(10).String(), "4446 107")
	h.says(t, `say(tcp("203.0.113.4").getsockopt(SOL_SOCKET, 36))`, nstest.ProxyV4(10).String(), "107")
	// What the mark has chosen is not the program's choice, and it goes with the source.
	h.says(t, `
s = connected("203.0.113.5", udp(port=5061))
attempt(s.sendto, b"x", ("203.0.113.65", 7))
attempt(s.connect, ("203.0.113.66", 7))
disconnect(s)
connected("203.0.113.66", s)
say(s.getsockopt(SOL_SOCKET, 36))
disconnect(s)
connected("203.0.113.5", s)`, at4(10, 5061), "EPERM", "EPERM", at4(1, 5061), "0", at4(10, 5061))
	h.wantFrom(t, nstest.ServerV4(65))
}

// TestKernelPlaneFailsClosed refuses: what the rules deny, a family without a source, and an address that is not here.
func TestKernelPlaneFailsClosed(t *testing.T) {
	h := newHooked(t)
	four := &dialer.Source{Name: "four", Addrs: []netip.Addr{nstest.ProxyV4(10)}}
	six := &dialer.Source{Name: "six", Addrs: []netip.Addr{nstest.ProxyV6(10)}}
	foreign := &dialer.Source{Name: "foreign", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8:77::1")}}
	h.rule(cgroupbpf.Options{}, dialer.Use{},
		dialer.Rule{To: matches(t, nstest.ServerV4(1), nstest.ServerV6(1)), Use: dialer.Use{}},
		dialer.Rule{To: matches(t, nstest.ServerV4(2)), Use: leaveFrom(six)},
		dialer.Rule{To: matches(t, nstest.ServerV6(2)), Use: leaveFrom(four)},
		dialer.Rule{To: matches(t, nstest.ServerV4(3), nstest.ServerV6(3)), Use: leaveFrom(foreign)})
	h.attach()
	if err := h.plane.SetState(away{foreign.Addrs[1]: true}); err != nil {
		t.Fatal(err)
	}
	const calls = `
attempt(tcp, %[1]q, %[2]s)
attempt(connected, %[1]q, udp(%[2]s))
attempt(sent, %[1]q, udp(%[2]s))`
	for i, tt := range []struct{ name, four, six string }{
		{"denied", "EPERM EPERM EPERM", "EPERM EPERM EPERM"},
		{"no source of the family", "EADDRNOTAVAIL EADDRNOTAVAIL EADDRNOTAVAIL", "EADDRNOTAVAIL EADDRNOTAVAIL EADDRNOTAVAIL"},
		// Of the IPv4 source the kernel itself finds out.
		{"not here", "EADDRNOTAVAIL EADDRNOTAVAIL ENETUNREACH", "EADDRNOTAVAIL EADDRNOTAVAIL EADDRNOTAVAIL"},
		{"default", "EPERM EPERM EPERM", "EPERM EPERM EPERM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dst4, dst6 := nstest.ServerV4(1+i), nstest.ServerV6(1+i)
			h.says(t, fmt.Sprintf(calls, dst4, "AF_INET"), strings.Fields(tt.four)...)
			h.says(t, fmt.Sprintf(calls, "::ffff:"+dst4.String(), "AF_INET6"), strings.Fields(tt.four)...)
			h.says(t, fmt.Sprintf(calls, dst6, "AF_INET6"), strings.Fields(tt.six)...)
			h.wantFrom(t, dst4)
			h.wantFrom(t, dst6)
		})
	}
	// A program that has bound an address of its own does not need the rules' source, but a deny holds for it as well.
	h.says(t, `attempt(sent, "203.0.113.1", udp(AF_INET, 6080, "198.51.100.20"))`, "EPERM")
	h.says(t, `attempt(connected, "2001:db8:2::1", udp(AF_INET6, 6080, "2001:db8:1::20"))`, "EPERM")
	h.says(t, `attempt(sent, "203.0.113.2", udp(AF_INET, 6080, "198.51.100.20"))`, at4(20, 6080))
	h.says(t, `attempt(connected, "2001:db8:2::2", udp(AF_INET6, 6080, "2001:db8:1::20"))`, at6(20, 6080))
}

// away is a State in which some addresses are down.
type away map[netip.Addr]bool

func (s away) Down(_ *dialer.Source, a netip.Addr) error {
	if s[a] {
		return errors.New("away")
	}
	return nil
}
func (s away) LinkAddr(string, bool) netip.Addr { return netip.Addr{} }
func (s away) Flows(*dialer.Source) int         { return 0 }
