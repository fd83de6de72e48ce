//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/proxy"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestFreshAddresses makes 10 000 connections out of a /64: the far end sees as many
// addresses.
func TestFreshAddresses(t *testing.T) {
	const n, workers = 10000, 20
	r := newRig(t)
	s := r.Server.EchoTCP(t, "[::]:80")
	r.serve(fmt.Sprintf("default = \"crawl\"\n[sources]\ncrawl = { ip = %q }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[log]\nflows = false\n", nstest.RoutedPrefix()))
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range n / workers {
				c, err := r.through("127.0.0.1:1080", at(nstest.ServerV6(1+i%8), 80))
				if err == nil {
					_, err = tryEcho(c, "x")
				}
				if err != nil {
					t.Errorf("connection %d of worker %d: %v", i, w, err)
					return
				}
				reset(t, c)
			}
		})
	}
	all.Wait()
	eventually(t, "the server was called by all", func() bool { return len(s.Peers()) >= n })
	sources := s.Sources()
	if len(sources) != n {
		t.Errorf("%d connections came from %d addresses, want one for each", n, len(sources))
	}
	for a := range sources {
		if !nstest.RoutedPrefix().Contains(a) {
			t.Errorf("the server was called from %v, want an address of %v", a, nstest.RoutedPrefix())
		}
	}
}

// TestNoLocalRoute refuses a prefix whose answers would not arrive, and says how to cure
// that; the cure helps at once.
func TestNoLocalRoute(t *testing.T) {
	nstest.Need(t, "ip")
	r := newRig(t)
	r.Server.EchoTCP(t, "[::]:80")
	r.serve("default = \"crawl\"\n[sources]\ncrawl = { ip = \"2001:db8:65::/64\" }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	leaks := r.Server.CountLeaks(t, "wan0")
	if _, err := r.through("127.0.0.1:1080", at(nstest.ServerV6(1), 80)); err != refused(replyNetwork) {
		t.Errorf("without a local route: %v, want %v", err, refused(replyNetwork))
	}
	const cure = "ip -6 route add local 2001:db8:65::/64 dev lo"
	if got := r.log.wait(t, 1, "flow")[0].text("err"); !strings.Contains(got, cure) {
		t.Errorf("err is %q, want it to name the cure %q", got, cure)
	}
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets left: %q", n, details)
	}
	words := strings.Fields(cure)
	if res := r.run(words[0], words[1:]...); res.Err != nil {
		t.Fatal(res)
	}
	if res := r.Server.Run(t, r.command("ip", "-6", "route", "add", "2001:db8:65::/64", "via", nstest.ProxyV6(1).String())); res.Err != nil {
		t.Fatal(res)
	}
	eventually(t, "the cure helps", func() bool {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV6(1), 80))
		if err != nil {
			return false
		}
		_, err = tryEcho(c, "x")
		return err == nil
	})
}

const sessionsConfig = `
default = "crawl"
[sources]
crawl = { ip = "2001:db8:64::/64" }
batch = { ip = "198.51.100.10-198.51.100.41" }
one   = "198.51.100.10"
two   = "198.51.100.11"
three = "198.51.100.12"
[pools]
web   = { of = ["one", "two", "three"], pick = "sticky", by = "session" }
hosts = { of = ["one", "two", "batch"], pick = "sticky", by = ["user", "session", "host"] }
[[rules]]
to  = "203.0.113.1"
use = "web"
[[rules]]
to  = "203.0.113.2"
use = "batch"
[[rules]]
to  = ["203.0.113.3", "203.0.113.4"]
use = "hosts"
[[listen]]
mixed = "127.0.0.1:1080"
users = "users"
`

// TestSessions gives each session its address, out of a prefix, a range and pools: the
// same each time, after a reload and after a restart.
func TestSessions(t *testing.T) {
	const sessions = 30
	r := newRig(t)
	r.Server.GreetTCP(t, "[::]:80")
	r.Server.GreetTCP(t, "0.0.0.0:80")
	r.writeUsers(map[string]string{"ann": "secret", "bob": "secret"})
	r.serve(sessionsConfig)
	targets := []netip.Addr{nstest.ServerV6(1), nstest.ServerV4(1), nstest.ServerV4(2), nstest.ServerV4(3), nstest.ServerV4(4)}
	ask := func() map[string]string {
		got := make(map[string]string)
		for i := range sessions {
			user := fmt.Sprintf("%s-s%d", []string{"ann", "bob"}[i%2], i)
			for _, dst := range targets {
				got[user+" to "+dst.String()] = r.greeted(user, at(dst, 80))
			}
		}
		return got
	}
	first := ask()
	distinct := make(map[string]map[string]bool)
	for key, source := range first {
		_, dst, _ := strings.Cut(key, " to ")
		if distinct[dst] == nil {
			distinct[dst] = make(map[string]bool)
		}
		distinct[dst][source] = true
	}
	for i, want := range []int{sessions, 3, 10, 2, 2} {
		if got := len(distinct[targets[i].String()]); got < want {
			t.Errorf("%d sessions went to %v from %d addresses, want at least %d", sessions, targets[i], got, want)
		}
	}
	compare := func(when string) {
		t.Helper()
		for key, source := range ask() {
			if source != first[key] {
				t.Errorf("%s: %s came from %s, before from %s", when, key, source, first[key])
			}
		}
	}
	compare("again")
	if e := r.reload(sessionsConfig + "[limits]\nconnections = 1000\n"); e.text("msg") != "reloaded" {
		t.Fatal(e)
	}
	compare("after a reload")
	r.signal(syscall.SIGTERM)
	if err := r.proc.Wait(patience); err != nil {
		t.Fatalf("end of the program: %v", err)
	}
	r.serve(sessionsConfig)
	compare("after a restart")
	if a, b := r.greeted("ann", at(targets[0], 80)), r.greeted("ann", at(targets[0], 80)); a == b {
		t.Errorf("two connections without a session came from %s", a)
	}
}

// greeted returns the address from which a user called dst, which says it.
func (r *rig) greeted(user string, dst netip.AddrPort) string {
	r.t.Helper()
	d, err := proxy.SOCKS5("tcp", "127.0.0.1:1080", &proxy.Auth{User: user, Password: "secret"}, inNamespace{r})
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := d.Dial("tcp", dst.String())
	if err != nil {
		r.t.Fatalf("%s to %v: %v", user, dst, err)
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		r.t.Fatalf("%s to %v: %v", user, dst, err)
	}
	return strings.TrimSpace(line)
}
