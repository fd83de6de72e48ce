//go:build linux

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	hookedSeeds   = 4
	hookedChanges = 40 // of each seed
	hookedWorkers = 3
)

// hookedWorker makes flows of every kind until a line comes in, and then prints how many went and how many were refused.
const hookedWorker = `
import random, select
random.seed(SEED)
went = refused = 0
many, many6 = udp(), udp(AF_INET6)
say("ready")
while not select.select([sys.stdin], [], [], 0)[0]:
    for i in range(50):
        four, six = "203.0.113.%d" % random.randint(1, 90), "2001:db8:2::%d" % random.randint(1, 40)
        kind, s = random.randrange(8), None
        try:
            if kind == 0: s = socket(); s.settimeout(1); s.connect((four, 4000))
            elif kind == 1: s = socket(AF_INET6); s.settimeout(1); s.connect((six, 4000))
            elif kind == 2: s = socket(AF_INET6); s.settimeout(1); s.connect(("::ffff:" + four, 4000))
            elif kind == 3: s = udp(); s.connect((four, 9)); s.send(b"x"); disconnect(s); s.connect((four, 9)); s.send(b"x")
            elif kind == 4: s = udp(AF_INET6); s.connect((six, 9)); s.send(b"x"); s.sendto(b"x", (six, 10))
            else:
                sender, to = [(many, (four, 9)), (many6, (six, 9)), (many6, ("::ffff:" + four, 9))][kind - 5]
                for _ in range(4): sender.sendto(b"x", to)
            went += 1
        except OSError: refused += 1
        finally:
            if s: s.close()
say(went, refused)`

// hookedHarness is one seed of the leak harness on the kernel plane.
type hookedHarness struct {
	*hooked
	*rand.Rand
	pins          string
	workers       []*talk
	went, refused int
	changes       map[string]int
}

// plan draws rules and allows what they name, beside what was allowed before.
func (h *hookedHarness) plan() {
	h.t.Helper()
	var rules []dialer.Rule
	for b := range blocks4 {
		rules = append(rules, h.block(hosts4(1+b*block4, block4), nstest.ProxyV4))
	}
	for b := range blocks6 {
		rules = append(rules, h.block(hosts6(1+b*block6, block6), nstest.ProxyV6))
	}
	h.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	h.rule(cgroupbpf.Options{}, dialer.Use{}, rules...)
}

// block draws the rule of some destinations.
func (h *hookedHarness) block(dsts []netip.Addr, address func(int) netip.Addr) dialer.Rule {
	var r dialer.Rule
	for _, d := range dsts {
		r.To = append(r.To, dialer.MatchPrefix(netip.PrefixFrom(d, d.BitLen())))
	}
	var members []dialer.Member
	for range h.IntN(4) {
		i := nstest.FirstSource + h.IntN(nstest.LastSource-nstest.FirstSource+1)
		members = append(members, dialer.Member{Source: both(i)})
		for _, d := range dsts {
			h.leaks.AllowTo(d, single(address(i)))
		}
	}
	switch len(members) {
	case 0: // denied
	case 1:
		r.Use = leaveFrom(members[0].Source)
	default:
		pick := []dialer.Pick{dialer.FirstUp, dialer.RoundRobin, dialer.Random, dialer.Sticky}[h.IntN(4)]
		r.Use.Pool = &dialer.Pool{Name: "p", Of: members, Pick: pick, By: []dialer.Key{dialer.ByDestination}}
	}
	return r
}

func (h *hookedHarness) startWorker(inside bool) {
	h.t.Helper()
	w := h.start(strings.ReplaceAll(hookedWorker, "SEED", fmt.Sprint(h.IntN(1<<30))), inside)
	w.line()
	h.workers = append(h.workers, w)
}

// stopWorker ends the oldest worker and adds up what it did.
func (h *hookedHarness) stopWorker() {
	h.t.Helper()
	w := h.workers[0]
	h.workers = h.workers[1:]
	w.goes()
	went, refused, _ := strings.Cut(w.line(), " ")
	for text, sum := range map[string]*int{went: &h.went, refused: &h.refused} {
		n, err := strconv.Atoi(text)
		if err != nil {
			h.t.Fatal(err)
		}
		*sum += n
	}
}

