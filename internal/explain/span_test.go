package explain

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestFlattenIsItsSlowTwin compares spans with the longest prefix, at the edges of all
// prefixes and beside them.
func TestFlattenIsItsSlowTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	targets := make([]target, 3)
	for i := range targets {
		targets[i] = target{use: dialer.Use{Source: new(dialer.Source)}}
	}
	for range 2000 {
		list := randomDests(r, targets)
		for _, is4 := range []bool{true, false} {
			spans := flatten(list, is4)
			for i, s := range spans {
				if s.hi.Less(s.lo) || i > 0 && !spans[i-1].hi.Less(s.lo) {
					t.Fatalf("%v: spans %v overlap", list, spans)
				}
				if i > 0 && spans[i-1].to == s.to && spans[i-1].hi.Next() == s.lo {
					t.Fatalf("%v: spans %v could be one", list, spans)
				}
			}
			for _, d := range list {
				for _, a := range []netip.Addr{d.prefix.Addr(), d.prefix.Addr().Prev(), lastOf(d.prefix), lastOf(d.prefix).Next()} {
					if !a.IsValid() || a.Is4() != is4 {
						continue
					}
					want, inList := longest(list, netip.PrefixFrom(a, a.BitLen()))
					i := slices.IndexFunc(spans, func(s span) bool { return s.lo.Compare(a) <= 0 && a.Compare(s.hi) <= 0 })
					if inList != (i >= 0) || inList && spans[i].to != want.to {
						t.Fatalf("%v: %v is wrong in %v", list, a, spans)
					}
				}
			}
		}
	}
}

func randomDests(r *rand.Rand, targets []target) []dest {
	var list []dest
	for range r.IntN(12) {
		a := netip.AddrFrom4([4]byte{byte(r.IntN(2) * 255), byte(r.IntN(2) * 255), byte(r.IntN(4)), byte(r.IntN(256))})
		bits := a.BitLen() - r.IntN(33)
		if r.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{0: byte(r.IntN(2) * 255), 7: byte(r.IntN(4)), 15: byte(r.IntN(256))})
			bits = a.BitLen() - []int{r.IntN(20), r.IntN(129)}[r.IntN(2)]
		}
		list = append(list, dest{netip.PrefixFrom(a, bits).Masked(), targets[r.IntN(len(targets))]})
	}
	slices.SortFunc(list, func(a, b dest) int { return comparePrefixes(a.prefix, b.prefix) })
	return slices.CompactFunc(list, func(a, b dest) bool { return a.prefix == b.prefix })
}

func TestSpanString(t *testing.T) {
	for _, tt := range []struct{ lo, hi, want string }{
		{"192.0.2.1", "192.0.2.1", "192.0.2.1"},
		{"192.0.2.0", "192.0.2.255", "192.0.2.0/24"},
		{"192.0.2.0", "192.0.2.254", "192.0.2.0-192.0.2.254"},
		{"192.0.2.1", "192.0.2.2", "192.0.2.1-192.0.2.2"},
		{"0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
		{"2001:db8::", "2001:db8::f", "2001:db8::/124"},
	} {
		if got := (span{lo: netip.MustParseAddr(tt.lo), hi: netip.MustParseAddr(tt.hi)}).String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// TestPrefixesOfSpan: the prefixes are those of the span, one after the other, and no two
// could be one.
func TestPrefixesOfSpan(t *testing.T) {
	for _, tt := range []struct {
		lo, hi string
		want   []string
	}{
		{"198.51.100.64", "198.51.100.95", []string{"198.51.100.64/27"}},
		{"198.51.100.7", "198.51.100.7", []string{"198.51.100.7/32"}},
		{"198.51.100.1", "198.51.100.6", []string{"198.51.100.1/32", "198.51.100.2/31", "198.51.100.4/31", "198.51.100.6/32"}},
		{"0.0.0.0", "255.255.255.255", []string{"0.0.0.0/0"}},
		{"2001:db8::20", "2001:db8::2f", []string{"2001:db8::20/124"}},
		{"255.255.255.254", "255.255.255.255", []string{"255.255.255.254/31"}},
	} {
		var got []string
		for _, p := range (span{lo: netip.MustParseAddr(tt.lo), hi: netip.MustParseAddr(tt.hi)}).prefixes() {
			got = append(got, p.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s-%s: got %q, want %q", tt.lo, tt.hi, got, tt.want)
		}
	}
}
