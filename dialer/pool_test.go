package dialer_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// state says what a table cannot know.
type state struct {
	mu    sync.Mutex
	down  map[*dialer.Source]error
	flows map[*dialer.Source]int
	links map[string][]netip.Addr
}

func (s *state) Down(src *dialer.Source, _ netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down[src]
}

func (s *state) LinkAddr(link string, is4 bool) netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.links[link] {
		if a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

func (s *state) Flows(src *dialer.Source) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows[src]
}

var errNoCarrier = errors.New("no carrier")

func downs(list ...*dialer.Source) *state {
	s := &state{down: make(map[*dialer.Source]error), flows: make(map[*dialer.Source]int)}
	for _, src := range list {
		s.down[src] = errNoCarrier
	}
	return s
}

// three returns three sources in members of these weights, and a fourth of IPv6 only.
func three(weights ...int) ([]*dialer.Source, []dialer.Member) {
	var list []*dialer.Source
	var members []dialer.Member
	for i, w := range weights {
		s := &dialer.Source{Name: fmt.Sprintf("s%d", i), Addrs: addrs(fmt.Sprintf("192.0.2.%d", i+1))}
		list, members = append(list, s), append(members, dialer.Member{Source: s, Weight: w})
	}
	return list, append(members, dialer.Member{Source: six, Weight: 1000})
}

// counts asks n times and returns how often each source was picked.
func counts(t *testing.T, d *dialer.Dialer, n int, flow func(i int) dialer.Flow) map[*dialer.Source]int {
	t.Helper()
	out := make(map[*dialer.Source]int)
	for i := range n {
		dec := d.Decide(flow(i))
		if dec.Err != nil {
			t.Fatal(dec.Err)
		}
		out[dec.Source]++
	}
	return out
}

func anyFlow(int) dialer.Flow { return tcp("198.51.100.1:80") }

func fromClient(i int) dialer.Flow {
	f := tcp("198.51.100.1:80")
	f.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1000)
	return f
}

func dialerOf(t *testing.T, s dialer.State, p *dialer.Pool) *dialer.Dialer {
	t.Helper()
	return &dialer.Dialer{Table: newTable(t, of(p)), State: s}
}

func TestFirstUp(t *testing.T) {
	list, members := three(1, 99, 1)
	pool := &dialer.Pool{Name: "safe", Of: members}
	for _, tt := range []struct {
		name string
		down []*dialer.Source
		want *dialer.Source
	}{
		{"all up", nil, list[0]},
		{"first down", list[:1], list[1]},
		{"two down", list[:2], list[2]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := dialerOf(t, downs(tt.down...), pool).Decide(anyFlow(0)); got.Source != tt.want || got.Err != nil {
				t.Errorf("%v from %v, want %v", got.Err, got.Source, tt.want.Name)
			}
		})
	}
	d := dialerOf(t, downs(list...), pool).Decide(anyFlow(0))
	wantErr(t, d.Err, dialer.ErrSourceDown)
	wantErr(t, d.Err, errNoCarrier)
	wantErr(t, d.Err, dialer.ErrNoSource) // the IPv6 member
	wantText(t, d.Err, `pool "safe"`, `"s0"`, `"s1"`, `"s2"`, `"six"`)
	if d.Source != nil || d.Addr.IsValid() {
		t.Errorf("a refused flow has the source %v", d.Source)
	}
}

func TestOtherFamily(t *testing.T) {
	_, members := three(1, 1)
	for pick := dialer.FirstUp; pick <= dialer.LeastConnections; pick++ {
		d := dialerOf(t, nil, &dialer.Pool{Of: members, Pick: pick})
		for range 20 {
			if dec := d.Decide(tcp("[2001:db8::1]:80")); dec.Source != six {
				t.Fatalf("%v: %v from %v", pick, dec.Err, dec.Source)
			}
			if dec := d.Decide(tcp("192.0.2.1:80")); dec.Err != nil || dec.Source == six {
				t.Fatalf("%v: %v from %v", pick, dec.Err, dec.Source)
			}
		}
	}
}

func TestRoundRobin(t *testing.T) {
	list, members := three(1, 2, 0)
	pool := &dialer.Pool{Of: members, Pick: dialer.RoundRobin}
	got := counts(t, dialerOf(t, nil, pool), 400, anyFlow)
	if got[list[0]] != 100 || got[list[1]] != 200 || got[list[2]] != 100 {
		t.Errorf("%v", got)
	}
	got = counts(t, dialerOf(t, downs(list[1]), pool), 400, anyFlow)
	if got[list[0]] != 200 || got[list[2]] != 200 {
		t.Errorf("with one down: %v", got)
	}
}

// TestRoundRobinConcurrent wants exact shares from eight goroutines together.
func TestRoundRobinConcurrent(t *testing.T) {
	list, members := three(1, 2, 1)
	table := newTable(t, of(&dialer.Pool{Of: members, Pick: dialer.RoundRobin}))
	var mu sync.Mutex
	var all sync.WaitGroup
	got := make(map[*dialer.Source]int)
	for range 8 {
		all.Go(func() {
			own := make(map[*dialer.Source]int)
			for range 500 {
				own[table.Lookup(anyFlow(0)).Source]++
			}
			mu.Lock()
			defer mu.Unlock()
			for s, n := range own {
				got[s] += n
			}
		})
	}
	all.Wait()
	if got[list[0]] != 1000 || got[list[1]] != 2000 || got[list[2]] != 1000 {
		t.Errorf("%v", got)
	}
}

