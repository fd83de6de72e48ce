//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// dnsRig is a rig with two name servers at the far end, one for each family.
type dnsRig struct {
	*rig
	leaks            *nstest.LeakCounter
	udp4, tcp4       *nstest.Server
	udp6, tcp6       *nstest.Server
	server4, server6 netip.Addr
}

// The names that both name servers know. The addresses of big.example do not fit into
// a datagram.
func dnsNames() map[string][]netip.Addr {
	names := map[string][]netip.Addr{
		"small.example": {nstest.ServerV4(9)},
		"six.dns":       {nstest.ServerV6(9)},
		"both.dns":      {nstest.ServerV4(9), nstest.ServerV6(9)},
	}
	for i := range 120 {
		names["big.example"] = append(names["big.example"], nstest.ServerV4(i+100))
	}
	return names
}

func newDNSRig(t *testing.T) *dnsRig {
	t.Helper()
	r := &dnsRig{rig: newRig(t), server4: nstest.DNSServer(), server6: nstest.ServerV6(5)}
	r.udp4, r.tcp4 = r.Server.ServeDNSOn(t, r.server4, dnsNames())
	r.udp6, r.tcp6 = r.Server.ServeDNSOn(t, r.server6, dnsNames())
	r.Server.GreetTCP(t, "0.0.0.0:7")
	r.Server.GreetTCP(t, "[::]:7")
	r.leaks = r.Server.CountLeaks(t, "wan0")
	return r
}

// config has the queries leave from one of the addresses, and the flows from wan.
func (r *dnsRig) config(ask int, dns string) string {
	return fmt.Sprintf(`default = "deny"
[sources]
wan = [%q, %q]
ask = [%q, %q]
[[rules]]
name = "names"
to   = [%q, %q]
port = 53
use  = "ask"
[[rules]]
to  = ["203.0.113.0/24", "2001:db8:2::/64"]
use = "wan"
[[listen]]
mixed = "127.0.0.1:1080"
[dns]
timeout = "2s"
%s
`, wan4, wan6, nstest.ProxyV4(ask), nstest.ProxyV6(ask), r.server4, r.server6, dns)
}

// reach connects to a name over the proxy, and returns from where the server sees that.
func (r *dnsRig) reach(name string) (string, error) {
	c, err := r.tryDial("127.0.0.1:1080")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := handshake(c, connect5Name(name, 7)); err != nil {
		return "", err
	}
	a, err := readAddr(c)
	return a.String(), err
}

// forget forgets all queries.
func (r *dnsRig) forget() {
	for _, s := range []*nstest.Server{r.udp4, r.udp6, r.tcp4, r.tcp6} {
		s.Forget()
	}
}

// wantAsked fails unless these servers were asked from a alone, and the others by nobody.
func (r *dnsRig) wantAsked(t *testing.T, a netip.Addr, asked ...*nstest.Server) {
	t.Helper()
	for _, s := range []*nstest.Server{r.udp4, r.udp6, r.tcp4, r.tcp6} {
		got := s.Sources()
		if !slices.Contains(asked, s) {
			if len(got) != 0 {
				t.Errorf("%v was asked from %v, want by nobody", s.Addr, got)
			}
			continue
		}
		if len(got) != 1 || got[a] == 0 {
			t.Errorf("%v was asked from %v, want from %v alone", s.Addr, got, a)
		}
	}
}

