//go:build linux

// Package kernel measures the kernel plane beside programs that nothing rules, and beside nft's SNAT, in one interleaved run
// over veth pairs: only the ratio of two figures of one round means something.
package kernel

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m, nstest.Setup{}) }

// kinds of load, with what makes some tenths of a second.
var kinds = []struct {
	name  string
	port  int
	count int
}{
	{"bulk", 5001, 500},
	{"short", 5002, 1500},
	{"datagrams", 5003, 80_000}, // each has its destination, and runs a hook
	{"connected", 5003, 80_000}, // none does
}

// way is one of the ways in which packets get their source.
type way struct {
	name  string
	from  *nstest.Namespace
	group *cgroup.Group // nil: outside
}

// BenchmarkKernelPlane reports, for each kind of load, the speed of hooked programs and of programs under nft's SNAT as a
// part of what nothing rules reaches: the mean over all rounds, and the 95 % interval. One round is one operation.
func BenchmarkKernelPlane(b *testing.B) {
	nstest.Need(b, "cc", "nft")
	program := filepath.Join(b.TempDir(), "load")
	if out, err := exec.Command("cc", "-O2", "-o", program, "testdata/load.c").CombinedOutput(); err != nil {
		b.Fatalf("cc: %v\n%s", err, out)
	}
	free, snat := topology(b), topology(b)
	snatAll(b, snat)
	ways := []way{{"direct", free.Proxy, nil}, {"hooks", free.Proxy, hookedGroup(b)}, {"nft", snat.Proxy, nil}}
	ratios := make(map[string][]float64)
	for round := 0; b.Loop(); round++ {
		for _, k := range kinds {
			took := make([]time.Duration, len(ways))
			for i := range ways {
				w := (i + round) % len(ways) // none is always the first
				took[w] = ways[w].load(b, program, k.name, round, k.port, k.count)
			}
			for w := 1; w < len(ways); w++ {
				name := k.name + "-" + ways[w].name
				ratios[name] = append(ratios[name], float64(took[0])/float64(took[w]))
			}
		}
	}
	for name, r := range ratios {
		mean, half := interval(r)
		b.ReportMetric(mean, name)
		b.Logf("%-16s %.3f × direct, 95 %% from %.3f to %.3f, %d rounds", name, mean, mean-half, mean+half, len(r))
	}
	b.ReportMetric(0, "ns/op") // says nothing
}

// interval returns the mean and half of its 95 % interval, by Student's distribution.
func interval(r []float64) (mean, half float64) {
	n := float64(len(r))
	for _, v := range r {
		mean += v / n
	}
	for _, v := range r {
		half += (v - mean) * (v - mean)
	}
	t := 1.96 + 2.4/math.Max(n-1, 1) + 3/math.Pow(math.Max(n-1, 1), 2) // within 2 % from 3 rounds on
	return mean, t * math.Sqrt(half/math.Max(n-1, 1)/n)
}

// topology is one with servers for each kind of load.
func topology(b *testing.B) *nstest.Topology {
	b.Helper()
	top := nstest.NewTopology(b)
	top.Server.ServeTCP(b, "0.0.0.0:5001", func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c) // the load tool tells of errors
	})
	top.Server.EchoTCP(b, "0.0.0.0:5002")
	c, err := top.Server.ListenPacket("udp4", "0.0.0.0:5003") // nobody reads: what is full drops
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() }) // of a socket that nobody reads
	return top
}

func snatAll(b *testing.B, top *nstest.Topology) {
	b.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("table ip sources {\nchain out {\ntype nat hook postrouting priority 100;\nip daddr 203.0.113.0/24 snat to %v\n}\n}\n", nstest.ProxyV4(10)))
	if r := top.Proxy.Run(b, cmd); r.Err != nil {
		b.Fatal(r)
	}
}

// hookedGroup is a cgroup whose programs leave from one source, by a rule among others.
func hookedGroup(b *testing.B) *cgroup.Group {
	b.Helper()
	tree, err := cgroup.Mounted()
	if err != nil {
		nstest.Skip(b, err.Error())
	}
	own, err := tree.Own()
	if err != nil {
		b.Fatal(err)
	}
	g, err := cgroup.Create(own, "srcproxy-bench-")
	if err != nil {
		b.Fatal(err)
	}
	p, err := cgroupbpf.Load(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(g.Remove(), g.Close(), p.Close()); err != nil {
			b.Error(err)
		}
	})
	s := &dialer.Source{Name: "s", Addrs: []netip.Addr{nstest.ProxyV4(10)}}
	table, err := dialer.NewTable([]dialer.Rule{
		{To: []dialer.Match{dialer.MatchPrefix(netip.MustParsePrefix("10.0.0.0/8"))}},
		{To: []dialer.Match{dialer.MatchPrefix(netip.MustParsePrefix("203.0.113.0/24"))}, Use: dialer.Use{Source: s}},
	}, dialer.Use{})
	if err != nil {
		b.Fatal(err)
	}
	r, err := cgroupbpf.Compile(table, cgroupbpf.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(p.Set(r), p.Attach(g, nil)); err != nil {
		b.Fatal(err)
	}
	return g
}

// load runs the load tool and returns how long it says it took.
func (w *way) load(b *testing.B, program, kind string, round, port, count int) time.Duration {
	b.Helper()
	dst := nstest.ServerV4(1 + round%250) // another in each round: the ports of the last one are still in TIME_WAIT
	cmd := exec.Command(program, kind, dst.String(), strconv.Itoa(port), strconv.Itoa(count))
	if w.group != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: w.group.FD()}
	}
	r := w.from.Run(b, cmd)
	ns, err := strconv.ParseInt(strings.TrimSpace(r.Stdout), 10, 64)
	if r.Err != nil || err != nil {
		b.Fatalf("%s %s: %v, %v", w.name, kind, r, err)
	}
	return time.Duration(ns)
}