// TestRandomWeights allows ten standard deviations.
func TestRandomWeights(t *testing.T) {
	list, members := three(1, 3)
	got := counts(t, dialerOf(t, nil, &dialer.Pool{Of: members, Pick: dialer.Random}), 10_000, anyFlow)
	if n := got[list[0]]; n < 2500-433 || n > 2500+433 {
		t.Errorf("a weight of 1 in 4 was picked %d times of 10000", n)
	}
}

func TestLeastConnections(t *testing.T) {
	list, members := three(1, 1, 2)
	pool := &dialer.Pool{Of: members, Pick: dialer.LeastConnections}
	for _, tt := range []struct {
		flows [3]int
		down  []*dialer.Source
		want  int
	}{
		{[3]int{0, 0, 0}, nil, 2}, // the heaviest among idle ones
		{[3]int{3, 2, 9}, nil, 1},
		{[3]int{2, 5, 9}, nil, 0},
		{[3]int{5, 5, 9}, nil, 2}, // 10/2 is less than 6/1
		{[3]int{2, 5, 99}, list[:1], 1},
	} {
		s := downs(tt.down...)
		for i, n := range tt.flows {
			s.flows[list[i]] = n
		}
		if got := dialerOf(t, s, pool).Decide(anyFlow(0)); got.Source != list[tt.want] {
			t.Errorf("flows %v: %v, want s%d", tt.flows, got.Source.Name, tt.want)
		}
	}
}

func TestPrefixSource(t *testing.T) {
	for _, tt := range []struct {
		prefix, dst string
		least       int // different addresses among 500
	}{
		{"192.0.2.64/26", "198.51.100.1:80", 40},
		{"192.0.2.77/26", "198.51.100.1:80", 40}, // host bits do not count
		{"192.0.2.7/32", "198.51.100.1:80", 1},
		{"2001:db8:64::/64", "[2001:db8::1]:80", 500},
		{"2001:db8:64::ffff:ffff:ffff:ffff/64", "[2001:db8::1]:80", 500},
		{"2001:db8::/32", "[2001:db8::1]:80", 500},
		{"2001:db8::/127", "[2001:db8::1]:80", 1},
		{"2001:db8::/126", "[2001:db8::1]:80", 3},
		{"2001:db8::5/128", "[2001:db8::1]:80", 1},
	} {
		t.Run(tt.prefix, func(t *testing.T) {
			p := netip.MustParsePrefix(tt.prefix)
			table := newTable(t, from(&dialer.Source{Name: "crawl", Prefix: p}))
			seen := make(map[netip.Addr]bool)
			for range 500 {
				a := table.Lookup(tcp(tt.dst)).Addr
				if !p.Contains(a) || a.Is6() && p.Bits() < 128 && a == p.Masked().Addr() {
					t.Fatalf("address %v", a)
				}
				seen[a] = true
			}
			if len(seen) < tt.least {
				t.Errorf("%d different addresses, want %d", len(seen), tt.least)
			}
		})
	}
}

func TestRangeSource(t *testing.T) {
	for _, tt := range []struct {
		first, last, dst string
		want             int
	}{
		{"192.0.2.10", "192.0.2.14", "198.51.100.1:80", 5},
		{"192.0.2.255", "192.0.3.0", "198.51.100.1:80", 2},
		{"192.0.2.9", "192.0.2.9", "198.51.100.1:80", 1},
		{"2001:db8::ffff:ffff:ffff:fffe", "2001:db8:0:1::1", "[2001:db8::1]:80", 4},
		{"2001:db8::", "2001:db8:0:1:ffff:ffff:ffff:ffff", "[2001:db8::1]:80", 400},
	} {
		t.Run(tt.first, func(t *testing.T) {
			first, last := netip.MustParseAddr(tt.first), netip.MustParseAddr(tt.last)
			table := newTable(t, from(&dialer.Source{First: first, Last: last}))
			seen := make(map[netip.Addr]bool)
			for range 400 {
				a := table.Lookup(tcp(tt.dst)).Addr
				if a.Less(first) || last.Less(a) {
					t.Fatalf("address %v", a)
				}
				seen[a] = true
			}
			if len(seen) != tt.want {
				t.Errorf("%d different addresses, want %d", len(seen), tt.want)
			}
		})
	}
}

// TestSession keeps the address of a session in a prefix, also within a pool.
func TestSession(t *testing.T) {
	crawl := &dialer.Source{Name: "crawl", Prefix: netip.MustParsePrefix("192.0.2.0/24")}
	session := func(user, session string) dialer.Flow {
		f := tcp("198.51.100.1:80")
		f.User, f.Session = user, session
		return f
	}
	for _, use := range []dialer.Use{
		from(crawl),
		of(&dialer.Pool{Of: []dialer.Member{{Source: crawl}}, Pick: dialer.RoundRobin}),
		of(&dialer.Pool{Of: []dialer.Member{{Source: crawl}}, Pick: dialer.Sticky, By: []dialer.Key{dialer.ByUser, dialer.BySession}}),
	} {
		table, again := newTable(t, use), newTable(t, use)
		seen := make(map[netip.Addr]bool)
		for i := range 100 {
			f := session("crawler", fmt.Sprint(i))
			a := table.Lookup(f).Addr
			seen[a] = true
			if b := again.Lookup(f).Addr; a != b {
				t.Fatalf("%v: session %d moved from %v to %v", use, i, a, b)
			}
		}
		if len(seen) < 40 {
			t.Errorf("%v: 100 sessions have %d addresses", use, len(seen))
		}
		if table.Lookup(session("ab", "c")).Addr == table.Lookup(session("a", "bc")).Addr {
			t.Errorf("%v: user and session run into each other", use)
		}
	}
}
