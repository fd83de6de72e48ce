//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// capture is what tcpdump printed so far.
type capture struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(b)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// sources counts the packets of each source, and those of each destination:
//
//	IP 198.51.100.20.41233 > 203.0.113.53.53: 4660+ A? small.example. (31)
func (c *capture) sources(t *testing.T) (from, to map[netip.Addr]int) {
	t.Helper()
	from, to = make(map[netip.Addr]int), make(map[netip.Addr]int)
	for line := range strings.Lines(c.String()) {
		w := strings.Fields(line)
		if len(w) < 5 || !strings.HasPrefix(w[0], "IP") || w[2] != ">" {
			continue
		}
		for i, count := range map[int]map[netip.Addr]int{1: from, 3: to} {
			a, err := netip.ParseAddr(w[i][:strings.LastIndexByte(w[i], '.')])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			count[a]++
		}
	}
	return from, to
}

// TestDNSSeenByTcpdump has tcpdump look at the wire: over both families, by UDP and TCP,
// no query left from any address but the rule's.
func TestDNSSeenByTcpdump(t *testing.T) {
	nstest.Need(t, "tcpdump")
	r := newDNSRig(t)
	cmd := exec.Command("tcpdump", "-i", "wan0", "-Q", "in", "-t", "-n", "-l", "--immediate-mode", "-Z", "root", "dst", "port", "53")
	var out, log capture
	cmd.Stdout, cmd.Stderr = &out, &log
	p := r.Server.Start(t, cmd)
	eventually(t, "tcpdump listens", func() bool {
		select {
		case <-p.Done():
			t.Fatalf("tcpdump ended: %s", &log)
		default:
		}
		return strings.Contains(log.String(), "listening on")
	})
	r.serve(r.config(20, fmt.Sprintf("servers = %q\ncache = 0", r.server4)))
	for _, server := range []netip.Addr{r.server4, r.server6} {
		r.reload(r.config(20, fmt.Sprintf("servers = \"%v\"\ncache = 0", netip.AddrPortFrom(server, 53))))
		for _, name := range []string{"small.example", "six.dns", "big.example"} {
			if _, err := r.reach(name); err != nil {
				t.Errorf("%s by %v: %v", name, server, err)
			}
		}
	}
	if len(r.tcp4.Peers()) == 0 || len(r.tcp6.Peers()) == 0 {
		t.Error("no query by TCP")
	}
	asked := map[netip.Addr]int{
		r.server4: len(r.udp4.Peers()) + len(r.tcp4.Peers()),
		r.server6: len(r.udp6.Peers()) + len(r.tcp6.Peers()),
	}
	eventually(t, "tcpdump saw all queries", func() bool {
		_, to := out.sources(t)
		return to[r.server4] >= asked[r.server4] && to[r.server6] >= asked[r.server6]
	})
	from, to := out.sources(t)
	if len(from) != 2 || from[nstest.ProxyV4(20)] != to[r.server4] || from[nstest.ProxyV6(20)] != to[r.server6] {
		t.Errorf("queries left from %v, to %v; want %v and %v alone\n%s", from, to, nstest.ProxyV4(20), nstest.ProxyV6(20), &out)
	}
	t.Logf("packets to name servers: %v, from %v", to, from)
}