// change disturbs once.
func (h *hookedHarness) change() {
	h.t.Helper()
	switch k := h.IntN(10); {
	case k < 5:
		h.changes["rules"]++
		h.plan()
	case k < 7:
		h.changes["loaders"]++
		h.exchange()
	case k < 8:
		h.changes["kills"]++
		h.workers[0].proc.Kill()
		h.workers = h.workers[1:]
		h.startWorker(true)
	default:
		h.changes["addresses"]++
		h.vanish()
	}
}

// exchange lets the loader die and another one take over.
func (h *hookedHarness) exchange() {
	h.t.Helper()
	if err := h.plane.Close(); err != nil {
		h.t.Fatal(err)
	}
	old, err := cgroupbpf.Open(h.pins)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.plane, err = cgroupbpf.Load(old); err != nil {
		h.t.Fatal(err)
	}
	h.plan()
	if err := errors.Join(h.plane.Attach(h.group, old), h.plane.Pin(h.pins), old.Close()); err != nil {
		h.t.Fatal(err)
	}
}

// vanish takes an address of both families away for a while.
func (h *hookedHarness) vanish() {
	h.t.Helper()
	i := nstest.FirstSource + h.IntN(nstest.LastSource-nstest.FirstSource+1)
	four, six := netip.PrefixFrom(nstest.ProxyV4(i), 24), netip.PrefixFrom(nstest.ProxyV6(i), 64)
	h.Proxy.DelAddr(h.t, "wan0", four)
	h.Proxy.DelAddr(h.t, "wan0", six)
	if err := h.plane.SetState(away{four.Addr(): true, six.Addr(): true}); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // long enough for flows to meet the gap
	h.Proxy.AddAddr(h.t, "wan0", four)
	h.Proxy.AddAddr(h.t, "wan0", six)
	// The kernel's own choice for IPv6 is the address that was added last.
	own := netip.PrefixFrom(nstest.ProxyV6(1), 64)
	h.Proxy.DelAddr(h.t, "wan0", own)
	h.Proxy.AddAddr(h.t, "wan0", own)
	if err := h.plane.SetState(nil); err != nil {
		h.t.Fatal(err)
	}
}

func newHookedHarness(t testing.TB, seed uint64) *hookedHarness {
	t.Helper()
	h := &hookedHarness{hooked: newHooked(t), Rand: rand.New(rand.NewPCG(seed, 3)), changes: make(map[string]int)}
	h.pins = filepath.Join(mountBPF(t), "srcproxy")
	p, err := cgroupbpf.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.plane = p
	t.Cleanup(func() {
		if err := h.plane.Close(); err != nil {
			t.Error(err)
		}
	})
	h.plan()
	h.attach()
	if err := h.plane.Pin(h.pins); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestKernelPlaneNoLeaks disturbs programs that open flows of every kind: rules, loaders, the programs themselves and
// addresses change. The far end counts no packet from an address that no rule has named for its destination.
func TestKernelPlaneNoLeaks(t *testing.T) {
	went, refused := 0, 0
	for seed := range uint64(hookedSeeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			h := newHookedHarness(t, seed)
			for range hookedWorkers {
				h.startWorker(true)
			}
			for range hookedChanges {
				h.change()
			}
			for len(h.workers) > 0 {
				h.stopWorker()
			}
			if n, details := h.leaks.Leaks(t); n != 0 {
				t.Errorf("%d packets from an address no rule named:\n%s", n, strings.Join(details, "\n"))
			}
			packets := uint64(0)
			for _, n := range h.leaks.Seen(t) {
				packets += n
			}
			t.Logf("%d flows went, %d were refused, %d packets; %v", h.went, h.refused, packets, h.changes)
			went, refused = went+h.went, refused+h.refused
		})
	}
	t.Logf("%d flows went, %d were refused", went, refused)
	if went < 10_000 || refused < 1_000 {
		t.Error("that is less than this test is for")
	}
}

// TestKernelPlaneLeaksAreCaught runs the harness on programs that are outside of the cgroup.
func TestKernelPlaneLeaksAreCaught(t *testing.T) {
	h := newHookedHarness(t, 1)
	h.startWorker(false)
	h.plan()
	h.stopWorker()
	if n, details := h.leaks.Leaks(t); n == 0 || !strings.Contains(strings.Join(details, "\n"), "from "+nstest.ProxyV4(1).String()+" ") {
		t.Errorf("%d packets were caught, want some of the kernel's choice: %q", n, details)
	}
}
