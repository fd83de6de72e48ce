//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// listen has the hooks tell what they decide.
func (h *hooked) listen() <-chan *cgroupbpf.Event {
	told := make(chan *cgroupbpf.Event, 1000)
	h.plane.OnDecision = func(e *cgroupbpf.Event) { told <- e }
	return told
}

// next is the next event, of one that is due.
func next(t testing.TB, told <-chan *cgroupbpf.Event) *cgroupbpf.Event {
	t.Helper()
	select {
	case e := <-told:
		return e
	case <-time.After(patience):
		t.Fatalf("no event in %v", patience)
		return nil
	}
}

// identity makes a Python program somebody, and print its process.
const identity = `
open("/proc/self/comm", "w").write("caller")
os.setuid(4711)
say(os.getpid())
`

// toldCall is a Python program and what is told of its one call. Its last line is where the server was called from, or the
// name of an error.
type toldCall struct {
	name, code string
	protocol   string
	dst        string
	rule       string
	source     string
	src        bool // it is what the server saw; else none is told
	port       bool // with the port
	local      uint16
	err        error
}

var toldCalls = []toldCall{
	{name: "tcp", code: `tcp("203.0.113.1")`, protocol: "tcp", dst: "203.0.113.1:4000", rule: "default", source: "s10", src: true},
	{name: "tcp6", code: `tcp("2001:db8:2::1", AF_INET6)`, protocol: "tcp", dst: "[2001:db8:2::1]:4000", rule: "default", source: "s10", src: true},
	{name: "mapped", code: `tcp("::ffff:203.0.113.1", AF_INET6)`, protocol: "tcp", dst: "203.0.113.1:4000", rule: "default", source: "s10", src: true},
	{name: "udp connected", code: `connected("203.0.113.1", udp())`, protocol: "udp", dst: "203.0.113.1:7", rule: "default", source: "s10", src: true},
	{name: "udp6 connected", code: `connected("2001:db8:2::1", udp(AF_INET6))`, protocol: "udp", dst: "[2001:db8:2::1]:7", rule: "default", source: "s10", src: true},
	{name: "udp", code: `sent("203.0.113.1", udp())`, protocol: "udp", dst: "203.0.113.1:7", rule: "default", source: "s10", src: true, port: true},
	{name: "udp6", code: `sent("2001:db8:2::1", udp(AF_INET6))`, protocol: "udp", dst: "[2001:db8:2::1]:7", rule: "default", source: "s10", src: true, port: true},
	{name: "source_port", code: `connected("203.0.113.2", udp())`, protocol: "udp", dst: "203.0.113.2:7", rule: "fixed", source: "s11", src: true, port: true},
	{name: "kernel", code: `tcp("203.0.113.3")`, protocol: "tcp", dst: "203.0.113.3:4000", rule: "left", source: "kernel"},
	{name: "own address", code: `sent("203.0.113.1", udp(port=6060, host="198.51.100.1"))`, protocol: "udp", dst: "203.0.113.1:7", rule: "default", src: true, port: true},
	{name: "own address, connected", code: `connected("203.0.113.1", udp(port=6061, host="198.51.100.1"))`, protocol: "udp", dst: "203.0.113.1:7", rule: "default", src: true, port: true},
	{name: "denied", code: `tcp("203.0.113.4")`, protocol: "tcp", dst: "203.0.113.4:4000", rule: "no", err: dialer.ErrDenied},
	{name: "denied6", code: `tcp("2001:db8:2::4", AF_INET6)`, protocol: "tcp", dst: "[2001:db8:2::4]:4000", rule: "no", err: dialer.ErrDenied},
	{name: "denied udp", code: `sent("203.0.113.4", udp(port=6062))`, protocol: "udp", dst: "203.0.113.4:7", rule: "no", local: 6062, err: dialer.ErrDenied},
	{name: "down", code: `tcp("203.0.113.5")`, protocol: "tcp", dst: "203.0.113.5:4000", rule: "gone", err: dialer.ErrSourceDown},
	{name: "down udp6", code: `sent("2001:db8:2::5", udp(AF_INET6, 6063))`, protocol: "udp", dst: "[2001:db8:2::5]:7", rule: "gone", local: 6063, err: dialer.ErrSourceDown},
	{name: "no family", code: `tcp("2001:db8:2::6", AF_INET6)`, protocol: "tcp", dst: "[2001:db8:2::6]:4000", rule: "four", err: dialer.ErrNoSource},
	{name: "not here", code: `tcp("203.0.113.7")`, protocol: "tcp", dst: "203.0.113.7:4000", rule: "elsewhere", source: "s99", err: unix.EADDRNOTAVAIL},
	{name: "held", code: `connected("203.0.113.1", udp(port=6064))`, protocol: "udp", dst: "203.0.113.1:7", rule: "default", source: "s10", local: 6064, err: cgroupbpf.ErrHeldPort},
	{name: "other port", code: `sent("203.0.113.2", udp(port=6065))`, protocol: "udp", dst: "203.0.113.2:7", rule: "fixed", source: "s11", local: 6065, err: cgroupbpf.ErrOtherPort},
}

