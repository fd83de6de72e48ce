package dialer_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestStickyMovesOnlyItsOwn takes one member out: each key that was not its stays.
func TestStickyMovesOnlyItsOwn(t *testing.T) {
	list, members := three(1, 1, 2)
	pool := &dialer.Pool{Of: members, Pick: dialer.Sticky}
	before := dialerOf(t, nil, pool)
	for out, gone := range list {
		after := dialerOf(t, downs(gone), pool)
		moved := 0
		for i := range 4000 {
			a, b := before.Decide(fromClient(i)), after.Decide(fromClient(i))
			switch {
			case a.Source == gone && b.Source == gone:
				t.Fatalf("key %d stays at a member that is down", i)
			case a.Source == gone:
				moved++
			case a.Source != b.Source || a.Addr != b.Addr:
				t.Fatalf("key %d moved from %v to %v when %v fell out", i, a.Source.Name, b.Source.Name, gone.Name)
			}
		}
		// The keys are fixed, so that these counts are too: 1000 or 2000 and chance.
		if want := 1000 * max(members[out].Weight, 1); moved < want*9/10 || moved > want*11/10 {
			t.Errorf("%v had %d of 4000 keys, want about %d", gone.Name, moved, want)
		}
	}
}

func TestStickyIsTheSameInEveryTable(t *testing.T) {
	_, members := three(1, 2, 1)
	one := dialerOf(t, nil, &dialer.Pool{Of: members, Pick: dialer.Sticky})
	_, again := three(1, 2, 1) // other pointers, as after a restart
	again[0], again[2] = again[2], again[0]
	two := dialerOf(t, nil, &dialer.Pool{Of: again, Pick: dialer.Sticky})
	for i := range 1000 {
		if a, b := one.Decide(fromClient(i)).Addr, two.Decide(fromClient(i)).Addr; a != b {
			t.Fatalf("key %d: %v in one table, %v in the other", i, a, b)
		}
	}
	// What is written into users' logs today must hold with the next version.
	var got []netip.Addr
	for i := range 8 {
		got = append(got, one.Decide(fromClient(i)).Addr)
	}
	want := addrs("192.0.2.2", "192.0.2.1", "192.0.2.3", "192.0.2.3", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.1")
	if !slices.Equal(got, want) {
		t.Errorf("clients 10.0.0.0 to 10.0.0.7 leave from %v, want %v", got, want)
	}
}

// TestStickyWithoutNames tells members apart that have addresses only.
func TestStickyWithoutNames(t *testing.T) {
	var members []dialer.Member
	for i := range 4 {
		members = append(members, dialer.Member{Source: &dialer.Source{Addrs: addrs(fmt.Sprintf("192.0.2.%d", i+1))}})
	}
	got := counts(t, dialerOf(t, nil, &dialer.Pool{Of: members, Pick: dialer.Sticky}), 400, fromClient)
	for _, m := range members {
		if got[m.Source] < 50 {
			t.Errorf("%v has %d of 400 keys", m.Source.Addrs, got[m.Source])
		}
	}
}

// TestStickyKeys changes one property of a flow after the other: what the pool hashes,
// and nothing else, spreads the flows.
func TestStickyKeys(t *testing.T) {
	change := map[dialer.Key]func(f *dialer.Flow, i int){
		dialer.ByClient:      func(f *dialer.Flow, i int) { f.Client = fromClient(i).Client },
		dialer.ByUser:        func(f *dialer.Flow, i int) { f.User = fmt.Sprint(i) },
		dialer.BySession:     func(f *dialer.Flow, i int) { f.Session = fmt.Sprint(i) },
		dialer.ByHost:        func(f *dialer.Flow, i int) { f.Name = fmt.Sprintf("%d.example", i) },
		dialer.ByDestination: func(f *dialer.Flow, i int) { f.Dst = fromClient(i).Client },
		dialer.ByListener:    func(f *dialer.Flow, i int) { f.Listener = fmt.Sprint(i) },
	}
	_, members := three(1, 1, 1)
	for by := range change {
		d := dialerOf(t, nil, &dialer.Pool{Of: members, Pick: dialer.Sticky, By: []dialer.Key{by}})
		for k, f := range change {
			got := counts(t, d, 60, func(i int) dialer.Flow {
				flow := named("a.example", "198.51.100.1:80")
				f(&flow, i)
				return flow
			})
			if by == k != (len(got) == 3) || by != k && len(got) != 1 {
				t.Errorf("by %v, flows that differ in %v: %d members", by, k, len(got))
			}
		}
	}
}

func TestStickyHostIsCanonical(t *testing.T) {
	_, members := three(1, 1, 1)
	d := dialerOf(t, nil, &dialer.Pool{Of: members, Pick: dialer.Sticky, By: []dialer.Key{dialer.ByHost}})
	for i := range 50 {
		lower := d.Decide(named(fmt.Sprintf("www%d.example", i), "198.51.100.1:80")).Source
		upper := d.Decide(named(fmt.Sprintf("WWW%d.Example.", i), "198.51.100.2:80")).Source
		if lower != upper {
			t.Fatalf("www%d.example has two members", i)
		}
	}
}

// TestStickyFor follows keys through time: each moves at moments one span apart, and
// not all at the same one.
func TestStickyFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const span = 30 * time.Minute
		crawl := &dialer.Source{Name: "crawl", First: addrs("10.0.0.0")[0], Last: addrs("10.255.255.255")[0]}
		d := dialerOf(t, nil, &dialer.Pool{Of: []dialer.Member{{Source: crawl}}, Pick: dialer.Sticky, For: span})
		start := time.Now()
		moments := make(map[time.Duration]bool)
		var first [40]time.Duration
		var at [40]string
		for i := range at {
			at[i] = d.Decide(fromClient(i)).Addr.String()
		}
		for time.Since(start) < 3*span {
			time.Sleep(time.Minute)
			for i := range at {
				now := d.Decide(fromClient(i)).Addr.String()
				if now == at[i] {
					continue
				}
				at[i] = now
				moment := time.Since(start) % span
				moments[moment] = true
				if first[i] == 0 {
					first[i] = moment + 1
				} else if first[i] != moment+1 {
					t.Errorf("key %d moved after %v and after %v", i, first[i]-1, moment)
				}
			}
		}
		for i, m := range first {
			if m == 0 {
				t.Errorf("key %d never moved", i)
			}
		}
		if len(moments) < 10 {
			t.Errorf("40 keys move at %d moments", len(moments))
		}
	})
}
