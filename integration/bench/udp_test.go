//go:build linux

package bench

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestMain builds the program, and runs everything in namespaces of its own: for UDP,
// the load tool and the programs under measurement in one, the server in another
// behind a veth pair.
func TestMain(m *testing.M) {
	nstest.Main(m, nstest.Setup{
		Prepare: func(dir string) error {
			_, err := nstest.Binary{}.BuildIn(dir)
			return err
		},
	})
}

const (
	stepTime = time.Second // shorter ones measure the buffers
	lowTime  = 2 * time.Second
	lowRate  = 5000
	midRate  = 20000
	maxLoss  = 0.001
	// Where the search for the greatest rate begins, and how many steps it takes.
	slowest, fastest      = 2000, 256000
	firstSteps, moreSteps = 7, 4
)

// system is a program that relays UDP, or none.
type system struct {
	name   string
	pid    int // 0: direct
	client *client
	rounds []figures
}

// figures are those of one round.
type figures struct {
	most   float64 // echoes a second with less than maxLoss
	busy   float64 // µs of the program's CPU time for a datagram at that rate
	midCPU float64 // at midRate, of which slower programs answer a part
	lowCPU float64 // and at lowRate
	trip   float64 // the median round trip at lowRate, in µs
	lost   float64 // part of the datagrams at lowRate
}

// BenchmarkAssociate measures SOCKS5 UDP associations. One iteration is one round of
// all systems in turn: -benchtime 5x makes five, and -v shows each.
func BenchmarkAssociate(b *testing.B) {
	for _, n := range []int{8, 500} {
		b.Run(fmt.Sprintf("associations=%d", n), func(b *testing.B) { benchmarkAssociate(b, n, false) })
	}
	// Both ends send by UDP_SEGMENT, as QUIC stacks do; what they receive comes singly.
	b.Run("joined", func(b *testing.B) { benchmarkAssociate(b, 8, true) })
}

func benchmarkAssociate(b *testing.B, n int, joined bool) {
	nstest.Need(b, "danted")
	top := nstest.NewTopology(b)
	target := echoUDP(b, top.Server, nstest.ServerV4(1), joined)
	prefix := append([]byte{0, 0, 0}, socksAddress(target)...)
	ours, dantes := netip.MustParseAddrPort("127.0.0.1:1080"), netip.MustParseAddrPort("127.0.0.1:1081")
	systems := []*system{
		direct(b, top, target, joined),
		{name: "srcproxy", pid: serveSrcproxy(b, top.Proxy, fmt.Sprintf("[[listen]]\nsocks = %q\n", ours)).Pid()},
		{name: "dante", pid: serveDante(b, top.Proxy, dantes).Pid()},
	}
	for i, at := range []netip.AddrPort{ours, dantes} {
		c := newClient(b, top.Proxy)
		c.joined = joined
		for k := range n {
			local := clientOf(k)
			c.add(local, associate(b, top.Proxy, at, netip.AddrPortFrom(local, c.port)), prefix)
		}
		systems[i+1].client = c
	}
	measure(b, systems)
}

// BenchmarkForward measures forwards to one target, each datagram of another flow. One
// iteration is one round of all systems in turn.
func BenchmarkForward(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			needNginx(b)
			top := nstest.NewTopology(b)
			target := echoUDP(b, top.Server, nstest.ServerV4(1), false)
			ours, theirs := netip.MustParseAddrPort("127.0.0.1:5300"), netip.MustParseAddrPort("127.0.0.2:5300")
			listener := fmt.Sprintf("[[listen]]\nudp = %q\nto = %q\n", ours, target)
			systems := []*system{
				direct(b, top, target, false),
				{name: "srcproxy", pid: serveSrcproxy(b, top.Proxy, listener).Pid()},
				{name: "nginx", pid: serveNginx(b, top.Proxy, theirs, target).Pid()},
			}
			for i, at := range []netip.AddrPort{ours, theirs} {
				c := newClient(b, top.Proxy)
				for k := range n {
					c.add(clientOf(k), at, nil)
				}
				systems[i+1].client = c
			}
			measure(b, systems)
		})
	}
}

// direct has no program between client and target.
func direct(b *testing.B, top *nstest.Topology, target netip.AddrPort, joined bool) *system {
	b.Helper()
	c := newClient(b, top.Proxy)
	c.joined = joined
	c.add(source(), target, nil)
	return &system{name: "direct", client: c}
}

