//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// kernelConfig has two sources, of which only one has an IPv6 address.
const kernelConfig = `
default = "wan"

[sources]
wan  = ["198.51.100.10", "2001:db8:1::10"]
voip = "198.51.100.30"

[[rules]]
name = "forbidden city"
to   = "203.0.113.66"
use  = "deny"

[[rules]]
name       = "what iptables says by --sport"
protocol   = "udp"
to         = "203.0.113.5"
local_port = 5060
use        = "voip"
`

// TestRunSIPP makes calls by a program that knows nothing of srcproxy, from a source
// and by a rule on its own port.
func TestRunSIPP(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"use", []string{"--use", "voip"}},
		{"local_port", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nstest.Need(t, "sipp", "nft")
			kernelTree(t)
			r := newRig(t)
			r.count()
			r.answers(r.Server, "203.0.113.5", 5060)
			args := append([]string{r.binary.Build(t), "run", "-c", r.write("config.toml", kernelConfig)}, tt.args...)
			args = append(args, "--", "sipp", "-sn", "uac", "203.0.113.5:5060", "-p", "5060", "-m", "100", "-r", "50", "-nostdin", "-timeout", "50s")
			got := r.Proxy.Run(t, r.command(args[0], args[1:]...))
			if ok := successful(got.Stdout); got.Err != nil || ok != "100" {
				t.Errorf("%s of 100 calls were successful: %v", ok, got)
			}
			r.wantOnePort()
		})
	}
}

// TestRunRuled has one process ask many servers, and looks at where from.
func TestRunRuled(t *testing.T) {
	dir := ownGroup(t)
	r := newRig(t)
	leaks := r.Server.CountLeaks(t, "wan0")
	servers := r.echoes(t)
	p, a := r.askRun(t, dir)
	for _, kind := range []string{"tcp", "udp"} {
		for dst, want := range map[string]string{
			"203.0.113.9:7":     "198.51.100.10",
			"[2001:db8:2::9]:7": "2001:db8:1::10",
			"203.0.113.66:7":    "",
		} {
			to := netip.MustParseAddrPort(dst)
			server := servers[kind+fmt.Sprint(to.Addr().Is4())]
			server.Forget()
			got := a.to(kind, to)
			if want == "" && got != "EPERM" || want != "" && (got != "answered" || server.Sources()[netip.MustParseAddr(want)] != 1) {
				t.Errorf("%s to %s: %s, from %v; want it from %q", kind, dst, got, server.Sources(), want)
			}
		}
	}
	if got := leftovers(t, dir); len(got) != 1 {
		t.Errorf("there are the cgroups %q, want one", got)
	}
	p.Kill()
	leaks.Allow(wan4, wan6)
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// TestRunKilledLoses kills run and takes the address away under what it started: nobody
// withdraws the source then, and no call goes over to another address.
func TestRunKilledLoses(t *testing.T) {
	dir := ownGroup(t)
	r := newRig(t)
	leaks := r.Server.CountLeaks(t, "wan0")
	r.echoes(t)
	p, a := r.askRun(t, dir)
	if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	four, six := at(nstest.ServerV4(9), 7), at(nstest.ServerV6(9), 7)
	if got := a.to("udp", six); got != "answered" {
		t.Errorf("while the address is there: %s", got)
	}
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(wan4, 24))
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(wan6, 64))
	for _, tt := range []struct {
		kind string
		to   netip.AddrPort
		want string
	}{
		{"tcp", four, "EADDRNOTAVAIL"},
		{"tcp", six, "EADDRNOTAVAIL"},
		{"udp", four, "ENETUNREACH"},
		{"udp", six, "timed out"}, // it leaves from the dead address, docs/KERNEL.md
	} {
		if got := a.to(tt.kind, tt.to); got != tt.want {
			t.Errorf("%s to %v: %s, want %s", tt.kind, tt.to, got, tt.want)
		}
	}
	leaks.Allow(wan4, wan6)
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
	p.Kill() // its group: the asker
}

// echoes starts servers that echo at port 7, by protocol and whether they are of IPv4.
func (r *rig) echoes(t *testing.T) map[string]*nstest.Server {
	return map[string]*nstest.Server{
		"tcptrue":  r.Server.EchoTCP(t, "0.0.0.0:7"),
		"tcpfalse": r.Server.EchoTCP(t, "[::]:7"),
		"udptrue":  r.Server.EchoUDP(t, "0.0.0.0:7"),
		"udpfalse": r.Server.EchoUDP(t, "[::]:7"),
	}
}

