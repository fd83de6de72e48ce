//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// vanishHolder holds sockets of six kinds, and does with them what it is told: each line is one of Python.
const vanishHolder = prelude + `
import json, resource, select, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
kinds = {
    "tcp4": (AF_INET, SOCK_STREAM, "203.0.113.%d"), "tcp6": (AF_INET6, SOCK_STREAM, "2001:db8:2::%d"), "tcpm": (AF_INET6, SOCK_STREAM, "::ffff:203.0.113.%d"),
    "udp4": (AF_INET, SOCK_DGRAM, "203.0.113.%d"), "udp6": (AF_INET6, SOCK_DGRAM, "2001:db8:2::%d"), "udpm": (AF_INET6, SOCK_DGRAM, "::ffff:203.0.113.%d"),
}
sets = {}
def again(kind, s, host):
    family, type, to = kinds[kind]
    s.connect((to % host, 4000 if type == SOCK_STREAM else 7))
    s.settimeout(5)
    if type == SOCK_DGRAM: s.send(b"who")
    heard = s.recv(100).decode().strip()
    return heard if type == SOCK_STREAM else heard.rsplit(":", 1)[0].strip("[]")
def opened(kind, host, own=None):
    s = socket(*kinds[kind][:2])
    if own: s.bind((("::ffff:" if kind[3] == "m" else "") + own[kind[3] == "6"], 0))
    return s, again(kind, s, host)
# Opens n of each kind, and prints where they leave from.
def make(name, host, n=1, own=None, only=kinds):
    sets[name] = [(kind, *opened(kind, host, own)) for kind in only for i in range(n)]
    say(*sorted({source for _, _, source in sets[name]}))
# Waits until all of them have an error, and prints when and which.
def watch(name):
    poll, left, ended = select.epoll(), {s.fileno(): (kind, s) for kind, s, _ in sets[name]}, []
    for fd in left: poll.register(fd, 0)
    say("watching")
    while left:
        events = poll.poll(30)
        if not events: break
        for fd, _ in events:
            now = time.monotonic_ns()
            kind, s = left.pop(fd)
            poll.unregister(fd)
            ended.append((kind, errno.errorcode[s.getsockopt(SOL_SOCKET, SO_ERROR)], now))
    say(json.dumps(ended))
# Prints how many have nothing to tell, and how many of them answer.
def live(*names):
    all = [x for name in names for x in sets[name]]
    poll = select.poll()
    for _, s, _ in all: poll.register(s.fileno(), select.POLLIN)
    quiet, answers = len(all) - len(poll.poll(0)), 0
    for kind, s, _ in all:
        try:
            s.send(b"x")
            answers += len(s.recv(100)) > 0
        except OSError: pass
    say(quiet, "quiet,", answers, "answer")
# Prints how many tell nothing; nothing is sent.
def idle(name):
    poll = select.poll()
    for _, s, _ in sets[name]: poll.register(s.fileno(), select.POLLIN)
    say(len(sets[name]) - len(poll.poll(0)), "idle")
# Half of the datagram sockets of a set that have ended are sent on, and what comes of it is printed; then they are
# disconnected. All are connected again.
def reconnect(name):
    ended, heard = [(kind, s) for kind, s, _ in sets[name] if kind[:3] == "udp"], set()
    for _, s in ended[::2]:
        try: heard.add(str(s.send(b"x")))
        except OSError as e: heard.add(errno.errorcode[e.errno])
        disconnect(s)
    say(*sorted(heard), *sorted({again(kind, s, 1) for kind, s in ended}))
# Waits until new sockets leave from there.
def until(*want):
    end = time.monotonic() + 30
    while True:
        got = [opened(kind, 1)[1] for kind in ("udp4", "udp6")]
        if got == list(want) or time.monotonic() > end: break
    say(*got)
say("ready")
for line in sys.stdin: exec(line)
`

// holder is a running vanishHolder.
type holder struct{ *talk }

// tell has the program do something, and returns the line that it prints.
func (h holder) tell(format string, args ...any) string {
	h.t.Helper()
	if _, err := io.WriteString(h.in, fmt.Sprintf(format, args...)+"\n"); err != nil {
		h.t.Fatal(err)
	}
	return h.line()
}

// wants is tell with the line that has to come.
func (h holder) wants(want, format string, args ...any) {
	h.t.Helper()
	if got := h.tell(format, args...); got != want {
		h.t.Errorf("%s: got %q, want %q", fmt.Sprintf(format, args...), got, want)
	}
}

