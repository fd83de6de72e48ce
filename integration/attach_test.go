//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// attachConfig attaches the rules of kernelConfig to a cgroup.
func attachConfig(cgroup string, more string) string {
	return kernelConfig + fmt.Sprintf("[[attach]]\ncgroup = %q\n%s", cgroup, more)
}

// calledFrom has the asker open a socket of each protocol to both families, and returns
// from where the servers were called, or the errors.
func (r *rig) calledFrom(a *ask, servers map[string]*nstest.Server) map[string]int {
	from := make(map[string]int)
	for _, kind := range []string{"tcp", "udp"} {
		for _, dst := range []string{"203.0.113.9:7", "[2001:db8:2::9]:7"} {
			to := netip.MustParseAddrPort(dst)
			server := servers[kind+fmt.Sprint(to.Addr().Is4())]
			server.Forget()
			if got := a.to(kind, to); got != "answered" {
				from[got]++
			}
			for s, n := range server.Sources() {
				from[s.String()] += n
			}
		}
	}
	return from
}

// fourTimes is what calledFrom returns for two sources.
func fourTimes(a, b netip.Addr) string {
	return fmt.Sprint(map[string]int{a.String(): 2, b.String(): 2})
}

var (
	byRules  = fourTimes(wan4, wan6)
	byKernel = fourTimes(nstest.ProxyV4(1), nstest.ProxyV6(1))
)

// TestAttachCgroup attaches to a cgroup that is not there yet, that goes and comes, and
// detaches from it at the end.
func TestAttachCgroup(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	r.serve(attachConfig(name, ""))
	for i := range 3 {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r.log.wait(t, i+1, "attached")
		p, a := r.askIn(t, dir)
		if got := fmt.Sprint(r.calledFrom(a, servers)); got != byRules {
			t.Errorf("life %d: called from %s, want %s", i, got, byRules)
		}
		if i == 2 {
			r.signal(unix.SIGTERM)
			<-r.proc.Done()
			if got := fmt.Sprint(r.calledFrom(a, servers)); got != byKernel {
				t.Errorf("after the end: called from %s, want %s", got, byKernel)
			}
		}
		p.Kill()
		removeGroups(t, dir)
	}
	if pins, err := os.ReadDir("/sys/fs/bpf/srcproxy"); err != nil || len(pins) != 0 {
		t.Errorf("pins are left: %v, %v", pins, err)
	}
}

// flooder sends datagrams and connects without an end, and ends with 1 at the first
// error.
const flooder = `
import socket, sys
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
while True:
    for s in old, socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
        s.sendto(b"x", ("203.0.113.9", 9))
    s.close()
    socket.create_connection(("203.0.113.9", 7)).close()
`

// flood starts the flooder in a cgroup.
func (r *rig) flood(t *testing.T, dir string) *nstest.Process {
	t.Helper()
	nstest.Need(t, "python3")
	cmd := inGroup(t, dir, exec.Command("python3", "-c", flooder))
	out, stdout := pipe(t)
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	p := r.Proxy.Start(t, cmd)
	_ = stdout.Close() // the command has it
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("got %q, %v, want ready", line, err)
	}
	return p
}

// grows waits until n more packets have come from a.
func grows(t *testing.T, leaks *nstest.LeakCounter, a netip.Addr, n uint64) {
	t.Helper()
	count := func() (sum uint64) {
		for p, n := range leaks.Seen(t) {
			if p.Src == a {
				sum += n
			}
		}
		return sum
	}
	before := count()
	eventually(t, fmt.Sprintf("%d more packets come from %v", n, a), func() bool { return count() >= before+n })
}

// otherDefault returns a configuration with another source for what no rule matches.
func otherDefault(config string, source netip.Addr) string {
	return strings.Replace(config, `default = "wan"`, fmt.Sprintf("default = %q", source), 1)
}