// measure makes the rounds and reports the medians.
func measure(b *testing.B, systems []*system) {
	b.Helper()
	for _, s := range systems {
		// As many datagrams as each flow needs to open.
		warm := s.client.run(lowRate, stepTime/2)
		if warm.answered == 0 {
			b.Fatalf("%s: nothing of %d datagrams came back", s.name, warm.sent)
		}
	}
	for b.Loop() {
		for _, s := range systems {
			s.round(b)
		}
	}
	base := middle(systems[0].rounds, func(f figures) float64 { return f.most })
	for _, s := range systems {
		s.report(b, base)
	}
	b.ReportMetric(0, "ns/op") // a round is as long as it is
}

// round measures s once more.
func (s *system) round(b *testing.B) {
	b.Helper()
	f := s.search(b)
	_, f.midCPU = s.step(b, midRate, stepTime)
	low, cpu := s.step(b, lowRate, lowTime)
	f.lowCPU, f.trip, f.lost = cpu, float64(low.median().Nanoseconds())/1e3, low.lost()
	s.rounds = append(s.rounds, f)
	b.Logf("%-9s round %d: %6.0f/s %5.1f µs/datagram; at %d/s %5.1f, at %d/s %5.1f µs/datagram, trip %4.0f µs, lost %.4f",
		s.name, len(s.rounds), f.most, f.busy, midRate, f.midCPU, lowRate, f.lowCPU, f.trip, f.lost)
}

// search finds the greatest rate with hardly a loss by halving an interval: a wide one
// at first, later one around what was found before.
func (s *system) search(b *testing.B) (best figures) {
	b.Helper()
	lo, hi, steps := float64(slowest), float64(fastest), firstSteps
	if len(s.rounds) > 0 {
		before := middle(s.rounds, func(f figures) float64 { return f.most })
		lo, hi, steps = before/1.6, before*1.6, moreSteps
	}
	for range steps {
		rate := math.Sqrt(lo * hi)
		st, cpu := s.step(b, int(rate), stepTime)
		if st.lost() >= maxLoss {
			hi = rate
			continue
		}
		if r := st.reached(); r > best.most {
			best.most, best.busy = r, cpu
		}
		if st.reached() < 0.95*rate {
			hi = rate // nothing is lost, since the load tool gets no further
			continue
		}
		lo = rate
	}
	return best
}

// step sends at one rate, and tells what a datagram has cost the program: two of them
// make an echo.
func (s *system) step(b *testing.B, rate int, d time.Duration) (step, float64) {
	b.Helper()
	var before time.Duration
	if s.pid != 0 {
		before = groupTime(b, s.pid)
	}
	st := s.client.run(rate, d)
	if s.pid == 0 || st.answered == 0 {
		return st, 0
	}
	used := groupTime(b, s.pid) - before
	return st, float64(used.Nanoseconds()) / 1e3 / float64(2*st.answered)
}

func (s *system) report(b *testing.B, base float64) {
	b.Helper()
	most := middle(s.rounds, func(f figures) float64 { return f.most })
	b.ReportMetric(most, s.name+"-echoes/s")
	b.ReportMetric(middle(s.rounds, func(f figures) float64 { return f.trip }), s.name+"-5k-p50-µs")
	if s.pid == 0 {
		return
	}
	b.ReportMetric(most/base, s.name+"/direct")
	b.ReportMetric(middle(s.rounds, func(f figures) float64 { return f.busy }), s.name+"-cpu-µs/datagram")
	if most > midRate {
		b.ReportMetric(middle(s.rounds, func(f figures) float64 { return f.midCPU }), s.name+"-20k-cpu-µs/datagram")
	}
	b.ReportMetric(middle(s.rounds, func(f figures) float64 { return f.lowCPU }), s.name+"-5k-cpu-µs/datagram")
}

// middle is the median of one figure.
func middle(rounds []figures, of func(figures) float64) float64 {
	var xs []float64
	for _, f := range rounds {
		xs = append(xs, of(f))
	}
	slices.Sort(xs)
	if n := len(xs); n%2 == 0 {
		return (xs[n/2-1] + xs[n/2]) / 2
	}
	return xs[len(xs)/2]
}