// eventRules are those that toldCalls meet.
func eventRules(t testing.TB) []dialer.Rule {
	four := &dialer.Source{Name: "four", Addrs: []netip.Addr{nstest.ProxyV4(10)}}
	away := &dialer.Source{Name: "s99", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.99")}}
	return []dialer.Rule{
		{Name: "fixed", To: matches(t, nstest.ServerV4(2)), SourcePort: 6066, Use: leaveFrom(both(11))},
		{Name: "left", To: matches(t, nstest.ServerV4(3)), Use: dialer.Use{Kernel: true}},
		{Name: "no", To: matches(t, nstest.ServerV4(4), nstest.ServerV6(4)), Use: dialer.Use{}},
		{Name: "gone", To: matches(t, nstest.ServerV4(5), nstest.ServerV6(5)), Use: leaveFrom(both(12))},
		{Name: "four", To: matches(t, nstest.ServerV6(6)), Use: leaveFrom(four)},
		{Name: "elsewhere", To: matches(t, nstest.ServerV4(7)), Use: leaveFrom(away)},
	}
}

// TestKernelPlaneEvents compares what is told of each call with what the far end saw, and with who made it.
func TestKernelPlaneEvents(t *testing.T) {
	h := newHooked(t)
	told := h.listen()
	h.rule(cgroupbpf.Options{Log: true}, leaveFrom(both(10)), eventRules(t)...)
	if err := h.plane.SetState(away{nstest.ProxyV4(12): true, nstest.ProxyV6(12): true}); err != nil {
		t.Fatal(err)
	}
	h.attach()
	for _, c := range toldCalls {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			lines := h.run(identity + c.code)
			e := next(t, told)
			c.check(t, e, lines) // and another event would be taken for one of the next call
			// Two clocks are read one after the other, which may be held up in between.
			if e.Time.Before(began.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
				t.Errorf("told of %v, want %v or a little later", e.Time, began)
			}
		})
	}
}

func (c *toldCall) check(t *testing.T, e *cgroupbpf.Event, lines []string) {
	t.Helper()
	if len(lines) != 2 {
		t.Fatalf("printed %q, want two lines", lines)
	}
	if e.Program != "caller" || e.UID != 4711 || strconv.Itoa(int(e.PID)) != lines[0] {
		t.Errorf("told of %s[%d] of user %d, want caller[%s] of 4711", e.Program, e.PID, e.UID, lines[0])
	}
	if e.Protocol != c.protocol || e.Dst.String() != c.dst || e.Rule != c.rule || e.Source != c.source {
		t.Errorf("told of %s to %v by %q from %q, want %s to %s by %q from %q", e.Protocol, e.Dst, e.Rule, e.Source, c.protocol, c.dst, c.rule, c.source)
	}
	if !errors.Is(e.Err, c.err) {
		t.Errorf("told of the error %v, want %v", e.Err, c.err)
	}
	if refused := strings.HasPrefix(lines[1], "E"); refused != (c.err != nil) {
		t.Errorf("printed %q, want an error only where one is told: %v", lines[1], e.Err)
	}
	local, src := c.local, netip.Addr{}
	if c.src {
		src = calledFrom(t, lines[1]).Addr()
	}
	if c.port {
		local = calledFrom(t, lines[1]).Port()
	}
	if e.Src != src || e.LocalPort != local {
		t.Errorf("told of source %v and port %d, want %v and %d: the server saw %s", e.Src, e.LocalPort, src, local, lines[1])
	}
}

