//go:build linux

package integration

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// An age is what befalls the program in a while.
type age struct{ conns, associations, reloads, flaps int }

// figures is what the program holds when it is at rest.
type figures struct{ descriptors, goroutines, heap int }

// TestAging has the program live for a day in seconds: connections, associations and
// forwarded datagrams, some of them refused, while files good and broken are loaded, and an
// address goes and comes. Then it has the descriptors, goroutines and memory that it had
// when it was young.
func TestAging(t *testing.T) {
	r := newRig(t)
	r.binary.Figures = true
	for _, wild := range []string{"0.0.0.0:", "[::]:"} {
		r.Server.GreetTCP(t, wild+"4000")
		r.Server.ServeUDP(t, wild+"7", func(peer, _ netip.AddrPort, _ []byte) []byte { return []byte(peer.Addr().String() + "\n") })
	}
	r.serve(agingConfig(0))
	r.live(age{100, 100, 20, 5})
	young := r.rest(func(figures) bool { return true })
	start := time.Now()
	r.live(age{10000, 5000, 220, 50})
	took := time.Since(start)
	old := r.rest(func(f figures) bool { return f.descriptors <= young.descriptors && f.goroutines <= young.goroutines })
	t.Logf("%+v when young, %+v when old; it took %v", young, old, took)
	if old.heap > young.heap+agingHeap && !nstest.Race() {
		t.Errorf("%d KiB are in use, as a young one it had %d", old.heap>>10, young.heap>>10)
	}
}

// agingHeap is for tables that keep the size they had at their fullest, in bytes: some
// 140 KiB. A listener that is held after a reload has closed it would be 10 KiB, of 146.
const agingHeap = 512 << 10

// rest waits until the program has no flows and its figures are as they should be.
func (r *rig) rest(ok func(figures) bool) (f figures) {
	r.t.Helper()
	eventually(r.t, "all flows have ended", func() bool {
		return len(asked[admin.Conns](r.t, r, "conns").Conns) == 0
	})
	for deadline := time.Now().Add(patience); ; {
		before, _ := r.log.with("figures")
		r.signal(syscall.SIGUSR1)
		e := r.log.wait(r.t, len(before)+1, "figures")[len(before)]
		f = figures{r.descriptors(), e.number("goroutines"), e.number("heap")}
		if ok(f) {
			return f
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("it has %+v still", f)
		}
	}
}

// agingConfig has other rules, listeners and sources in each third file.
func agingConfig(i int) string {
	config := `
default = "wan"
[sources]
wan  = ["198.51.100.10", "2001:db8:1::10"]
away = ["198.51.100.30", "2001:db8:1::30"]
some = { ip = "198.51.100.20", ports = "40000-44999" }
EXTRA
[pools]
both = { of = ["away", "wan"], pick = "first-up" }
[[rules]]
to = "203.0.113.66"
use = "deny"
[[rules]]
to = ["203.0.113.2", "d1.leak.example"]
use = "some"
[[rules]]
to = ["203.0.113.0/24", "2001:db8:2::/64"]
use = "both"
[[listen]]
mixed = "127.0.0.1:1080"
[[listen]]
udp = "127.0.0.1:5300"
to = "203.0.113.9:7"
[timeouts]
udp = "1s"
[log]
flows = false
`
	extra := ""
	switch i % 3 {
	case 1:
		extra = `probed = { ip = "198.51.100.21", probe = "203.0.113.1:4000" }`
		config += "[[listen]]\nmixed = \"127.0.0.1:1081\"\n[[rules]]\nto = \"*.example\"\nuse = \"probed\"\n"
	case 2:
		config += "[[listen]]\nudp = \"127.0.0.1:5301\"\nto = \"203.0.113.9:7\"\nuse = \"wan\"\nsource_port = 5062\n[[listen]]\ntcp = \"127.0.0.1:2525\"\nto = \"203.0.113.9:4000\"\n"
	}
	return strings.Replace(config, "EXTRA", extra, 1)
}

