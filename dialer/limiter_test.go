package dialer_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// places is a Limiter that has so many places for each source.
type places struct {
	mu    sync.Mutex
	limit map[*dialer.Source]int
	taken map[*dialer.Source]int
	blind bool // Full tells nothing, as when places go between a pick and its dial
}

func newPlaces(limit map[*dialer.Source]int) *places {
	return &places{limit: limit, taken: make(map[*dialer.Source]int)}
}

func (p *places) full(s *dialer.Source) error {
	if limit, ok := p.limit[s]; ok && p.taken[s] >= limit {
		return fmt.Errorf("%w: source %q", dialer.ErrLimit, s.Name)
	}
	return nil
}

func (p *places) Full(s *dialer.Source) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blind {
		return nil
	}
	return p.full(s)
}

func (p *places) Enter(s *dialer.Source) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.full(s)
	if err == nil {
		p.taken[s]++
	}
	return err
}

func (p *places) Leave(s *dialer.Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[s]--
}

func (p *places) of(s *dialer.Source) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken[s]
}

// TestLimitOfSource refuses what is too much, and takes it when a place is free again.
func TestLimitOfSource(t *testing.T) {
	server := serve(t, "127.0.0.1:0").String()
	p := newPlaces(map[*dialer.Source]int{wan1: 2})
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Limiter: p}
	_, dec := dial(t, d, tcp(server))
	dial(t, d, tcp(server))
	err := refused(t, d, tcp(server))
	wantErr(t, err, dialer.ErrLimit)
	wantText(t, err, `"wan1"`)
	opError(t, err, "127.0.0.2:0", server)
	d.Release(&dec)
	dial(t, d, tcp(server))
	if n := p.of(wan1); n != 2 {
		t.Errorf("%d places are taken, want 2", n)
	}
}

// TestFailureGivesThePlaceBack counts only what is open.
func TestFailureGivesThePlaceBack(t *testing.T) {
	p := newPlaces(map[*dialer.Source]int{wan1: 1, wan2: 0})
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Limiter: p}
	wantErr(t, refused(t, d, tcp(closedPort(t).String())), errRefused)
	if n := p.of(wan1); n != 0 {
		t.Errorf("a dial that failed holds %d places", n)
	}
	server := serve(t, "127.0.0.1:0")
	d.Resolver = answers{"a.example": addrs("127.0.0.1", "127.0.0.9")}
	flow := tcp("a.example:" + port(server))
	if got, dec := dial(t, d, flow); got.Addr() != wan1.Addrs[0] || p.of(wan1) != 1 {
		t.Errorf("%v holds %d places after %v", got, p.of(wan1), dec.Err)
	}
}

// TestLosersGiveTheirPlaceBack dials two addresses side by side: one connection stays.
func TestLosersGiveTheirPlaceBack(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	blackHole(t, "127.0.0.8:"+port(server))
	p := newPlaces(nil)
	d := &dialer.Dialer{
		Table:         newTable(t, from(wan1)),
		Limiter:       p,
		FallbackDelay: time.Millisecond,
		Resolver:      answers{"a.example": addrs("127.0.0.8", "127.0.0.1")},
	}
	c, err := d.DialContext(t.Context(), "tcp", "a.example:"+port(server))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := p.of(wan1); n != 0 {
		t.Errorf("DialContext, which nobody releases, holds %d places", n)
	}
	dial(t, d, tcp("a.example:"+port(server)))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); p.of(wan1) != 1; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("one connection holds %d places", p.of(wan1))
		}
	}
}

// TestRaceTakesOnePlace has the last place of a source, and a name whose first address
// does not answer: the attempts share the place, and the connection keeps it.
func TestRaceTakesOnePlace(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	blackHole(t, "127.0.0.8:"+port(server))
	pool := &dialer.Pool{Name: "p", Of: []dialer.Member{{Source: wan1}, {Source: six}}}
	for _, u := range []dialer.Use{from(wan1), of(pool)} {
		p := newPlaces(map[*dialer.Source]int{wan1: 1})
		d := &dialer.Dialer{
			Table:         newTable(t, u),
			Limiter:       p,
			FallbackDelay: time.Millisecond,
			Resolver:      answers{"a.example": addrs("127.0.0.8", "127.0.0.1")},
		}
		_, dec := dial(t, d, tcp("a.example:"+port(server)))
		if n := p.of(wan1); n != 1 {
			t.Errorf("%v: a connection holds %d places", u, n)
		}
		wantErr(t, refused(t, d, tcp(server.String())), dialer.ErrLimit)
		d.Release(&dec)
		if n := p.of(wan1); n != 0 {
			t.Errorf("%v: %d places are taken after the end", u, n)
		}
		dial(t, d, tcp(server.String()))
		d.Resolver = answers{"a.example": addrs("127.0.0.8", "127.0.0.9")}
		wantErr(t, refused(t, d, tcp("a.example:"+port(server))), dialer.ErrLimit)
	}
}

// TestPoolPassesFullOver takes the members that have places, whether they are full when
// one is picked or have become so when it is dialled.
func TestPoolPassesFullOver(t *testing.T) {
	server := serve(t, "127.0.0.1:0").String()
	for _, blind := range []bool{false, true} {
		for pick := dialer.FirstUp; pick <= dialer.LeastConnections; pick++ {
			t.Run(fmt.Sprintf("%v blind %v", pick, blind), func(t *testing.T) {
				p := newPlaces(map[*dialer.Source]int{wan1: 1, wan2: 2})
				p.blind = blind
				pool := &dialer.Pool{Name: "both", Of: []dialer.Member{{Source: wan1}, {Source: wan2}}, Pick: pick}
				d := &dialer.Dialer{Table: newTable(t, of(pool)), Limiter: p}
				for range 3 {
					dial(t, d, tcp(server))
				}
				if p.of(wan1) != 1 || p.of(wan2) != 2 {
					t.Errorf("%d and %d places are taken, want 1 and 2", p.of(wan1), p.of(wan2))
				}
				err := refused(t, d, tcp(server))
				wantErr(t, err, dialer.ErrLimit)
				wantText(t, err, `"wan1"`, `"wan2"`)
			})
		}
	}
}

// TestLimitOfListener counts what waits for a peer.
func TestLimitOfListener(t *testing.T) {
	p := newPlaces(map[*dialer.Source]int{wan1: 1})
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Limiter: p}
	l, _, dec, err := d.ListenFlow(t.Context(), tcp("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, _, err := d.ListenFlow(t.Context(), tcp("127.0.0.1:0")); err == nil {
		t.Error("a second one listens")
	} else {
		wantErr(t, err, dialer.ErrLimit)
	}
	d.Release(&dec)
	if n := p.of(wan1); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}