// calledFrom reads what a server has said; a port of 0 where it said none.
func calledFrom(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0)
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestKernelPlaneEventsOnce tells once of datagrams that are alike, and of each where it is judged.
func TestKernelPlaneEventsOnce(t *testing.T) {
	h := newHooked(t)
	told := h.listen()
	h.rule(cgroupbpf.Options{Log: true}, leaveFrom(both(10)))
	h.attach()
	lines := h.run(`
s = udp(port=6060)
for to in "203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.1": sent(to, s)
udp().connect(("127.0.0.1", 9))
tcp("203.0.113.3")`)
	if len(lines) != 6 {
		t.Fatalf("printed %q", lines)
	}
	for _, want := range []string{"203.0.113.1:7", "203.0.113.2:7", "203.0.113.1:7", "203.0.113.3:4000"} {
		if e := next(t, told); e.Dst.String() != want || e.Src != nstest.ProxyV4(10) {
			t.Errorf("told of %v from %v, want %s from %v", e.Dst, e.Src, want, nstest.ProxyV4(10))
		}
	}
}

// TestKernelPlaneEventsSwitch switches them by the rules, and has them over a change of the planes.
func TestKernelPlaneEventsSwitch(t *testing.T) {
	h := newHooked(t)
	pins := filepath.Join(mountBPF(t), "srcproxy")
	told := h.listen()
	n := 0
	calls := func(log bool, source int) {
		t.Helper()
		h.rule(cgroupbpf.Options{Log: log}, leaveFrom(both(source)), dialer.Rule{Name: fmt.Sprint("rule of ", source), Use: leaveFrom(both(source))})
		h.attach()
		n++
		h.says(t, fmt.Sprintf(`tcp("203.0.113.%d")`, n), nstest.ProxyV4(source).String())
		if !log {
			return
		}
		if e := next(t, told); e.Dst.Addr() != nstest.ServerV4(n) || e.Rule != fmt.Sprint("rule of ", source) || e.Src != nstest.ProxyV4(source) {
			t.Errorf("call %d: told of %v by %q from %v", n, e.Dst, e.Rule, e.Src)
		}
	}
	for range 2 {
		calls(false, 10)
		calls(true, 11)
		calls(true, 12)
		calls(true, 13)
		calls(false, 14)
	}
	calls(true, 15)
	// The rules are exchanged before what was told is read.
	h.says(t, `tcp("203.0.113.99")`, nstest.ProxyV4(15).String())
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	if e := next(t, told); e.Dst.Addr() != nstest.ServerV4(99) || e.Rule != "rule of 15" {
		t.Errorf("told of %v by %q, want what was decided before the exchange", e.Dst, e.Rule)
	}
	calls(true, 16)
	if err := h.plane.Pin(pins); err != nil {
		t.Fatal(err)
	}
	old, err := cgroupbpf.Open(pins)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = old.Close() }) // it was only taken over
	h.plane = loadPlane(t, old)
	told = h.listen()
	h.rule(cgroupbpf.Options{Log: true}, leaveFrom(both(17)))
	if err := h.plane.Attach(h.group, old); err != nil {
		t.Fatal(err)
	}
	h.says(t, `tcp("203.0.113.100")`, nstest.ProxyV4(17).String())
	if e := next(t, told); e.Dst.Addr() != nstest.ServerV4(100) || e.Src != nstest.ProxyV4(17) {
		t.Errorf("after the takeover: told of %v from %v", e.Dst, e.Src)
	}
}

