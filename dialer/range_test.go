package dialer_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// partly is a State in which some addresses are away.
type partly struct {
	mu   sync.Mutex
	away map[netip.Addr]bool
}

func (p *partly) Down(_ *dialer.Source, a netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away[a] {
		return errNoCarrier
	}
	return nil
}

func (p *partly) Flows(*dialer.Source) int { return 0 }

func (p *partly) LinkAddr(string, bool) netip.Addr { return netip.Addr{} }

func (p *partly) set(away ...netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = make(map[netip.Addr]bool)
	for _, a := range away {
		p.away[a] = true
	}
}

// TestRangePassesOverAddresses takes those of a range that are here, by itself and in a
// pool. Only the keys of an address that goes away move, and they come back with it.
func TestRangePassesOverAddresses(t *testing.T) {
	list := addrs("192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14", "192.0.2.15")
	batch := &dialer.Source{Name: "batch", First: list[0], Last: list[7]}
	pool := &dialer.Pool{Name: "p", Of: []dialer.Member{{Source: batch}, {Source: six}}, Pick: dialer.Sticky}
	for _, u := range []dialer.Use{from(batch), of(pool)} {
		s := new(partly)
		d := &dialer.Dialer{Table: newTable(t, u), State: s}
		ask := func() []netip.Addr {
			var out []netip.Addr
			for i := range 1000 {
				f := fromClient(i)
				f.Session = fmt.Sprint(i)
				dec := d.Decide(f)
				if dec.Err != nil {
					t.Fatalf("%v: %v", u, dec.Err)
				}
				out = append(out, dec.Addr)
			}
			return out
		}
		all := ask()
		s.set(list[2], list[3], list[5])
		saw := make(map[netip.Addr]int)
		for i, a := range ask() {
			saw[a]++
			switch {
			case s.away[a]:
				t.Fatalf("%v: a flow leaves from %v, which is away", u, a)
			case !s.away[all[i]] && a != all[i]:
				t.Fatalf("%v: key %d moved from %v, which is here, to %v", u, i, all[i], a)
			}
		}
		if len(saw) != 5 {
			t.Errorf("%v: flows leave from %d addresses, want 5", u, len(saw))
		}
		s.set()
		for i, a := range ask() {
			if a != all[i] {
				t.Fatalf("%v: key %d is at %v when all are back, before at %v", u, i, a, all[i])
			}
		}
		s.set(list...)
		wantErr(t, d.Decide(fromClient(1)).Err, dialer.ErrSourceDown)
	}
}

// TestRangeFindsTheLastAddress takes the only one that is here, each time.
func TestRangeFindsTheLastAddress(t *testing.T) {
	first := netip.MustParseAddr("192.0.2.0")
	batch := &dialer.Source{Name: "batch", First: first, Last: netip.MustParseAddr("192.0.2.255")}
	var away []netip.Addr
	here := netip.MustParseAddr("192.0.2.77")
	for a := first; batch.Last.Compare(a) >= 0; a = a.Next() {
		if a != here {
			away = append(away, a)
		}
	}
	s := new(partly)
	s.set(away...)
	d := &dialer.Dialer{Table: newTable(t, from(batch)), State: s}
	for i := range 200 {
		if dec := d.Decide(fromClient(i)); dec.Addr != here {
			t.Fatalf("flow %d leaves from %v (%v), want %v", i, dec.Addr, dec.Err, here)
		}
	}
}