// TestAttachSwaps exchanges the rules by reloads, and by a new process after the old one
// was killed, while traffic flows: not a packet from an address of no rule, not a call
// that fails, and after each exchange none from the address before.
func TestAttachSwaps(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	r.Server.EchoTCP(t, "0.0.0.0:7")
	r.Server.ServeUDP(t, "0.0.0.0:9", func(_, _ netip.AddrPort, _ []byte) []byte { return nil })
	leaks := r.Server.CountLeaks(t, "wan0")
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := attachConfig(name, "")
	r.serve(config)
	p := r.flood(t, dir)
	for i := range 20 {
		source := nstest.ProxyV4(nstest.FirstSource + i%2*5)
		leaks.Allow(source)
		if i%4 < 3 {
			if e := r.reload(otherDefault(config, source)); e.text("msg") != "reloaded" {
				t.Fatalf("reload: %v", e)
			}
		} else {
			r.proc.Kill()
			grows(t, leaks, nstest.ProxyV4(nstest.FirstSource), 20) // of the round before: the rules stay
			r.serve(otherDefault(config, source))
		}
		grows(t, leaks, source, 20)
		other := nstest.ProxyV4(nstest.FirstSource + (i+1)%2*5)
		before := leaks.Seen(t)
		grows(t, leaks, source, 50)
		for p, n := range leaks.Seen(t) {
			if p.Src == other && p.Protocol == "udp" && n != before[p] {
				t.Errorf("round %d: %d packets from %v after the exchange", i, n-before[p], other)
			}
		}
	}
	select {
	case <-p.Done():
		t.Errorf("a call failed: %v", p.Wait(0))
	default:
	}
	p.Kill()
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// sender is a C program that does nothing before it sends.
const sender = `
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7)};
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
	inet_pton(AF_INET, "203.0.113.9", &to.sin_addr);
	inet_pton(AF_INET6, "2001:db8:2::9", &to6.sin6_addr);
	if (sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&to, sizeof(to)) != 1)
		return 1;
	if (sendto(socket(AF_INET6, SOCK_DGRAM, 0), "x", 1, 0, (void *)&to6, sizeof(to6)) != 1)
		return 2;
	if (connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof(to)) != 0)
		return 3;
	if (connect(socket(AF_INET6, SOCK_STREAM, 0), (void *)&to6, sizeof(to6)) != 0)
		return 4;
	return 0;
}
`

// compile returns the sender.
func (r *rig) compile(t *testing.T) string {
	t.Helper()
	nstest.Need(t, "cc")
	program := r.path("sender")
	if out, err := exec.Command("cc", "-o", program, r.write("sender.c", sender)).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return program
}

// TestAttachServiceRestarts restarts a service in its slice, whose cgroup is another
// each time, as systemd makes it. It sends from its first instruction.
func TestAttachServiceRestarts(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	leaks := r.Server.CountLeaks(t, "wan0")
	program := r.compile(t)
	_, dir := scratchGroup(t, tree, "")
	unit := filepath.Base(dir) + ".service"
	slice := filepath.Join(tree.Dir, cgroup.SlicePath(unit))
	r.serve(kernelConfig + fmt.Sprintf("[[attach]]\nservice = %q\n", unit))
	for i := range 50 {
		path := filepath.Join(slice, unit)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := r.Proxy.Run(t, inGroup(t, path, exec.Command(program))); got.Err != nil {
			t.Fatalf("start %d: %v", i, got)
		}
		removeGroups(t, path)
	}
	for kind, s := range servers {
		eventually(t, kind+": the server has heard all", func() bool { return len(s.Peers()) >= 50 })
		if n := len(s.Peers()); n != 50 {
			t.Errorf("%s: called %d times", kind, n)
		}
	}
	leaks.Allow(wan4, wan6)
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
	if warned, _ := r.log.with(notInSlice); len(warned) != 0 {
		t.Errorf("a warning of a service that is in its slice: %v", warned)
	}
	r.signal(unix.SIGTERM)
	<-r.proc.Done()
	if _, err := os.Stat(slice); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the slice is left: %v", err)
	}
}

const notInSlice = "the service is not in its slice: after a restart its first packets may not be ruled"

// TestAttachServiceOutside has a service that runs where it always did, until it is moved
// into its slice.
func TestAttachServiceOutside(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	_, dir := scratchGroup(t, tree, ".slice")
	unit := strings.TrimSuffix(filepath.Base(dir), ".slice") + ".service"
	slice := filepath.Join(tree.Dir, cgroup.SlicePath(unit))
	t.Cleanup(func() {
		removeGroups(t, slice)
		_ = unix.Rmdir(filepath.Dir(slice)) // others may be in it
	})
	r.serve(kernelConfig + fmt.Sprintf("[[attach]]\nservice = %q\n", unit))
	for i, in := range []string{dir, dir, slice} {
		path := filepath.Join(in, unit)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if in == dir {
			r.log.wait(t, i+2, "attached") // the slice is the first
			if got := r.program("status"); !strings.Contains(got.Stdout, "# Health: "+unit+" runs in "+tree.Name(path)+" and not in its slice") {
				t.Errorf("status: %v", got)
			}
		}
		p, a := r.askIn(t, path)
		if got := fmt.Sprint(r.calledFrom(a, servers)); got != byRules {
			t.Errorf("in %s: called from %s, want %s", in, got, byRules)
		}
		p.Kill()
		removeGroups(t, path)
	}
	if lines := r.log.wait(t, 2, notInSlice); len(lines) != 2 || !strings.Contains(lines[0].text("cure"), cgroup.SliceName(unit)) {
		t.Errorf("got %v, want two warnings with the cure", lines)
	}
}

// TestAttachCommands attaches and detaches with no service beside it.
func TestAttachCommands(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if got := r.program("attach", "--use", "198.51.100.31", name); got.Err == nil || !strings.Contains(got.Stderr, "there is no control group "+name) {
		t.Errorf("attach to nothing: %v", got)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, a := r.askIn(t, dir)
	want := func(what, want string) {
		t.Helper()
		if got := fmt.Sprint(r.calledFrom(a, servers)); got != want {
			t.Errorf("%s: called from %s, want %s", what, got, want)
		}
	}
	config := r.write("config.toml", attachConfig(name, ""))
	for range 3 {
		if got := r.program("attach", "--use", "198.51.100.31", "--use", "2001:db8:1::31", name); got.Err != nil || got.Stdout != name+": the rules hold in "+name+"\n" {
			t.Fatal(got)
		}
		want("attach --use", fourTimes(nstest.ProxyV4(31), nstest.ProxyV6(31)))
		if got := r.program("attach", "-c", config); got.Err != nil {
			t.Fatal(got)
		}
		want("attach again", byRules)
		if got := r.program("detach", name); got.Err != nil || got.Stdout != name+": detached\n" {
			t.Fatal(got)
		}
		want("detach", byKernel)
	}
	r.program("attach", "-c", config)
	if got := r.program("detach", "/other"); got.Err == nil || !strings.Contains(got.Stderr, "nothing is attached to /other; there are "+name) {
		t.Errorf("detach from nothing: %v", got)
	}
	if got := r.program("detach", "--all", "--json"); got.Err != nil || strings.Join(strings.Fields(got.Stdout), "") != `["`+name+`"]` {
		t.Errorf("detach --all: %v", got)
	}
	want("detach --all", byKernel)
}
