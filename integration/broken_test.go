//go:build linux

package integration

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestBrokenSource refuses flows whose packets would leave by the wrong provider, and
// says how to cure that. The commands, run as printed, do.
func TestBrokenSource(t *testing.T) {
	nstest.Need(t, "ip")
	r := newRig(t)
	nstest.Join(t, "ppp0", r.Proxy, r.Server)
	four, six := netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8:9::7/64")
	for _, a := range []netip.Prefix{four, six} {
		r.Proxy.AddAddr(t, "ppp0", a)
		eventually(t, "the address is usable", func() bool {
			l, err := r.Proxy.Listen("tcp", at(a.Addr(), 0).String())
			return err == nil && l.Close() == nil
		})
	}
	for _, a := range []string{"192.0.2.254/24", "2001:db8:9::254/64"} {
		r.Server.AddAddr(t, "ppp0", netip.MustParsePrefix(a))
	}
	r.Server.GreetTCP(t, wildcard(nstest.ServerV4(1), 4000))
	r.Server.GreetTCP(t, wildcard(nstest.ServerV6(1), 4000))
	leaks := r.Server.CountLeaks(t, "wan0") // where packets of the source have no business
	r.serve(`default = "lte"
[pools]
safe = { of = ["lte", "198.51.100.10"] }
[[rules]]
to = "203.0.113.2"
use = "safe"
[sources]
lte = { ip = ["192.0.2.7", "2001:db8:9::7"], gateway = ["192.0.2.254", "2001:db8:9::254"] }
[[listen]]
mixed = "127.0.0.1:1080"
`)
	broken := r.inState("broken", 2)
	if source, err := r.sourceOf(at(nstest.ServerV4(2), 4000)); err != nil || source != wan4 {
		t.Errorf("the pool's flow leaves from %v, %v, want %v", source, err, wan4)
	}
	leaks.Allow(wan4)
	for i, want := range []netip.Addr{four.Addr(), six.Addr()} {
		dst := []netip.Addr{nstest.ServerV4(1), nstest.ServerV6(1)}[i]
		start := time.Now()
		if _, err := r.sourceOf(at(dst, 4000)); err != refused(replyNetwork) || time.Since(start) > time.Second {
			t.Errorf("to %v: %v after %v, want %v at once", dst, err, time.Since(start), refused(replyNetwork))
		}
		text := broken[i].text("err")
		_, cure, found := strings.Cut(text, "(cure: ")
		cure, _, ended := strings.Cut(cure, ")")
		if !found || !ended || !strings.Contains(text, "not by the gateway") {
			t.Fatalf("the line tells of no cure: %v", broken[i])
		}
		for command := range strings.SplitSeq(cure, " && ") {
			words := strings.Fields(command)
			r.mustRun(words[0], words[1:]...)
		}
		r.inState("up", i+1)
		if source, err := r.sourceOf(at(dst, 4000)); err != nil || source != want {
			t.Errorf("to %v after the cure: from %v, %v, want %v", dst, source, err, want)
		}
	}
	if source, err := r.sourceOf(at(nstest.ServerV4(2), 4000)); err != nil || source != four.Addr() {
		t.Errorf("the pool's flow leaves from %v, %v after the cure, want %v", source, err, four.Addr())
	}
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets left by the wrong provider: %q", n, details)
	}
}

// TestPartlyAstray has a source whose packets go right to one network, by a route of its
// own, and by the wrong provider to all others.
func TestPartlyAstray(t *testing.T) {
	nstest.Need(t, "ip")
	r := newRig(t)
	nstest.Join(t, "ppp0", r.Proxy, r.Server)
	r.Proxy.AddAddr(t, "ppp0", netip.MustParsePrefix("192.0.2.7/24"))
	r.Server.AddAddr(t, "ppp0", netip.MustParsePrefix("192.0.2.254/24"))
	r.mustRun("ip", "route", "add", "203.0.113.64/26", "via", "192.0.2.254")
	r.Server.GreetTCP(t, wildcard(nstest.ServerV4(1), 4000))
	leaks := r.Server.CountLeaks(t, "wan0")
	r.serve("default = \"192.0.2.7\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	r.wantSource(at(nstest.ServerV4(65), 4000), netip.MustParseAddr("192.0.2.7"))
	astray := at(nstest.ServerV4(1), 4000)
	if _, err := r.sourceOf(astray); err != refused(replyNetwork) {
		t.Errorf("a flow that would go astray: %v, want %v", err, refused(replyNetwork))
	}
	of := func(e entry) bool { return e.text("dst") == astray.String() } // the other may end later
	if e := r.log.waitFor(t, 1, of, "flow")[0]; !strings.Contains(e.text("err"), "leave by wan0 (via 198.51.100.254), but the address lives on ppp0") {
		t.Errorf("its line is %v", e)
	}
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets left by the wrong provider: %q", n, details)
	}
}
