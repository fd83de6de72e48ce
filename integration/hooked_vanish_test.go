//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	hookedVanishRounds  = 3
	hookedVanishSockets = 100 // of each kind
)

// vanishConfig has two sources in a pool, and one destination that leaves from the second.
const vanishConfig = `
default = "pair"

[sources]
one = ["198.51.100.10", "2001:db8:1::10"]
two = ["198.51.100.11", "2001:db8:1::11"]

[pools]
pair = { of = ["one", "two"] }

[[rules]]
to  = ["203.0.113.2", "2001:db8:2::2"]
use = "two"
`

// TestHookedVanish takes the address of a source away under sockets of all kinds that hooks bound to it. Each gets its
// error at once, and what is opened then leaves from the pool's next source; all other sockets live on.
func TestHookedVanish(t *testing.T) {
	var all []time.Duration
	bothWays(t, func(t *testing.T, r *vanishRig) {
		r.rules(vanishConfig)
		h, outside := r.hold(t, false), r.hold(t, true)
		for round := range hookedVanishRounds {
			all = append(all, r.vanish(t, h, outside, round+1)...)
			if t.Failed() {
				return
			}
		}
	})
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	median, p99 := all[len(all)/2], all[len(all)*99/100]
	t.Logf("from the deletion of the address to the error of each socket: median %v, p99 %v, last %v of %d", median, p99, all[len(all)-1], len(all))
	if p99 > lostLimit {
		t.Errorf("p99: %v, want at most %v", p99, lostLimit)
	}
}

const (
	oneBoth  = "198.51.100.10 2001:db8:1::10"
	twoBoth  = "198.51.100.11 2001:db8:1::11"
	ownLost  = `("198.51.100.10", "2001:db8:1::10")`
	ownOther = `("198.51.100.12", "2001:db8:1::12")`
)

// vanish is one round.
func (r *vanishRig) vanish(t *testing.T, h, outside holder, round int) (took []time.Duration) {
	t.Helper()
	gone := []netip.Prefix{netip.PrefixFrom(nstest.ProxyV6(10), 64), netip.PrefixFrom(nstest.ProxyV4(10), 24)}
	h.wants(oneBoth, `until("198.51.100.10", "2001:db8:1::10")`)
	h.wants(oneBoth, `make("ruled", 1, %d)`, hookedVanishSockets)
	h.wants(twoBoth, `make("other", 2)`)
	h.wants(oneBoth, `make("own", 1, own=%s)`, ownLost)
	h.wants("198.51.100.12 2001:db8:1::12", `make("own other", 1, own=%s)`, ownOther)
	outside.wants(oneBoth, `make("own", 1, own=%s)`, ownLost)
	h.wants("watching", `watch("ruled")`)
	start := monotonic(t)
	for _, p := range gone {
		r.Proxy.DelAddr(t, "wan0", p)
	}
	for kind, list := range h.errorsSince(start) {
		if len(list) != hookedVanishSockets || slices.Min(list) <= 0 {
			t.Errorf("%s: %d sockets had their error, after %v at the earliest; want %d", kind, len(list), slices.Min(list), hookedVanishSockets)
		}
		took = append(took, list...)
	}
	if len(took) != 6*hookedVanishSockets {
		t.Fatalf("%d sockets ended, want all %d", len(took), 6*hookedVanishSockets)
	}
	before := r.leaks.Seen(t)
	h.wants(twoBoth, `make("next", 1)`)
	h.wants("EDESTADDRREQ "+twoBoth, `reconnect("ruled")`)
	h.wants("12 quiet, 12 answer", `live("other", "own other")`)
	h.wants("6 idle", `idle("own")`)
	outside.wants("6 idle", `idle("own")`)
	for p, n := range r.leaks.Seen(t) {
		if (p.Src == gone[0].Addr() || p.Src == gone[1].Addr()) && n != before[p] {
			t.Errorf("%d packets %+v after the errors", n-before[p], p)
		}
	}
	for _, p := range gone {
		r.Proxy.AddAddr(t, "wan0", p)
		r.says(t, round, p.Addr(), map[bool]int{true: 4, false: 2}[p.Addr().Is4()]*hookedVanishSockets)
	}
	h.wants("6 quiet, 6 answer", `live("own")`)
	outside.wants("6 quiet, 6 answer", `live("own")`)
	return took
}