// TestRunKilled kills run: what it started stays ruled, and the next run removes the
// cgroup when that has ended, too.
func TestRunKilled(t *testing.T) {
	dir := ownGroup(t)
	r := newRig(t)
	leaks := r.Server.CountLeaks(t, "wan0")
	servers := r.echoes(t)
	p, a := r.askRun(t, dir)
	if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	for range 20 {
		for _, kind := range []string{"tcp", "udp"} {
			for _, dst := range []string{"203.0.113.9:7", "[2001:db8:2::9]:7"} {
				if got := a.to(kind, netip.MustParseAddrPort(dst)); got != "answered" {
					t.Errorf("%s to %s: %s", kind, dst, got)
				}
			}
		}
	}
	if got := a.to("tcp", netip.MustParseAddrPort("203.0.113.66:7")); got != "EPERM" {
		t.Errorf("what a rule denies: %s", got)
	}
	if n := len(servers["tcptrue"].Peers()); n != 20 {
		t.Errorf("the server was called %d times", n)
	}
	leaks.Allow(wan4, wan6)
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
	left := leftovers(t, dir)
	if len(left) != 1 {
		t.Fatalf("there are the cgroups %q, want the one that lives", left)
	}
	p.Kill() // its group: the asker
	eventually(t, "the next run has removed what is empty", func() bool {
		if got := r.runIn(t, dir, "--use", "198.51.100.10", "--", "true"); got.Err != nil {
			t.Fatal(got)
		}
		return len(leftovers(t, dir)) == 0
	})
}

// TestRunSourceVanishes takes the addresses away: nothing leaves any more, from no
// other address and not from the one that is gone; and back again.
func TestRunSourceVanishes(t *testing.T) {
	kernelTree(t)
	r := newRig(t)
	leaks := r.Server.CountLeaks(t, "wan0")
	r.echoes(t)
	_, a := r.ask(t, r.binary.Build(t), "run", "-c", r.write("config.toml", kernelConfig), "--")
	dsts := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:7"), netip.MustParseAddrPort("[2001:db8:2::9]:7")}
	for _, dst := range dsts {
		if got := a.to("udp", dst); got != "answered" {
			t.Fatalf("to %s: %s", dst, got)
		}
	}
	gone := []netip.Prefix{netip.PrefixFrom(wan4, 24), netip.PrefixFrom(wan6, 64)}
	for _, p := range gone {
		r.Proxy.DelAddr(t, "wan0", p)
	}
	for _, dst := range dsts {
		eventually(t, "UDP to "+dst.String()+" is refused", func() bool { return a.to("udp", dst) == "EADDRNOTAVAIL" || a.to("udp", dst) == "EPERM" })
	}
	before := leaks.Seen(t)
	for range 50 {
		for _, dst := range dsts {
			for _, kind := range []string{"tcp", "udp"} {
				if got := a.to(kind, dst); got != "EADDRNOTAVAIL" && got != "EPERM" {
					t.Fatalf("%s to %s without the address: %s", kind, dst, got)
				}
			}
		}
	}
	for p, n := range leaks.Seen(t) {
		if n != before[p] {
			t.Errorf("%d packets %+v while the addresses were away", n-before[p], p)
		}
	}
	for _, p := range gone {
		r.Proxy.AddAddr(t, "wan0", p)
	}
	for _, dst := range dsts {
		eventually(t, dst.String()+" answers again", func() bool { return a.to("tcp", dst) == "answered" })
	}
	leaks.Allow(wan4, wan6)
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// TestRunCodes: the exit code is the command's, beside the kernel plane as well.
func TestRunCodes(t *testing.T) {
	dir := ownGroup(t)
	r := newRig(t)
	for command, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 143, "exit 255": 255} {
		got := r.runIn(t, dir, "--use", "198.51.100.30", "--", "sh", "-c", command)
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(got.Err, &exit) {
			code = exit.ExitCode()
		}
		if code != want || got.Stderr != "" {
			t.Errorf("%s: got %v, want exit code %d", command, got, want)
		}
	}
	for _, args := range []string{"no-such-command", "/dev/null"} {
		if got := r.runIn(t, dir, "--use", "198.51.100.30", "--", args); !strings.HasPrefix(got.Stderr, "srcproxy: "+args+": ") {
			t.Errorf("%s: %v", args, got)
		}
	}
	if got := leftovers(t, dir); len(got) != 0 {
		t.Errorf("the cgroups %q are left", got)
	}
}