// vanishRig is a rig whose programs are ruled, by run or by an [[attach]].
type vanishRig struct {
	*rig
	leaks *nstest.LeakCounter
	dir   string // of the cgroup of the [[attach]]; "": run it is
	name  string
	said  *journal // by run
}

func newVanishRig(t *testing.T, attach bool) *vanishRig {
	t.Helper()
	nstest.Need(t, "python3")
	tree := kernelTree(t)
	r := &vanishRig{rig: newRig(t)}
	if attach {
		bpffs(t)
		r.name, r.dir = scratchGroup(t, tree, "")
		if err := os.Mkdir(r.dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, wild := range []string{"0.0.0.0", "[::]"} {
		r.Server.GreetTCP(t, wild+":4000")
		r.Server.ServeUDP(t, wild+":7", func(peer, _ netip.AddrPort, _ []byte) []byte { return []byte(peer.String() + "\n") })
	}
	r.leaks = r.Server.CountLeaks(t, "wan0")
	return r
}

// rules starts what rules programs, but for run, which starts with them.
func (r *vanishRig) rules(config string) {
	r.t.Helper()
	if r.dir == "" {
		r.write("config.toml", config)
		return
	}
	r.serve(config + fmt.Sprintf("[[attach]]\ncgroup = %q\n", r.name))
}

// hold starts a program that is ruled, or, outside, one that is not.
func (r *vanishRig) hold(t *testing.T, outside bool) holder {
	t.Helper()
	cmd := r.command("python3", "-c", vanishHolder)
	cmd.Stderr = os.Stderr
	switch {
	case outside:
	case r.dir != "":
		inGroup(t, r.dir, cmd)
	default:
		cmd = r.command(r.binary.Build(t), "run", "-c", r.path("config.toml"), "--", "python3", "-c", vanishHolder)
		r.said = newJournal()
		cmd.Stderr = r.said
	}
	h := holder{startTalk(t, r.Proxy, cmd)}
	h.out.Buffer(nil, 1<<20)
	if got := h.line(); got != "ready" {
		t.Fatalf("got %q, want ready", got)
	}
	return h
}

// says waits for line n on the sockets of an address that has gone.
func (r *vanishRig) says(t *testing.T, n int, a netip.Addr, ended int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d lines tell that %d sockets of %v have ended", n, ended, a), func() bool {
		if r.dir == "" {
			return strings.Count(r.said.String(), fmt.Sprintf("msg=%q src=%v ended=%d\n", endedWithAddress, a, ended)) == n
		}
		lines, _ := r.log.with(endedWithAddress)
		return len(slices.DeleteFunc(lines, func(e entry) bool { return e.text("src") != a.String() || e.number("ended") != ended })) == n
	})
}

const endedWithAddress = "sockets of programs ended with their address"

// monotonic is the clock that Python has, too.
func monotonic(t testing.TB) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano()
}

// bothWays runs a test with run and with an [[attach]].
func bothWays(t *testing.T, f func(t *testing.T, r *vanishRig)) {
	for _, way := range []string{"run", "attach"} {
		t.Run(way, func(t *testing.T) { f(t, newVanishRig(t, way == "attach")) })
	}
}

// errorsSince reads what watch prints, and returns how long after start each socket had its error, by kind. All errors have to
// be ECONNABORTED.
func (h holder) errorsSince(start int64) map[string][]time.Duration {
	h.t.Helper()
	var ended [][3]any
	if err := json.Unmarshal([]byte(h.line()), &ended); err != nil {
		h.t.Fatal(err)
	}
	took := make(map[string][]time.Duration)
	for _, e := range ended {
		if e[1] != "ECONNABORTED" {
			h.t.Errorf("%v ended by %v, want ECONNABORTED", e[0], e[1])
		}
		took[fmt.Sprint(e[0])] = append(took[fmt.Sprint(e[0])], time.Duration(int64(e[2].(float64))-start))
	}
	return took
}

// isDown reports whether the log tells that a source has lost the address.
func (r *vanishRig) isDown(a netip.Addr) bool {
	if r.dir == "" {
		return strings.Contains(r.said.String(), fmt.Sprintf("addr=%v state=down", a))
	}
	lines, _ := r.log.with("source changed")
	return slices.ContainsFunc(lines, func(e entry) bool { return e.text("addr") == a.String() && e.text("state") == "down" })
}