// TestHookedVanishHold gives an address back while its source holds what leaves from it: all sockets live on. They do so for
// longer than the hold, as those of another source that went at the same time have ended by then.
func TestHookedVanishHold(t *testing.T) {
	const hold = time.Second
	config := `
default = "both"

[sources]
one  = { ip = "198.51.100.10", hold = "1s" }
six  = { ip = "2001:db8:1::10", hold = "1s" }
gone = { ip = "198.51.100.13", hold = "1s" }

[pools]
both = { of = ["one", "six"] }

[[rules]]
to  = "203.0.113.3"
use = "gone"
`
	bothWays(t, func(t *testing.T, r *vanishRig) {
		r.rules(config)
		h := r.hold(t, false)
		h.wants(oneBoth, `make("held", 1, 5)`)
		h.wants("198.51.100.13", `make("gone", 3, 5, only=["tcp4", "udp4", "tcpm", "udpm"])`)
		h.wants("watching", `watch("gone")`)
		back := []netip.Prefix{netip.PrefixFrom(nstest.ProxyV4(10), 24), netip.PrefixFrom(nstest.ProxyV6(10), 64)}
		for _, p := range back {
			r.Proxy.DelAddr(t, "wan0", p)
		}
		start := monotonic(t)
		r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV4(13), 24))
		for _, p := range back {
			eventually(t, fmt.Sprintf("%v is down", p.Addr()), func() bool { return r.isDown(p.Addr()) })
			r.Proxy.AddAddr(t, "wan0", p)
		}
		n := 0
		for kind, list := range h.errorsSince(start) {
			n += len(list)
			if first := slices.Min(list); first < hold {
				t.Errorf("%s: an error after %v, want the hold of %v", kind, first, hold)
			}
		}
		if n != 20 {
			t.Errorf("%d sockets ended, want 20", n)
		}
		h.wants("30 quiet, 30 answer", `live("held")`)
	})
}

// TestHookedVanishUnseen takes the address away while nobody watches. Who takes the hooks over ends the sockets.
func TestHookedVanishUnseen(t *testing.T) {
	r := newVanishRig(t, true)
	r.rules(vanishConfig)
	h := r.hold(t, false)
	h.wants(oneBoth, `make("ruled", 1, 5)`)
	h.wants(twoBoth, `make("other", 2)`)
	r.proc.Kill()
	start := monotonic(t)
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV4(10), 24))
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV6(10), 64))
	h.wants("30 idle", `idle("ruled")`)
	h.wants("watching", `watch("ruled")`)
	r.rules(vanishConfig)
	n := 0
	for _, list := range h.errorsSince(start) {
		n += len(list)
	}
	if n != 30 {
		t.Errorf("%d sockets ended, want 30", n)
	}
	h.wants("6 quiet, 6 answer", `live("other")`)
	h.wants(twoBoth, `make("next", 1)`)
}

// TestHookedVanishLink takes the address of a link away that a source follows.
func TestHookedVanishLink(t *testing.T) {
	nstest.Need(t, "ip")
	bothWays(t, func(t *testing.T, r *vanishRig) {
		for _, args := range []string{"link add dsl0 type veth peer name dsl1", "link set dsl1 up", "link set dsl0 up", "addr add 198.51.100.77/32 dev dsl0"} {
			if got := r.run("ip", strings.Fields(args)...); got.Err != nil {
				t.Fatal(got)
			}
		}
		r.rules(strings.Replace(vanishConfig, `one = ["198.51.100.10", "2001:db8:1::10"]`, `one = { interface = "dsl0" }`, 1))
		h := r.hold(t, false)
		var all []time.Duration
		for _, address := range []string{"198.51.100.77/32", "198.51.100.78/32"} {
			p := netip.MustParsePrefix(address)
			h.wants(p.Addr().String()+" 2001:db8:1::11", `until(%q, "2001:db8:1::11")`, p.Addr())
			h.wants(p.Addr().String(), `make("ruled", 1, 20, only=["tcp4", "tcpm", "udp4", "udpm"])`)
			h.wants("watching", `watch("ruled")`)
			start := monotonic(t)
			r.Proxy.DelAddr(t, "dsl0", p)
			n := len(all)
			for _, list := range h.errorsSince(start) {
				all = append(all, list...)
			}
			if len(all) != n+80 {
				t.Errorf("%d sockets ended, want 80", len(all)-n)
			}
			h.wants(twoBoth, `make("next", 1)`)
			r.Proxy.AddAddr(t, "dsl0", netip.MustParsePrefix("198.51.100.78/32"))
		}
		slices.Sort(all)
		t.Logf("from the deletion to the errors: median %v, last %v of %d", all[len(all)/2], all[len(all)-1], len(all))
		if last := all[len(all)-1]; last > lostLimit {
			t.Errorf("the last error came after %v, want at most %v", last, lostLimit)
		}
	})
}
