//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// loggedConfig is kernelConfig with a source that is not on the host.
const loggedConfig = kernelConfig + `
[[rules]]
name = "by a line that is gone"
to   = ["203.0.113.77", "2001:db8:2::77"]
use  = "gone"

[sources.gone]
ip = "192.0.2.99"
`

// loggedCall is a call, and what its line has to say.
type loggedCall struct {
	kind, dst    string
	rule, source string
	err          string // how it begins; "": it is answered
}

var loggedCalls = []loggedCall{
	{"tcp", "203.0.113.9:7", "default", "wan", ""},
	{"tcp", "[2001:db8:2::9]:7", "default", "wan", ""},
	{"udp", "203.0.113.9:7", "default", "wan", ""},
	{"udp", "[2001:db8:2::9]:7", "default", "wan", ""},
	{"connected", "203.0.113.9:7", "default", "wan", ""},
	{"connected", "[2001:db8:2::9]:7", "default", "wan", ""},
	{"tcp", "203.0.113.66:7", "forbidden city", "", `rule "forbidden city": denied`},
	{"udp", "203.0.113.66:7", "forbidden city", "", `rule "forbidden city": denied`},
	{"tcp", "203.0.113.77:7", "by a line that is gone", "", `rule "by a line that is gone": source is not usable: source "gone": `},
	{"connected", "203.0.113.77:7", "by a line that is gone", "", `rule "by a line that is gone": source is not usable: source "gone": `},
	{"udp", "[2001:db8:2::77]:7", "by a line that is gone", "", `rule "by a line that is gone": no source of this family: source "gone" has no IPv6 address`},
}

// loggedAsker is the asker as somebody else, which also connects datagram sockets, and tells its number.
var loggedAsker = strings.NewReplacer(`print("ready"`, `import os
open("/proc/self/comm", "w").write("my caller")
os.setuid(4711)
print("ready"`, `    try:
`, `    if kind == "pid":
        print(os.getpid(), flush=True)
        continue
    try:
`, `            s.sendto(b"x", (address, int(port)))`, `            if kind == "connected":
                s.connect((address, int(port)))
                s.send(b"x")
            else:
                s.sendto(b"x", (address, int(port)))`).Replace(asker)

// serverOf is the server that a call reaches.
func (c *loggedCall) serverOf(servers map[string]*nstest.Server) *nstest.Server {
	kind := strings.Replace(c.kind, "connected", "udp", 1)
	return servers[kind+fmt.Sprint(netip.MustParseAddrPort(c.dst).Addr().Is4())]
}

// make makes the call and returns from where it was seen to come; nothing where it is refused.
func (c *loggedCall) make(t *testing.T, a *ask, servers map[string]*nstest.Server) string {
	t.Helper()
	s := c.serverOf(servers)
	s.Forget()
	got := a.to(c.kind, netip.MustParseAddrPort(c.dst))
	if (got == "answered") != (c.err == "") {
		t.Errorf("%s to %s: %s, want an error only for %q", c.kind, c.dst, got, c.err)
	}
	peers := s.Peers()
	switch {
	case c.err != "" && len(peers) != 0 || c.err == "" && len(peers) != 1:
		t.Fatalf("%s to %s: the server was called from %v", c.kind, c.dst, peers)
	case c.err != "":
		return ""
	case c.kind == "udp":
		return peers[0].String()
	}
	return peers[0].Addr().String() // the kernel chooses the port later
}

// TestAttachLog has a line for each call of a program, which says what the far end has seen; switched by reloads, hidden
// as destinations are, and taken over by the next process.
func TestAttachLog(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := func(more string) string {
		return loggedConfig + fmt.Sprintf("[[attach]]\ncgroup = %q\n%s", name, more)
	}
	r.serve(config("log = true\n"))
	p, a := r.startAsk(t, inGroup(t, dir, exec.Command("python3", "-c", loggedAsker)))
	n := 0
	check := func(hidden bool) {
		t.Helper()
		for _, c := range loggedCalls {
			src := c.make(t, a, servers)
			n++
			e := r.log.wait(t, n, "decision")[n-1]
			c.check(t, e, src, hidden)
			if e.text("attach") != name || e.text("program") != "my caller" || e.number("pid") != p.Pid() || e.number("uid") != 4711 {
				t.Errorf("got %v, want %s by my caller[%d] of user 4711", e, name, p.Pid())
			}
		}
	}
	check(false)
	r.reload(config(""))
	for _, c := range loggedCalls {
		c.make(t, a, servers)
	}
	r.reload(config("log = true\n[log]\ndestinations = false\n"))
	check(true) // a line of those before would be taken for one of these
	r.proc.Kill()
	r.serve(config("log = true\n"))
	n = 0
	check(false)
	if got := r.program("status"); strings.Contains(got.Stdout, "too many") {
		t.Errorf("status tells of decisions that were not logged:\n%s", got.Stdout)
	}
}

// check compares the line of a call with what it was, and with where the server saw it come from.
func (c *loggedCall) check(t *testing.T, e entry, src string, hidden bool) {
	t.Helper()
	dst, protocol := c.dst, strings.Replace(c.kind, "connected", "udp", 1)
	reason := c.err
	if hidden {
		dst, reason = "", ""
		if host := netip.MustParseAddrPort(c.dst).Addr().String(); strings.Contains(fmt.Sprint(e), host) {
			t.Errorf("%v tells of %s", e, host)
		}
	}
	if e.text("protocol") != protocol || e.text("dst") != dst || e.text("rule") != c.rule || e.text("source") != c.source || e.text("src") != src {
		t.Errorf("got %v, want %s to %q by %q from %q %q", e, protocol, dst, c.rule, c.source, src)
	}
	if err := e.text("err"); (err == "") != (c.err == "") || !strings.HasPrefix(err, reason) {
		t.Errorf("%s to %s: got the error %q, want %q", c.kind, c.dst, err, c.err)
	}
}

// TestAttachLogFlood has a program that makes more calls than may be logged: the log stays short and says so, as status
// does, and the program is not held up.
func TestAttachLogFlood(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.serve(attachConfig(name, "log = true\n"))
	const calls = 100_000
	code := fmt.Sprintf(`
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(%d): s.sendto(b"x", ("203.0.113.%%d" %% (9 + i %% 2), 9))
print("done")`, calls)
	nstest.Need(t, "python3")
	if got := r.Proxy.Run(t, inGroup(t, dir, exec.Command("python3", "-c", code))); got.Stdout != "done\n" {
		t.Fatal(got)
	}
	logged, left := 0, 0
	eventually(t, "each decision is logged, or counted as one that is not", func() bool {
		lines, _ := r.log.with("decision")
		logged, left = len(lines), 0
		if m := tooMany.FindStringSubmatch(r.program("status").Stdout); m != nil {
			left, _ = strconv.Atoi(m[1])
		}
		return logged+left >= calls
	})
	if logged+left != calls || logged > calls/4 {
		t.Errorf("%d decisions are logged and %d left out, want %d in all and most of them left out", logged, left, calls)
	}
	r.signal(unix.SIGTERM)
	<-r.proc.Done()
	notes, _ := r.log.with("decisions not logged")
	for _, e := range notes {
		left -= e.number("decisions")
	}
	if left != 0 {
		t.Errorf("the log differs by %d from what status says was left out: %v", left, notes)
	}
}

// tooMany is the line of status about decisions that were not logged.
var tooMany = regexp.MustCompile(`(\d+) decisions were too many to be logged\n`)
