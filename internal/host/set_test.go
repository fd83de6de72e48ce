package host

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// slowContains is what a set means.
func slowContains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

func slowCovers(prefixes []netip.Prefix, q netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) })
}

// smallAddr returns an address of few, so that prefixes often contain it.
func smallAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], r.Uint32N(1<<9)<<(r.IntN(3)*8))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	b[0], b[r.IntN(16)] = 0xfd, byte(r.Uint32N(4))
	return netip.AddrFrom16(b)
}

func smallPrefix(r *rand.Rand) netip.Prefix {
	a := smallAddr(r)
	bits := a.BitLen()
	if r.IntN(2) == 0 {
		bits = r.IntN(bits + 1)
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func TestSetIsItsSlowTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hits := 0
	for range 300 {
		prefixes := make([]netip.Prefix, r.IntN(12))
		for i := range prefixes {
			prefixes[i] = smallPrefix(r)
		}
		s := newSet(prefixes)
		for range 100 {
			a, p := smallAddr(r), smallPrefix(r)
			if got, want := s.contains(a), slowContains(prefixes, a); got != want {
				t.Fatalf("%v contains %v: got %v, want %v", prefixes, a, got, want)
			}
			if got, want := s.covers(p), slowCovers(prefixes, p); got != want {
				t.Fatalf("%v covers %v: got %v, want %v", prefixes, p, got, want)
			}
			if s.contains(a) {
				hits++
			}
		}
	}
	if hits < 1000 || hits > 29000 {
		t.Errorf("%d of 30000 addresses were in the sets; the test does not test both answers", hits)
	}
}

func TestSnapshotLocal(t *testing.T) {
	addr := func(s string, f Flags) Address {
		p := netip.MustParsePrefix(s)
		return Address{Addr: p.Addr(), Prefix: p.Masked(), Link: "eth0", Flags: f}
	}
	s := NewSnapshot(
		[]Link{{Index: 2, Name: "eth0", Up: true}},
		[]Address{
			addr("198.51.100.10/24", Permanent),
			addr("2001:db8::10/64", Permanent),
			addr("2001:db8::11/64", Tentative),
			addr("2001:db8::12/64", Tentative|Optimistic),
			addr("2001:db8::13/64", Permanent|DADFailed),
			addr("2001:db8::14/64", Deprecated),
			addr("fe80::10/64", Permanent),
		},
		[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8:64::/64")},
	)
	for a, want := range map[string]bool{
		"198.51.100.10":         true,
		"::ffff:198.51.100.10":  true,
		"198.51.100.11":         false,
		"127.9.9.9":             true,
		"::ffff:127.0.0.1":      true,
		"2001:db8::10":          true,
		"2001:db8::11":          false, // tentative
		"2001:db8::12":          true,  // optimistic
		"2001:db8::13":          false, // a duplicate
		"2001:db8::14":          true,
		"2001:db8:64::1:2:3":    true,
		"2001:db8:65::1":        false,
		"fe80::10%eth0":         true,
		"fe80::11%eth0":         false,
		"::ffff:198.51.100.255": false,
	} {
		if got := s.Local(netip.MustParseAddr(a)); got != want {
			t.Errorf("Local(%s): got %v, want %v", a, got, want)
		}
	}
	if s.Local(netip.Addr{}) {
		t.Error("the zero Addr is local")
	}
	for p, want := range map[string]bool{
		"2001:db8:64::/64":   true,
		"2001:db8:64::9/80":  true,
		"2001:db8:64::/63":   false,
		"127.0.0.0/9":        true,
		"198.51.100.10/32":   true,
		"198.51.100.10/31":   false,
		"198.51.100.0/24":    false,
		"2001:db8:64:1::/64": false,
	} {
		if got := s.Covers(netip.MustParsePrefix(p)); got != want {
			t.Errorf("Covers(%s): got %v, want %v", p, got, want)
		}
	}
	if new(Snapshot).Local(netip.MustParseAddr("127.0.0.1")) {
		t.Error("the zero Snapshot has an address")
	}
}

func TestAllocs(t *testing.T) {
	s, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:203.0.113.1")}
	if n := testing.AllocsPerRun(100, func() {
		for _, a := range addrs {
			s.Local(a)
		}
	}); n != 0 {
		t.Errorf("Local allocates %v times", n)
	}
}

func BenchmarkLocal(b *testing.B) {
	s, err := Read()
	if err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("203.0.113.1")
	for b.Loop() {
		s.Local(a)
	}
}
