//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	leakSeeds   = 20
	leakFlows   = 5000 // of each seed
	leakWorkers = 16
	// leakChange is how often rules, addresses or the process change.
	leakChange = 150 * time.Millisecond
	// leakLimit bounds one seed, should flows never be done.
	leakLimit = 60 * time.Second
)

// TestNoLeaks drives 100,000 flows while reloads, broken files, kills and
// vanishing addresses come as the seed has them: the far end counts no packet
// from an address that the rules do not name for that destination.
func TestNoLeaks(t *testing.T) {
	var total tally
	start := time.Now()
	for seed := range uint64(leakSeeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			h := newHarness(t, seed, nstest.Binary{})
			h.drive(leakFlows, true)
			if n, details := h.leaks.Leaks(t); n != 0 {
				t.Errorf("%d packets from an address no rule named:\n%s", n, strings.Join(details, "\n"))
			}
			for _, wrong := range h.wrong {
				t.Error(wrong)
			}
			t.Logf("%v; %v", &h.tally, h.changes)
			total.add(&h.tally)
		})
	}
	t.Logf("%v in %v", &total, time.Since(start).Round(time.Second))
	if done := total.served.Load() + total.refused.Load(); done < leakSeeds*leakFlows {
		t.Errorf("%d flows were served or refused, want %d", done, leakSeeds*leakFlows)
	}
	if total.served.Load() < leakSeeds*leakFlows/2 {
		t.Errorf("%d flows were served, want more than half", total.served.Load())
	}
}

// TestLeaksAreCaught runs the harness on a program whose bind was taken out.
func TestLeaksAreCaught(t *testing.T) {
	h := newHarness(t, 1, nstest.Binary{Leak: true})
	h.drive(300, false)
	n, details := h.leaks.Leaks(t)
	if n == 0 || len(h.wrong) == 0 {
		t.Errorf("%d packets and %d flows were caught, want some of both", n, len(h.wrong))
	}
	kernels := func(line string) bool { return strings.Contains(line, "from "+nstest.ProxyV4(1).String()+" ") }
	if !slices.ContainsFunc(details, kernels) {
		t.Errorf("no leak is from the address that the kernel chooses: %q", details)
	}
	t.Logf("%v; %d packets caught", &h.tally, n)
}

// tally counts flows by how they ended.
type tally struct{ served, refused, broken atomic.Int64 }

func (a *tally) String() string {
	return fmt.Sprintf("%d flows served, %d refused, %d broken off", a.served.Load(), a.refused.Load(), a.broken.Load())
}

func (a *tally) add(b *tally) {
	a.served.Add(b.served.Load())
	a.refused.Add(b.refused.Load())
	a.broken.Add(b.broken.Load())
}

// harness is one seed: a program, clients beside it, and the far end.
type harness struct {
	*rig
	*rand.Rand
	seed  uint64
	leaks *nstest.LeakCounter
	tally
	changes map[string]int

	mu     sync.Mutex
	plans  []*leakPlan              // all that were ever in force
	base   int                      // the oldest that new flows may follow
	calm   bool                     // nobody is killed and no address is away
	storms int                      // counts ends of calm
	back   map[netip.Addr]time.Time // when addresses that were away came back
	wrong  []string
}

func newHarness(t *testing.T, seed uint64, binary nstest.Binary) *harness {
	t.Helper()
	h := &harness{rig: newRig(t), Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed, changes: make(map[string]int), calm: true, back: make(map[netip.Addr]time.Time)}
	h.binary.Leak = binary.Leak
	for _, wild := range []string{"0.0.0.0:4000", "[::]:4000"} {
		h.Server.GreetTCP(t, wild)
	}
	h.Server.ServeUDP(t, "0.0.0.0:7", func(peer, _ netip.AddrPort, _ []byte) []byte {
		return []byte(peer.Addr().String() + "\n")
	})
	h.leaks = h.Server.CountLeaks(t, "wan0")
	h.serve(h.nextPlan().config)
	return h
}

