package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

func wantLimit(t *testing.T, err error, parts ...string) {
	t.Helper()
	if !errors.Is(err, dialer.ErrLimit) {
		t.Fatalf("got %v, want %v", err, dialer.ErrLimit)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("got %q, want %q in it", err, p)
		}
	}
}

func wantAdmitted(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSourceLimits takes the source's own limits first, each for itself, and says which
// of them it was.
func TestSourceLimits(t *testing.T) {
	own, other := &dialer.Source{Name: "own"}, &dialer.Source{Name: "other"}
	l := new(Limits)
	wantAdmitted(t, l.Enter(own))
	l.Leave(own)
	l.Set(&Bounds{Sources: map[string]Bound{"own": {Connections: 2}}, PerSource: Bound{Connections: 1, PerSecond: 1000}})
	wantAdmitted(t, l.Full(own))
	wantAdmitted(t, l.Enter(own))
	wantAdmitted(t, l.Enter(own))
	wantLimit(t, l.Full(own), `limit = 2, of source "own"`)
	wantLimit(t, l.Enter(own), `: limit = 2, of source "own"`)
	wantAdmitted(t, l.Enter(other))
	wantLimit(t, l.Enter(other), `limits.per_source.connections = 1, of source "other"`)
	l.Leave(own)
	wantAdmitted(t, l.Full(own))
	wantAdmitted(t, l.Enter(own))
}

// TestReloadedLimits counts what came before there was a limit, too.
func TestReloadedLimits(t *testing.T) {
	s := &dialer.Source{Name: "wan"}
	l := new(Limits)
	for range 5 {
		wantAdmitted(t, l.Enter(s))
	}
	l.Set(&Bounds{PerSource: Bound{Connections: 4}})
	wantLimit(t, l.Enter(s))
	l.Leave(s)
	wantLimit(t, l.Enter(s))
	l.Leave(s)
	wantAdmitted(t, l.Enter(s))
	l.Set(nil)
	wantAdmitted(t, l.Enter(s))
}

// TestNewPerSecond lets so many come at once, and then so many a second; those that are
// refused take nothing.
func TestNewPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &dialer.Source{Name: "slow"}
		l := new(Limits)
		l.Set(&Bounds{Sources: map[string]Bound{"slow": {PerSecond: 10}}})
		enter := func() (n int) {
			for l.Enter(s) == nil {
				n++
			}
			return n
		}
		if n := enter(); n != 10 {
			t.Errorf("%d came at once, want 10", n)
		}
		wantLimit(t, l.Enter(s), `: new_per_second = 10, of source "slow"`)
		wantLimit(t, l.Full(s), `new_per_second`)
		time.Sleep(500 * time.Millisecond)
		if n := enter(); n != 5 {
			t.Errorf("%d came after half a second, want 5", n)
		}
		l.Set(&Bounds{PerSource: Bound{PerSecond: 100}})
		time.Sleep(2 * time.Second)
		wantAdmitted(t, l.Full(s))
		if n := enter(); n != 100 {
			t.Errorf("%d came after the reload, want 100", n)
		}
		wantLimit(t, l.Enter(s), `limits.per_source.new_per_second = 100`)
	})
}

// TestLimitsHoldAtOnce has many enter at the same time: not one too many gets in.
func TestLimitsHoldAtOnce(t *testing.T) {
	const limit = 50
	s := &dialer.Source{Name: "wan"}
	l := new(Limits)
	l.Set(&Bounds{PerSource: Bound{Connections: limit}})
	var inside, most atomic.Int64
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			for range 100 {
				if l.Enter(s) != nil {
					continue
				}
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				inside.Add(-1)
				l.Leave(s)
			}
		})
	}
	all.Wait()
	if most.Load() > limit {
		t.Errorf("%d were inside, want at most %d", most.Load(), limit)
	}
	if n := len(l.sources.shares); n != 0 {
		t.Errorf("%d shares are left", n)
	}
}

// TestClients counts IPv6 clients by their /64, and IPv4 ones by their address.
func TestClients(t *testing.T) {
	a := netip.MustParseAddr
	l := new(Limits)
	l.Set(&Bounds{PerClient: Bound{Connections: 1}})
	for _, tt := range []struct{ first, same, other string }{
		{"2001:db8:8:1::1", "2001:db8:8:1:ffff::2", "2001:db8:8:2::1"},
		{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"},
		{"fe80::1%eth0", "fe80::2%eth1", "2001:db8:8:3::1"},
	} {
		wantAdmitted(t, l.EnterClient(a(tt.first)))
		wantLimit(t, l.EnterClient(a(tt.same)), "limits.per_client.connections = 1, of ", clientOf(a(tt.first)).String())
		wantAdmitted(t, l.EnterClient(a(tt.other)))
		l.LeaveClient(a(tt.same))
		wantAdmitted(t, l.EnterClient(a(tt.first)))
	}
	for range maxExcess {
		if !l.EnterExcess(a("192.0.2.1")) {
			t.Fatal("a client is not told that it is refused")
		}
	}
	if l.EnterExcess(a("192.0.2.1")) {
		t.Error("a client has more places to be told so than it may have")
	}
	l.LeaveExcess(a("192.0.2.1"))
	if !l.EnterExcess(a("192.0.2.1")) {
		t.Error("no place is free again")
	}
}

func TestUsers(t *testing.T) {
	l := new(Limits)
	l.Set(&Bounds{PerUser: Bound{Connections: 1, PerSecond: 100}})
	wantAdmitted(t, l.EnterUser("a"))
	wantLimit(t, l.EnterUser("a"), `limits.per_user.connections = 1, of "a"`)
	wantAdmitted(t, l.EnterUser("b"))
	l.LeaveUser("a")
	wantAdmitted(t, l.EnterUser("a"))
}

// TestForgottenClients keeps memory for those that have something, and for the others
// only while their rate tells something, and within a bound.
func TestForgottenClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Limits)
		l.Set(&Bounds{PerClient: Bound{PerSecond: 1}})
		client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
		stays := netip.MustParseAddr("192.0.2.1")
		wantAdmitted(t, l.EnterClient(stays))
		for i := range 10 * maxQuiet {
			wantAdmitted(t, l.EnterClient(client(i)))
			l.LeaveClient(client(i))
		}
		if n := len(l.clients.shares); n > 4*maxQuiet {
			t.Errorf("%d shares are kept for clients that have nothing", n)
		}
		if l.clients.shares[clientOf(stays)] == nil {
			t.Error("a client that has something was forgotten")
		}
		time.Sleep(2 * time.Second)
		for i := range 10 * maxQuiet {
			wantAdmitted(t, l.EnterClient(client(i%minSweep)))
			l.LeaveClient(client(i % minSweep))
			if i%minSweep == 0 {
				time.Sleep(2 * time.Second)
			}
		}
		l.clients.sweep()
		if n := len(l.clients.shares); n > 2*minSweep {
			t.Errorf("%d shares are left of clients that were quiet for seconds", n)
		}
	})
}

// BenchmarkEnter is what each connection pays.
func BenchmarkEnter(b *testing.B) {
	for _, bound := range []Bound{{}, {Connections: 1 << 20, PerSecond: 1_000_000}} {
		b.Run(fmt.Sprint(bound), func(b *testing.B) {
			l := new(Limits)
			l.Set(&Bounds{PerClient: bound})
			a := netip.MustParseAddr("192.0.2.1")
			for b.Loop() {
				if l.EnterClient(a) == nil {
					l.LeaveClient(a)
				}
			}
		})
	}
}
