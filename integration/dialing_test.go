//go:build linux

package integration

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestDialEndsWithItsAddress: a dial that waits for an answer ends as soon as the address
// that it leaves from is gone, long before timeouts.dial; with retry the next member of
// the pool takes over, and a hold keeps it.
func TestDialEndsWithItsAddress(t *testing.T) {
	nstest.Need(t, "nft", "ss", "sh")
	r := newRig(t)
	lost, next, held := netip.MustParsePrefix("198.51.100.77/24"), nstest.ProxyV4(11), netip.MustParsePrefix("198.51.100.78/24")
	for _, p := range []netip.Prefix{lost, held} {
		r.Proxy.AddAddr(t, "wan0", p)
	}
	hole := func(port uint16) netip.AddrPort { return at(nstest.ServerV4(1), port) }
	shell(t, r.Server, "nft 'add table inet hole; add chain inet hole in { type filter hook prerouting priority 0; }; add rule inet hole in ip saddr { 198.51.100.77, 198.51.100.78 } tcp dport 4997-4999 drop'")
	r.Server.GreetTCP(t, wildcard(nstest.ServerV4(1), 4998))
	r.serve(`default = "lost"
[sources]
lost = "198.51.100.77"
next = "198.51.100.11"
held = { ip = "198.51.100.78", hold = "1h" }
[pools]
both = { of = ["lost", "next"], pick = "first-up", retry = true }
[[rules]]
to   = "203.0.113.1"
port = 4998
use  = "both"
[[rules]]
port = 4997
use  = "held"
[[listen]]
mixed = "127.0.0.1:1080"
[timeouts]
dial = "10m"
`)
	type end struct {
		err  error
		from netip.Addr
		at   time.Time
	}
	dial := func(port uint16) <-chan end {
		ended := make(chan end, 1)
		c, err := r.Proxy.Dial(net.Dialer{}, "tcp", "127.0.0.1:1080")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			var e end
			if _, e.err = handshake(c, connect5(hole(port))); e.err == nil {
				e.from, e.err = readAddr(c)
			}
			e.at = time.Now()
			ended <- e
		}()
		return ended
	}
	const n = 20
	var refusals, retried []<-chan end
	for range n {
		refusals = append(refusals, dial(4999))
		retried = append(retried, dial(4998))
	}
	kept := dial(4997)
	eventually(t, "all are under way", func() bool {
		return strings.Count(r.Proxy.Run(t, exec.Command("ss", "-Htn", "state", "syn-sent")).Stdout, "\n") == 2*n+1
	})
	r.Proxy.DelAddr(t, "wan0", held)
	r.Proxy.DelAddr(t, "wan0", lost)
	gone := time.Now()
	var slowest time.Duration
	for _, c := range refusals {
		e := <-c
		slowest = max(slowest, e.at.Sub(gone))
		if e.err != refused(replyNetwork) {
			t.Errorf("a dial from an address that is gone: %v, want %v", e.err, refused(replyNetwork))
		}
	}
	for _, c := range retried {
		e := <-c
		slowest = max(slowest, e.at.Sub(gone))
		if e.err != nil || e.from != next {
			t.Errorf("a dial with retry: from %v, %v, want %v", e.from, e.err, next)
		}
	}
	t.Logf("%d dials ended within %v", 2*n, slowest)
	if slowest > 2*time.Second {
		t.Errorf("the slowest took %v", slowest)
	}
	select {
	case e := <-kept:
		t.Errorf("a dial whose source is held ended: %v", e.err)
	default:
	}
	if got := r.log.wait(t, n, "flow")[0].text("err"); !strings.Contains(got, "its address went away") {
		t.Errorf("the log says %q", got)
	}
}