// TestDNSLeavesFromTheRulesSource: over both families, over UDP and TCP and over
// reloads, no query leaves from another address than the rule's.
func TestDNSLeavesFromTheRulesSource(t *testing.T) {
	r := newDNSRig(t)
	four := fmt.Sprintf("servers = %q\ncache = 0", r.server4)
	six := fmt.Sprintf("servers = \"[%v]:53\"\ncache = 0", r.server6)
	r.leaks.Allow(wan4, wan6)
	serve := func(c string) {
		if r.proc == nil {
			r.serve(c)
			return
		}
		if e := r.reload(c); e.text("msg") != "reloaded" {
			t.Fatalf("reload: %v", e)
		}
	}
	for round, ask := range []int{20, 21, 22, 20} {
		a4, a6 := nstest.ProxyV4(ask), nstest.ProxyV6(ask)
		r.leaks.AllowTo(r.server4, netip.PrefixFrom(a4, 32))
		r.leaks.AllowTo(r.server6, netip.PrefixFrom(a6, 128))
		for _, family := range []struct {
			dns      string
			ask      netip.Addr
			udp, tcp *nstest.Server
		}{{four, a4, r.udp4, r.tcp4}, {six, a6, r.udp6, r.tcp6}} {
			serve(r.config(ask, family.dns))
			for name, want := range map[string]string{"small.example": wan4.String(), "six.dns": wan6.String()} {
				if got, err := r.reach(name); err != nil || got != want {
					t.Errorf("round %d: %s was reached from %s, %v, want %s", round, name, got, err, want)
				}
			}
			r.wantAsked(t, family.ask, family.udp)
			r.forget()
			if _, err := r.reach("big.example"); err != nil {
				t.Errorf("round %d: big.example: %v", round, err)
			}
			r.wantAsked(t, family.ask, family.udp, family.tcp)
			r.forget()
		}
	}
	if n, details := r.leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// TestDNSUnderReloads looks names up all the time while the source of the queries, the
// servers and the addresses of the host change.
func TestDNSUnderReloads(t *testing.T) {
	r := newDNSRig(t)
	random := rand.New(rand.NewPCG(4, 3))
	r.leaks.Allow(wan4, wan6)
	for ask := 20; ask <= 22; ask++ {
		r.leaks.AllowTo(r.server4, netip.PrefixFrom(nstest.ProxyV4(ask), 32))
		r.leaks.AllowTo(r.server6, netip.PrefixFrom(nstest.ProxyV6(ask), 128))
	}
	servers := []string{
		fmt.Sprintf("servers = %q\ncache = 0", r.server4),
		fmt.Sprintf("servers = %q\ncache = 0", r.server6),
		fmt.Sprintf("servers = [%q, %q]\ncache = 0", r.server6, r.server4),
	}
	r.serve(r.config(20, servers[0]))
	var workers sync.WaitGroup
	var reached, failed atomic.Int64
	stop := make(chan struct{})
	for _, name := range []string{"small.example", "six.dns", "big.example", "both.dns", "none.example", "small.example"} {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := r.reach(name); err == nil {
					reached.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	away := netip.PrefixFrom(nstest.ProxyV4(21), 24)
	for round := range 40 {
		if round%4 == 1 {
			r.Proxy.DelAddr(t, "wan0", away)
		}
		r.reload(r.config(20+random.IntN(3), servers[random.IntN(len(servers))]))
		before := reached.Load() + failed.Load()
		eventually(t, "20 flows ended", func() bool { return reached.Load()+failed.Load() >= before+20 })
		if round%4 == 3 {
			r.Proxy.AddAddr(t, "wan0", away)
		}
	}
	close(stop)
	workers.Wait()
	if n, details := r.leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
	if _, err := r.reach("both.dns"); err != nil || reached.Load() < 100 {
		t.Errorf("%d flows reached their name, want 100 at least; in the end: %v", reached.Load(), err)
	}
	ports := make(map[uint16]bool)
	queries := slices.Concat(r.udp4.Peers(), r.udp6.Peers())
	for _, p := range queries {
		ports[p.Port()] = true
	}
	if len(ports) < len(queries)*3/4 {
		t.Errorf("%d queries came from %d ports, want them to be random", len(queries), len(ports))
	}
	t.Logf("%d flows reached their name, %d did not; queries by UDP: %d and %d, by TCP: %d and %d", reached.Load(), failed.Load(),
		len(r.udp4.Peers()), len(r.udp6.Peers()), len(r.tcp4.Peers()), len(r.tcp6.Peers()))
}

// TestDNSFailsClosed: where the rule denies the queries, or its source is away, there is
// no other way out for them, and the log line says why.
func TestDNSFailsClosed(t *testing.T) {
	r := newDNSRig(t)
	r.leaks.Allow(wan4, wan6)
	ask := nstest.ProxyV4(20)
	r.leaks.AllowTo(r.server4, netip.PrefixFrom(ask, 32))
	dns := fmt.Sprintf("servers = %q\ncache = 0", r.server4)
	good := r.config(20, dns)
	r.serve(good)
	if _, err := r.reach("small.example"); err != nil {
		t.Fatal(err)
	}
	r.log.wait(t, 1, "flow")

	r.forget()
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(ask, 24))
	r.log.waitFor(t, 1, func(e entry) bool { return e.text("source") == "ask" && e.text("state") == "down" }, "source changed")
	r.wantRefused(t, 2, ask.String()+" is not on this host")
	r.reload(strings.Replace(good, "use  = \"ask\"", "use  = \"deny\"", 1))
	r.wantRefused(t, 3, `rule "names": denied`)
	r.wantAsked(t, ask)

	r.Proxy.AddAddr(t, "wan0", netip.PrefixFrom(ask, 24))
	r.reload(good)
	r.log.waitFor(t, 1, func(e entry) bool { return e.text("source") == "ask" && e.text("state") == "up" }, "source changed")
	if got, err := r.reach("small.example"); err != nil || got != wan4.String() {
		t.Errorf("when the address is back: reached from %s, %v", got, err)
	}
	r.wantAsked(t, ask, r.udp4)
	if n, details := r.leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from other addresses: %q", n, details)
	}
}

// wantRefused fails unless a name cannot be reached, and the flow that is the nth in the
// log says why.
func (r *dnsRig) wantRefused(t *testing.T, n int, why string) {
	t.Helper()
	if _, err := r.reach("small.example"); err != refused(replyHost) {
		t.Errorf("got %v, want %v", err, refused(replyHost))
	}
	if e := r.log.wait(t, n, "flow")[n-1]; !strings.Contains(e.text("err"), why) {
		t.Errorf("the log says %q, want %q in it", e.text("err"), why)
	}
}

// TestDNSCacheOverReloads: an answer is used again after a reload, and not after one
// that has the queries leave from another source. Resolv.conf is read when it changes.
func TestDNSCacheOverReloads(t *testing.T) {
	r := newDNSRig(t)
	names := func(servers string) {
		text := "nameserver " + servers + "\noptions timeout:2\n"
		if err := os.WriteFile("/etc/resolv.conf", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile("/etc/resolv.conf", before, 0o644) })
	names(r.server4.String())
	config := r.config(20, "")
	r.serve(config)
	asks := func(what string, reload string, want bool, s *nstest.Server) {
		t.Helper()
		r.forget()
		if reload != "" {
			r.reload(reload)
		}
		if _, err := r.reach("both.dns"); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := len(s.Peers()) > 0; got != want {
			t.Errorf("%s: asked again: %v, want %v", what, got, want)
		}
	}
	asks("first", "", true, r.udp4)
	asks("second", "", false, r.udp4)
	asks("after a reload", config+"[timeouts]\ndial = \"9s\"\n", false, r.udp4)
	asks("from another source", r.config(21, ""), true, r.udp4)
	names(r.server6.String())
	asks("another server", "", true, r.udp6)
}
