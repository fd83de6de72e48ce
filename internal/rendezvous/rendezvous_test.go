package rendezvous_test

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/internal/rendezvous"
)

func TestString(t *testing.T) {
	for _, text := range []string{"", "a", "wan1", "\xff"} {
		h := fnv.New64a()
		h.Write([]byte(text + "\xff"))
		if got, want := rendezvous.String(rendezvous.Seed, text), h.Sum64(); got != want {
			t.Errorf("String(%q): got %#x, want %#x", text, got, want)
		}
	}
}

func TestAddrUnmaps(t *testing.T) {
	plain, mapped := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	if got, want := rendezvous.Addr(rendezvous.Seed, mapped), rendezvous.Addr(rendezvous.Seed, plain); got != want {
		t.Errorf("mapped: got %#x, want %#x", got, want)
	}
}

func TestCostIsALogarithm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		h := r.Uint64() >> r.IntN(64)
		want := -math.Log2(float64(rendezvous.Mix(h)|1) / (1 << 64))
		got := float64(rendezvous.Cost(h, 1)) / (1 << 52)
		if math.Abs(got-want) > 4e-6 {
			t.Fatalf("Cost(%#x): got %v, want %v", h, got, want)
		}
	}
}

func TestWeights(t *testing.T) {
	weights := []uint64{1, 2, 5}
	won := make([]int, len(weights))
	const keys = 80_000
	for key := range uint64(keys) {
		h, best, least := rendezvous.Mix(key), 0, uint64(math.MaxUint64)
		for i, w := range weights {
			if c := rendezvous.Cost(h^rendezvous.Uint(rendezvous.Seed, uint64(i)), w); c < least {
				best, least = i, c
			}
		}
		won[best]++
	}
	for i, w := range weights {
		if want := keys / 8 * int(w); math.Abs(float64(won[i]-want)) > float64(want)/30 {
			t.Errorf("weight %d: won %d times, want about %d", w, won[i], want)
		}
	}
}