// nextPlan draws a plan and allows it, beside those that are in force.
func (h *harness) nextPlan() *leakPlan {
	p := newLeakPlan(h.Rand)
	for dst, sources := range p.allowed {
		h.leaks.AllowTo(dst, sources...)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plans = append(h.plans, p)
	return p
}

// drive runs flows until n are done, with changes in between if asked.
func (h *harness) drive(n int64, changes bool) {
	h.t.Helper()
	done, limit := make(chan struct{}), time.Now().Add(leakLimit)
	var workers, controller sync.WaitGroup
	for w := range leakWorkers {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(h.seed, uint64(w)+2))
			err := h.Proxy.Do(func() error {
				for h.served.Load()+h.refused.Load() < n {
					if time.Now().After(limit) {
						return fmt.Errorf("only %v in %v", &h.tally, leakLimit)
					}
					h.flow(r)
				}
				return nil
			})
			if err != nil {
				h.t.Error(err)
			}
		})
	}
	if changes {
		controller.Go(func() { h.change(done) })
	}
	workers.Wait()
	close(done)
	controller.Wait()
}

// change disturbs until done: reloads, broken files, kills, addresses.
func (h *harness) change(done <-chan struct{}) {
	tick := time.NewTicker(leakChange)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		switch k := h.IntN(10); {
		case k < 5:
			h.changes["reloads"]++
			h.goodReload()
		case k < 7:
			h.changes["broken files"]++
			if e := h.reload("default = \n"); e.text("msg") != "reload failed" {
				h.t.Errorf("a broken file is answered by %v", e)
			}
		case k < 8:
			h.changes["kills"]++
			h.kill()
		default:
			h.changes["addresses"]++
			h.vanish()
		}
	}
}

func (h *harness) goodReload() {
	p := h.nextPlan()
	if e := h.reload(p.config); e.text("msg") != "reloaded" {
		h.t.Errorf("a good file is answered by %v\n%s", e, p.config)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base = len(h.plans) - 1
}

// kill kills the program in the middle of everything and starts it again.
func (h *harness) kill() {
	h.storm()
	p := h.plans[len(h.plans)-1]
	h.proc.Kill()
	h.serve(p.config)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calm = true
}

// vanish takes an address away for a while; each third time of both families.
func (h *harness) vanish() {
	i := nstest.FirstSource + h.IntN(nstest.LastSource-nstest.FirstSource+1)
	four, six := netip.PrefixFrom(nstest.ProxyV4(i), 24), netip.PrefixFrom(nstest.ProxyV6(i), 64)
	h.storm()
	h.Proxy.DelAddr(h.t, "wan0", four)
	h.Proxy.DelAddr(h.t, "wan0", six)
	time.Sleep(time.Duration(20+h.IntN(200)) * time.Millisecond) // long enough for flows to meet the gap
	h.Proxy.AddAddr(h.t, "wan0", four)
	h.Proxy.AddAddr(h.t, "wan0", six)
	// The kernel's own choice for IPv6 is the address that was added last, which
	// must never be one that rules name.
	own := netip.PrefixFrom(nstest.ProxyV6(1), 64)
	h.Proxy.DelAddr(h.t, "wan0", own)
	h.Proxy.AddAddr(h.t, "wan0", own)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calm = true
	h.back[four.Addr()], h.back[six.Addr()] = time.Now(), time.Now()
}

// settling reports whether an address of p came back so lately that the program
// need not have seen it.
func (h *harness) settling(p netip.Prefix) bool {
	return time.Since(h.back[p.Addr()]) < 2*time.Second
}

func (h *harness) storm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calm = false
	h.storms++
}

// moment is what the harness was at when a flow began.
type moment struct {
	base, storms int
	calm         bool
}

func (h *harness) now() moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	return moment{h.base, h.storms, h.calm}
}

