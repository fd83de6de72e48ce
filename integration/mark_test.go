//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// markConfig gives sockets that hold a port the mark of their source.
const markConfig = `
default = "voip"

[sources]
voip = { ip = ["198.51.100.10", "2001:db8:1::10"], mark = 107 }

[[rules]]
to  = ["203.0.113.32/27", "2001:db8:2::20"]
use = "kernel"

[[attach]]
cgroup        = %q
wildcard_port = "mark"
`

// marked is a rig whose program has attached rules with a mark.
type marked struct {
	*rig
	t      *testing.T
	config string
	dir    string // the cgroup
	ask    *ask   // runs there
	leaks  *nstest.LeakCounter
}

func newMarked(t *testing.T) *marked {
	t.Helper()
	tree := kernelTree(t)
	bpffs(t)
	nstest.Need(t, "ip")
	m := &marked{rig: newRig(t), t: t}
	m.echoes(t)
	m.leaks = m.Server.CountLeaks(t, "wan0")
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.dir, m.config = dir, fmt.Sprintf(markConfig, name)
	m.serve(m.config)
	_, m.ask = m.askIn(t, dir)
	return m
}

// ip changes the routing of the proxy host.
func (m *marked) ip(args string) {
	m.t.Helper()
	if r := m.Proxy.Run(m.t, exec.Command("ip", strings.Fields(args)...)); r.Err != nil {
		m.t.Fatal(r)
	}
}

// The commands of the documentation.
const (
	markRule4  = "rule add fwmark 107 lookup 107"
	markRoute4 = "route add default via 198.51.100.254 src 198.51.100.10 table 107"
	markRule6  = "-6 rule add fwmark 107 lookup 107"
	markRoute6 = "-6 route add default via 2001:db8:1::254 src 2001:db8:1::10 table 107"
)

// becomes waits until a connect of a socket that holds a port has this outcome, and then
// wants it of both protocols.
func (m *marked) becomes(dst netip.Addr, want string) {
	m.t.Helper()
	to := netip.AddrPortFrom(dst, 7)
	eventually(m.t, fmt.Sprintf("%v: %s", dst, want), func() bool { return m.ask.to("held-udp", to) == want })
	m.wants(dst, want)
}

func (m *marked) wants(dst netip.Addr, want string) {
	m.t.Helper()
	for _, kind := range []string{"held-udp", "held-tcp"} {
		if got := m.ask.to(kind, netip.AddrPortFrom(dst, 7)); got != want {
			m.t.Errorf("%s to %v: %s, want %s", kind, dst, got, want)
		}
	}
}

// without is how many packets have come from addresses of no rule, but for those to
// where the rules leave it to the kernel.
func (m *marked) without() []string {
	m.t.Helper()
	m.leaks.Allow(wan4, wan6)
	m.leaks.AllowTo(nstest.ServerV4(40), netip.PrefixFrom(nstest.ProxyV4(1), 32))
	_, details := m.leaks.Leaks(m.t)
	return details
}