// eventFlood is 200,000 datagrams, each of which is judged: the socket remembers one destination.
const eventFlood = `
s = udp(port=6060)
for i in range(100000):
    s.sendto(b"x", ("203.0.113.1", 9))
    s.sendto(b"x", ("203.0.113.2", 9))
say("done")`

// TestKernelPlaneEventsFlood has more decisions than can be told, once by a reader that stands still and once by one that
// is quick: the program does not notice, and what is not told is counted.
func TestKernelPlaneEventsFlood(t *testing.T) {
	h := newHooked(t)
	for _, still := range []bool{true, false} {
		h.plane = loadPlane(t, nil)
		var n atomic.Uint64
		gate := make(chan struct{})
		h.plane.OnDecision = func(*cgroupbpf.Event) {
			if still {
				<-gate
			}
			n.Add(1)
		}
		h.rule(cgroupbpf.Options{Log: true}, leaveFrom(both(10)))
		h.attach()
		began := time.Now()
		h.says(t, eventFlood, "done")
		took := time.Since(began)
		close(gate)
		h.rule(cgroupbpf.Options{}, leaveFrom(both(10))) // it tells what is left
		dropped, err := h.plane.Dropped()
		if err != nil {
			t.Fatal(err)
		}
		counters, err := h.plane.Counters()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("still %v: %d of %d told, %d dropped, in %v", still, n.Load(), counters[0].Datagrams, dropped, took)
		if counters[0].Datagrams != 200_000 || n.Load()+dropped != 200_000 {
			t.Errorf("%d decisions are counted, %d told and %d dropped; want 200000 and all of them", counters[0].Datagrams, n.Load(), dropped)
		}
		if still && dropped < 100_000 {
			t.Errorf("%d were dropped by a reader that stood still", dropped)
		}
		if err := h.plane.Detach(h.group); err != nil {
			t.Fatal(err)
		}
	}
	h.leaks.Allow(nstest.ProxyV4(10))
	if n, details := h.leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// TestKernelPlaneEventsExchange exchanges the rules while a program sends: what is told of each decision are the rules by
// which it was made, and none is lost.
func TestKernelPlaneEventsExchange(t *testing.T) {
	h := newHooked(t)
	var n atomic.Uint64
	h.plane.OnDecision = func(e *cgroupbpf.Event) {
		n.Add(1)
		if e.Rule != "by "+e.Source || e.Src.String() != "198.51.100."+strings.TrimPrefix(e.Source, "s") {
			t.Errorf("told of rule %q, source %q and %v", e.Rule, e.Source, e.Src)
		}
	}
	exchange := func(i int) {
		h.rule(cgroupbpf.Options{Log: true}, dialer.Use{}, dialer.Rule{Name: fmt.Sprint("by s", 10+i%5), Use: leaveFrom(both(10 + i%5))})
	}
	exchange(0)
	h.attach()
	p := h.start(`
say("ready")
s = udp(port=6060)
for i in range(100000):
    s.sendto(b"x", ("203.0.113.1", 9))
    s.sendto(b"x", ("203.0.113.2", 9))`, true)
	p.line()
	exchanges := 0
	for running := true; running; exchanges++ {
		exchange(exchanges + 1)
		select {
		case <-p.proc.Done():
			running = false
		default:
		}
	}
	h.rule(cgroupbpf.Options{}, dialer.Use{})
	dropped, err := h.plane.Dropped()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d told, %d dropped, %d exchanges", n.Load(), dropped, exchanges)
	if n.Load()+dropped != 200_000 || exchanges < 3 {
		t.Errorf("%d are told and %d dropped during %d exchanges, want 200000 and some exchanges", n.Load(), dropped, exchanges)
	}
}
