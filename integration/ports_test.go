//go:build linux

package integration

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestEveryPortToEveryDestination holds as many connections as one source, 100
// ports and 20 destinations can carry, the ports being those of the system or of
// the source; the next one fails, and the reply, the log and the list of sources
// say why.
func TestEveryPortToEveryDestination(t *testing.T) {
	for _, tt := range []struct{ name, system, source, hint string }{
		{"of the system", "40000 40099", `"198.51.100.10"`, "all 100 ports of net.ipv4.ip_local_port_range, 40000-40099, are in use; add addresses (a range, or a pool), or widen it: sysctl"},
		{"of the source", "40000 49999", `{ ip = "198.51.100.10", ports = "41000-41099" }`, "all 100 of its ports 41000-41099 are in use; widen them, or add addresses (a range, or a pool)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nstest.WithClient)
			r.Proxy.Sysctl(t, "net.ipv4.ip_local_port_range", tt.system)
			testEveryPort(t, r, tt.source, tt.hint)
		})
	}
}

func testEveryPort(t *testing.T, r *rig, source, hint string) {
	t.Helper()
	const ports, destinations = 100, 20
	s := r.Server.EchoTCP(t, "0.0.0.0:80")
	r.serve(`
default = "wan"
[sources]
wan = ` + source + `
[[listen]]
mixed = "192.0.2.1:1080"
allow = "192.0.2.0/24"
[limits]
connections = 5000
[log]
flows = true
`)
	held := make([][]*net.TCPConn, destinations)
	var all sync.WaitGroup
	for i := range destinations {
		all.Go(func() {
			for n := range ports {
				c, err := r.through("192.0.2.1:1080", at(nstest.ServerV4(i+1), 80))
				if err != nil {
					t.Errorf("connection %d to destination %d: %v", n+1, i+1, err)
					return
				}
				held[i] = append(held[i], c)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	wantSources(t, s, wan4, ports*destinations)

	dst := at(nstest.ServerV4(1), 80)
	if _, err := r.through("192.0.2.1:1080", dst); err != refused(replyGeneral) {
		t.Errorf("one more: %v, want %v", err, refused(replyGeneral))
	}
	got := r.log.wait(t, 1, "flow")[0].text("err")
	for _, want := range []string{`source "wan"`, "from 198.51.100.10 to " + dst.String(), hint} {
		if !strings.Contains(got, want) {
			t.Errorf("err is %q, want it to name %s", got, want)
		}
	}
	if got := r.program("sources"); !strings.Contains(got.Stdout, "100/100") || !strings.Contains(got.Stdout, "# Health: wan: 100 of the 100 ports of 198.51.100.10 to 203.0.113.") {
		t.Errorf("sources: %v", got)
	}
	for i, conns := range held {
		for n, c := range conns {
			if _, err := tryEcho(c, "x"); err != nil {
				t.Fatalf("held connection %d to destination %d: %v", n+1, i+1, err)
			}
		}
	}
	// A port that comes free can be used again, by the same destination.
	reset(t, held[0][0])
	r.log.wait(t, 2, "flow")
	if _, err := r.through("192.0.2.1:1080", dst); err != nil {
		t.Errorf("after one ended: %v", err)
	}
}

// TestPortRange wants the ports of a source used, and no others.
func TestPortRange(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:80")
	r.serve(`
default = "batch"
[sources]
batch = { ip = "198.51.100.10-198.51.100.13", ports = "40000-40009" }
[[listen]]
mixed = "127.0.0.1:1080"
`)
	for i := range 30 {
		if _, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1+i%3), 80)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range s.Peers() {
		low, high := nstest.ProxyV4(10), nstest.ProxyV4(13)
		if p.Port() < 40000 || p.Port() > 40009 || p.Addr().Less(low) || high.Less(p.Addr()) {
			t.Errorf("the server was called from %v, want 198.51.100.10-13 and port 40000-40009", p)
		}
	}
}

// TestPrefixSource takes addresses of a prefix that is routed to the host and
// on no link.
func TestPrefixSource(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "[::]:80")
	r.serve(fmt.Sprintf(`
default = "crawl"
[sources]
crawl = { ip = %q }
[[listen]]
mixed = "127.0.0.1:1080"
`, nstest.RoutedPrefix()))
	for range 20 {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV6(1), 80))
		if err != nil {
			t.Fatal(err)
		}
		if got := echoed(t, c, "x"); got != "x" {
			t.Errorf("echo is %q", got)
		}
	}
	sources := s.Sources()
	for a := range sources {
		if !nstest.RoutedPrefix().Contains(a) {
			t.Errorf("the server was called from %v, want an address of %v", a, nstest.RoutedPrefix())
		}
	}
	if len(sources) < 15 {
		t.Errorf("20 connections came from %d addresses, want a fresh one for each", len(sources))
	}
}
