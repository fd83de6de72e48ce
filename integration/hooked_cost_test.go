//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// hookCalls makes 20,000 calls of each kind.
const hookCalls = `
s, s6, c, c6 = udp(), udp(AF_INET6), udp(), udp(AF_INET6)
for i in range(20000):
    s.sendto(b"x", ("203.0.113.1", 9))
    s6.sendto(b"x", ("2001:db8:2::1", 9))
for i in range(20000):
    c = udp()
    c.connect(("203.0.113.1", 9))
    c.close()
    c = udp(AF_INET6)
    c.connect(("2001:db8:2::1", 9))
    c.close()
say("done")`

// TestKernelPlaneCost measures by the kernel's own statistics what a call of each hook takes, among 1,000 prefixes.
func TestKernelPlaneCost(t *testing.T) {
	for _, log := range []bool{false, true} {
		t.Run(fmt.Sprint("log ", log), func(t *testing.T) { hookCost(t, log) })
	}
}

func hookCost(t *testing.T, log bool) {
	h := newHooked(t)
	h.plane.OnDecision = func(*cgroupbpf.Event) {}
	pins := filepath.Join(mountBPF(t), "cost")
	m := make(map[dialer.Match]dialer.Use)
	for i := range 1000 {
		m[dialer.MatchPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))] = leaveFrom(both(11 + i%20))
	}
	m[dialer.MatchPrefix(netip.MustParsePrefix("203.0.113.0/24"))] = leaveFrom(both(10))
	m[dialer.MatchPrefix(netip.MustParsePrefix("2001:db8:2::/64"))] = leaveFrom(both(10))
	h.rule(cgroupbpf.Options{Log: log}, dialer.Use{}, dialer.Rule{Map: m})
	h.attach()
	if err := h.plane.Pin(pins); err != nil {
		t.Fatal(err)
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		nstest.Skip(t, fmt.Sprintf("no permission to read the statistics of BPF programs: %v", err))
	}
	defer stats.Close()
	h.says(t, hookCalls, "done")
	for hook, bound := range map[string]time.Duration{
		"connect4": 2 * time.Microsecond, "connect6": 2 * time.Microsecond,
		"sendmsg4": 300 * time.Nanosecond, "sendmsg6": 300 * time.Nanosecond,
	} {
		p, err := ebpf.LoadPinnedProgram(filepath.Join(pins, hook), nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Stats()
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		cost := s.Runtime / time.Duration(max(s.RunCount, 1))
		t.Logf("%s: %v a call, of %d", hook, cost, s.RunCount)
		// Tenfold, for a machine that does other things as well.
		if s.RunCount < 20_000 || cost > 10*bound {
			t.Errorf("%s: %v a call of %d, want less than %v", hook, cost, s.RunCount, 10*bound)
		}
	}
}