// TestMarkLeads refuses sockets that hold a port as long as the policy routes do not give
// their mark the address of the source, in each family for itself, and lets them out with
// nothing but this address when they do.
func TestMarkLeads(t *testing.T) {
	m := newMarked(t)
	four, six := nstest.ServerV4(9), nstest.ServerV6(9)
	m.wants(four, "EPERM")
	m.wants(six, "EPERM")
	status := m.program("status", "--json").Stdout
	for _, want := range []string{
		`mark 107 of source \"voip\" does not lead to 198.51.100.10: towards 0.0.0.0/0 the kernel takes 198.51.100.1 (table main)`,
		"ip rule add fwmark 107 lookup 107 ", "ip route replace default via 198.51.100.254 dev wan0 src 198.51.100.10 table 107",
		"ip -6 rule add fwmark 107 lookup 107 ", "ip -6 route replace default via 2001:db8:1::254 dev wan0 src 2001:db8:1::10 table 107",
	} {
		if !strings.Contains(strings.ReplaceAll(status, `\u0026\u0026`, "&&"), want) {
			t.Errorf("status: got %s, want %q in it", status, want)
		}
	}
	m.ip(markRule4)
	m.wants(four, "EPERM")
	m.ip(markRoute4)
	m.becomes(four, "answered")
	m.wants(six, "EPERM")
	m.wants(nstest.ServerV4(40), "answered") // the rules leave it to the kernel
	if got := m.without(); len(got) > 0 {
		t.Errorf("packets have left: %q", got)
	}
	m.ip(markRule6)
	m.ip(markRoute6)
	m.becomes(six, "answered")
	m.ip(strings.Replace(markRoute4, "add", "del", 1))
	m.becomes(four, "EPERM")
	m.wants(six, "answered")
	m.ip(strings.Replace(markRule6, "add", "del", 1))
	m.becomes(six, "EPERM")
	m.log.wait(t, 2, "a mark leads to its source")
}

// TestMarkCure runs the commands that check, and in the same words doctor, has for marks
// that do not lead to their sources.
func TestMarkCure(t *testing.T) {
	m := newMarked(t)
	const what = "mark 107 of source \"voip\" does not lead to "
	if got := m.program("doctor", "-c", m.path("config.toml")).Stdout; strings.Count(strings.Join(strings.Fields(got), " "), what) != 2 {
		t.Errorf("doctor: got %s, want %q for both families", got, what)
	}
	var report struct {
		Findings []struct {
			Text string
			Cure []string
		}
	}
	findings := func() (found []string, cure []string) {
		t.Helper()
		if err := json.Unmarshal([]byte(m.program("check", "--json", "-c", m.path("config.toml")).Stdout), &report); err != nil {
			t.Fatal(err)
		}
		for _, f := range report.Findings {
			if strings.Contains(f.Text, what) {
				found, cure = append(found, f.Text), append(cure, f.Cure...)
			}
		}
		return found, cure
	}
	found, cure := findings()
	if len(found) != 2 || len(cure) != 4 {
		t.Fatalf("check: got %q, %q, want two commands for each family", found, cure)
	}
	for _, c := range cure {
		m.ip(strings.TrimPrefix(c, "ip "))
	}
	m.becomes(nstest.ServerV4(9), "answered")
	m.becomes(nstest.ServerV6(9), "answered")
	if found, _ := findings(); len(found) != 0 {
		t.Errorf("check after the cure: %q", found)
	}
	if got := m.without(); len(got) > 0 {
		t.Errorf("packets have left: %q", got)
	}
}