// flow makes one flow and judges what became of it. It runs in the namespace of
// the proxy host.
func (h *harness) flow(r *rand.Rand) {
	start := h.now()
	if r.IntN(4) == 0 {
		i := firstForward + r.IntN(forwards)
		source, err := askUDP(fmt.Sprintf("127.0.0.1:%d", i))
		start.base = 0 // a forward keeps the decision of a client it knows
		h.judge(start, nstest.ServerV4(i), source, err)
		return
	}
	dst, name := drawTCP(r)
	source, err := askTCP(r, dst, name)
	h.judge(start, dst, source, err)
}

func drawTCP(r *rand.Rand) (dst netip.Addr, name string) {
	switch r.IntN(8) {
	case 0:
		i := r.IntN(named)
		return nstest.ServerV4(firstNamed + i), fmt.Sprintf("d%d.leak.example", i+1)
	case 1:
		return nstest.ServerV4(rest4 + r.IntN(10)), ""
	case 2, 3:
		return nstest.ServerV6(1 + r.IntN(blocks6*block6)), ""
	}
	return nstest.ServerV4(1 + r.IntN(blocks4*block4)), ""
}

// judge compares a flow with the plans that were in force while it lasted.
func (h *harness) judge(start moment, dst netip.Addr, source netip.Addr, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var may, refuse bool
	var allowed []netip.Prefix
	for _, p := range h.plans[start.base:] {
		allowed = append(allowed, p.allowed[dst]...)
		refuse = refuse || len(p.allowed[dst]) == 0
	}
	disturbed := !start.calm || !h.calm || start.storms != h.storms
	for _, p := range allowed {
		may = may || p.Contains(source)
		disturbed = disturbed || h.settling(p)
	}
	reply := refused(0)
	switch {
	case err == nil && may:
		h.served.Add(1)
	case err == nil:
		h.complain("a flow to %v left from %v, want one of %v", dst, source, allowed)
		h.served.Add(1)
	case errors.As(err, &reply) && (refuse || disturbed):
		h.refused.Add(1)
	case disturbed:
		h.broken.Add(1)
	default:
		h.complain("a flow to %v: %v, want it to leave from one of %v", dst, err, allowed)
		h.broken.Add(1)
	}
}

// complain keeps the first complaints. h.mu is held.
func (h *harness) complain(format string, args ...any) {
	if len(h.wrong) < 20 {
		h.wrong = append(h.wrong, fmt.Sprintf(format, args...))
	}
}

// askTCP is one flow through SOCKS5: the source that the far end greets with.
// It ends by FIN or RST, from either side.
func askTCP(r *rand.Rand, dst netip.Addr, name string) (netip.Addr, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:1080", patience)
	if err != nil {
		time.Sleep(time.Millisecond) // the program is not back yet
		return netip.Addr{}, err
	}
	defer c.Close()
	request := connect5(at(dst, 4000))
	if name != "" {
		request = connect5Name(name, 4000)
	}
	if _, err := handshake(c, request); err != nil {
		return netip.Addr{}, err
	}
	_ = c.SetDeadline(time.Now().Add(patience)) // of an open connection
	source, err := readAddr(c)
	if err != nil {
		return netip.Addr{}, err
	}
	switch r.IntN(3) {
	case 0:
		_ = c.(*net.TCPConn).SetLinger(0) // the close then resets
	case 1:
		_ = c.(*net.TCPConn).CloseWrite() // and the echo ends
		_, _ = io.Copy(io.Discard, c)
	}
	return source, nil
}

func readAddr(r io.Reader) (netip.Addr, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(strings.TrimSpace(line))
}

// askUDP is one datagram from a fresh socket and its answer, the source that
// the far end saw.
func askUDP(forward string) (netip.Addr, error) {
	c, err := net.Dial("udp", forward)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("who")); err != nil {
		return netip.Addr{}, err
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second)) // of an open socket
	return readAddr(c)
}