// live lets the program have an age.
func (r *rig) live(a age) {
	r.t.Helper()
	var users sync.WaitGroup
	var conns, associations, served atomic.Int64
	for w := range 8 {
		users.Go(func() {
			draw := rand.New(rand.NewPCG(uint64(w), uint64(a.conns)))
			err := r.Proxy.Do(func() error {
				for conns.Add(1) <= int64(a.conns) {
					served.Add(agingConn(draw))
				}
				for associations.Add(1) <= int64(a.associations) {
					served.Add(agingAssociation(draw))
				}
				return nil
			})
			if err != nil {
				r.t.Error(err)
			}
		})
	}
	r.agingReloads(a.reloads)
	r.agingFlaps(a.flaps)
	users.Wait()
	if n := int(served.Load()); n < (a.conns+a.associations)*8/10 {
		r.t.Errorf("%d of %d were served, want eight of ten", n, a.conns+a.associations)
	}
}

// agingReloads loads n files, one in ten of them broken.
func (r *rig) agingReloads(n int) {
	r.t.Helper()
	for i := range n {
		config, want := agingConfig(i), "reloaded"
		if i%10 == 9 {
			config, want = brokenFiles[i/10%4].text, "reload failed" // but for the one that needs a busy port
		}
		if e := r.reload(config); e.text("msg") != want {
			r.t.Fatalf("file %d: %v, want %s", i, e, want)
		}
	}
	if e := r.reload(agingConfig(0)); e.text("msg") != "reloaded" {
		r.t.Fatal(e)
	}
}

// agingFlaps takes the first address of the pool away and puts it back n times.
func (r *rig) agingFlaps(n int) {
	r.t.Helper()
	away := netip.PrefixFrom(nstest.ProxyV4(30), 24)
	for range n {
		for _, step := range []struct {
			state  string
			change func(testing.TB, string, netip.Prefix)
		}{{"down", r.Proxy.DelAddr}, {"up", r.Proxy.AddAddr}} {
			in := func(e entry) bool { return e.text("source") == "away" && e.text("state") == step.state }
			before := r.log.waitFor(r.t, 0, in, "source changed")
			step.change(r.t, "wan0", away)
			r.log.waitFor(r.t, len(before)+1, in, "source changed")
		}
	}
}

// agingConn is one connection of those that there are: by address and name, some of them
// refused or denied. It tells how many were served, or refused as they should be.
func agingConn(draw *rand.Rand) int64 {
	var err error
	switch draw.IntN(8) {
	case 0:
		_, err = askTCP(draw, nstest.ServerV4(66), "")
		return one(errors.Is(err, refused(replyRuleset)))
	case 1: // nobody listens
		err = agingRefused(at(nstest.ServerV4(1), 4001))
		return one(errors.Is(err, refused(replyRefused)))
	case 2:
		_, err = askTCP(draw, netip.Addr{}, "server.example")
	case 3:
		_, err = askTCP(draw, nstest.ServerV4(2), "")
	case 4:
		_, err = askTCP(draw, nstest.ServerV6(1), "")
	case 5: // who says nothing, and goes
		c, dialErr := net.Dial("tcp", "127.0.0.1:1080")
		if err = dialErr; err == nil {
			err = c.Close()
		}
	case 6:
		_, err = askUDP("127.0.0.1:5300")
	default:
		_, err = askTCP(draw, nstest.ServerV4(1), "")
	}
	return one(err == nil)
}

func one(ok bool) int64 {
	if ok {
		return 1
	}
	return 0
}

func agingRefused(dst netip.AddrPort) error {
	c, err := net.Dial("tcp", "127.0.0.1:1080")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = handshake(c, connect5(dst))
	return err
}

// agingAssociation is one association that asks two servers.
func agingAssociation(draw *rand.Rand) int64 {
	c, err := net.Dial("tcp", "127.0.0.1:1080")
	if err != nil {
		return 0
	}
	defer c.Close()
	relay, err := handshake(c, []byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	if err != nil {
		return 0
	}
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0
	}
	defer u.Close()
	a := association{udp: u, relay: relay}
	for _, dst := range []netip.Addr{nstest.ServerV4(1 + draw.IntN(3)), nstest.ServerV6(1)} {
		if _, err := a.ask(at(dst, 7), "who am I", time.Second); err != nil {
			return 0
		}
	}
	return 1
}