// TestMarkPartly judges each destination for itself.
func TestMarkPartly(t *testing.T) {
	m := newMarked(t)
	m.ip(markRule4)
	m.ip(markRoute4)
	four := nstest.ServerV4(9)
	m.becomes(four, "answered")
	for _, tt := range []struct {
		name, add, del string
		refused        []netip.Addr
		answered       []netip.Addr
	}{
		{
			"a route without src", "route add 203.0.113.128/25 via 198.51.100.254 table 107", "route del 203.0.113.128/25 table 107",
			[]netip.Addr{nstest.ServerV4(129)},
			[]netip.Addr{four, nstest.ServerV4(127)},
		},
		{
			"a rule for a destination", "rule add to 203.0.113.9 lookup main priority 50", "rule del priority 50",
			[]netip.Addr{four},
			[]netip.Addr{nstest.ServerV4(10)},
		},
		{
			"a rule for a user", "rule add uidrange 7-7 to 203.0.113.8/29 lookup main priority 50", "rule del priority 50",
			[]netip.Addr{four},
			[]netip.Addr{nstest.ServerV4(16)},
		},
		{
			"a rule for a protocol", "rule add ipproto sctp lookup main priority 50", "rule del priority 50",
			[]netip.Addr{four, nstest.ServerV4(16)},
			nil,
		},
		{
			"a TOS", "route add 203.0.113.9 tos 0x10 via 198.51.100.254 table 107", "route del 203.0.113.9 tos 0x10 table 107",
			[]netip.Addr{four},
			[]netip.Addr{nstest.ServerV4(16)},
		},
		{
			"no route", "route add unreachable 203.0.113.9 table 107", "route del unreachable 203.0.113.9 table 107",
			[]netip.Addr{four},
			[]netip.Addr{nstest.ServerV4(16)},
		},
		{
			"other marks", "rule add fwmark 108 lookup main priority 50", "rule del priority 50",
			nil,
			[]netip.Addr{four, nstest.ServerV4(129)},
		},
		{
			"all but a mark", "rule add not fwmark 108 lookup main priority 50", "rule del priority 50",
			[]netip.Addr{four},
			nil,
		},
		{
			"other sources", "rule add from 198.51.100.11 lookup main priority 50", "rule del priority 50",
			nil,
			[]netip.Addr{four},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.t = t
			m.ip(tt.add)
			for _, a := range tt.refused {
				m.becomes(a, "EPERM")
			}
			for _, a := range tt.answered {
				m.becomes(a, "answered")
			}
			m.ip(tt.del)
			for _, a := range slices.Concat(tt.refused, tt.answered) {
				m.becomes(a, "answered")
			}
		})
	}
	m.t = t
	// What stays on the link has an address of its own in the kernel's table for it, and a socket that is bound to a link
	// is another question.
	got := m.Proxy.Run(t, inGroup(t, m.dir, exec.Command("python3", "-c", `
import socket, errno
def attempt(to, *options):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 0))
    for o in options: s.setsockopt(socket.SOL_SOCKET, *o)
    try:
        s.connect((to, 7))
        print(s.getsockname()[0])
    except OSError as e: print(errno.errorcode[e.errno])
attempt("198.51.100.255", (socket.SO_BROADCAST, 1))
attempt("203.0.113.9", (socket.SO_BINDTODEVICE, b"wan0"))
attempt("198.51.100.11")
attempt("203.0.113.9")
`)))
	if got.Stdout != "EPERM\nEPERM\nEPERM\n198.51.100.10\n" {
		t.Errorf("got %v", got)
	}
}

// TestMarkFollows measures how long a change of the routes takes to count: 100 times a
// route comes and goes.
func TestMarkFollows(t *testing.T) {
	m := newMarked(t)
	m.ip(markRule4)
	to := netip.AddrPortFrom(nstest.ServerV4(9), 9)
	const script = `
import socket, subprocess, sys, time, errno
def outcome():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 0))
    try: s.connect(("%s", 9))
    except OSError as e: return e.errno == errno.EPERM
    finally: s.close()
    return False
for i in range(100):
    for verb, refused in ("add", False), ("del", True):
        subprocess.run(["ip", "route", verb] + "default via 198.51.100.254 src 198.51.100.10 table 107".split(), check=True)
        start = time.monotonic()
        while outcome() != refused: pass
        print(verb, time.monotonic() - start)
`
	got := m.Proxy.Run(t, inGroup(t, m.dir, exec.Command("python3", "-c", fmt.Sprintf(script, to.Addr()))))
	if got.Err != nil {
		t.Fatal(got)
	}
	took := make(map[string][]time.Duration)
	for line := range strings.Lines(got.Stdout) {
		var verb string
		var seconds float64
		if _, err := fmt.Sscan(line, &verb, &seconds); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		took[verb] = append(took[verb], time.Duration(seconds*float64(time.Second)))
	}
	for verb, list := range took {
		slices.Sort(list)
		median, p99 := list[len(list)/2], list[len(list)*99/100]
		t.Logf("ip route %s: counts after %v (median of %d), %v (p99)", verb, median, len(list), p99)
		if len(list) != 100 || median > 200*time.Millisecond {
			t.Errorf("ip route %s: %d times, counts after %v, want it 100 times within 200 ms", verb, len(list), median)
		}
	}
}
