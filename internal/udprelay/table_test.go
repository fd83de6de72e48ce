package udprelay

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/internal/flows"
)

// randomKey is one of few, so that they come again, and of all kinds.
func randomKey(r *rand.Rand, w way) key {
	addrs := []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"),
		netip.MustParseAddr("fe80::1%2"), netip.MustParseAddr("fe80::1%3"), // of one hash
	}
	k := key{from: netip.AddrPortFrom(addrs[r.IntN(len(addrs))], uint16(r.IntN(50)))}
	if w == up {
		k.asked = addrs[r.IntN(len(addrs))]
	}
	return k
}

// TestFlowTable compares the table with a map.
func TestFlowTable(t *testing.T) {
	for _, w := range []way{up, down} {
		r := rand.New(rand.NewPCG(5, uint64(w)))
		var numbers flowList
		table, twin := flowTable{way: w, all: &numbers}, make(map[key]*flow)
		for step := range 60000 {
			k := randomKey(r, w)
			// Grows and shrinks by turns.
			switch add := r.IntN(10) < 2+6*(step/5000%2); {
			case add && twin[k] == nil:
				fl := &flow{asked: k.asked, entry: &flows.Flow{Info: flows.Info{Client: k.from, Dst: k.from}}}
				numbers.add(fl)
				table.put(fl)
				twin[k] = fl
			case !add && twin[k] != nil:
				table.remove(twin[k])
				numbers.remove(twin[k])
				delete(twin, k)
			}
			if k = randomKey(r, w); table.find(&k) != twin[k] {
				t.Fatalf("way %d, step %d: %v: got %p, want %p", w, step, k, table.find(&k), twin[k])
			}
		}
		n := 0
		for fl := range table.flows() {
			if twin[fl.key(w)] != fl {
				t.Errorf("way %d: %v is there", w, fl.key(w))
			}
			n++
		}
		if n != len(twin) || table.len != n {
			t.Errorf("way %d: %d flows, len %d, want %d", w, n, table.len, len(twin))
		}
	}
}

// TestFlowTableRows looks at how far flows are from where their hash says when the
// clients of a network have neighbouring ports and addresses.
func TestFlowTableRows(t *testing.T) {
	const n = 48 << 10
	var numbers flowList
	table := flowTable{way: up, all: &numbers}
	for i := range n {
		client := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		fl := &flow{asked: client, entry: &flows.Flow{Info: flows.Info{Client: netip.AddrPortFrom(client, uint16(i>>8))}}}
		numbers.add(fl)
		table.put(fl)
	}
	mask, away := uint32(len(table.slots)-1), 0
	for p, slot := range table.slots {
		if slot != 0 {
			away += int((uint32(p) - hashOf(slot)) & mask)
		}
	}
	// Linear probing at a load of a: (1/(1-a) - 1) / 2, which is 1.5 for three quarters.
	if mean := float64(away) / n; mean > 2 {
		t.Errorf("%.2f slots from home at %d of %d, want at most 2", mean, n, len(table.slots))
	}
}

// BenchmarkFlowTable finds flows in random order.
func BenchmarkFlowTable(b *testing.B) {
	const n = 100000
	var numbers flowList
	table := flowTable{way: up, all: &numbers}
	keys := make([]key, n)
	for i := range keys {
		k := key{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), uint16(i>>16)), netip.MustParseAddr("127.0.0.1")}
		fl := &flow{asked: k.asked, entry: &flows.Flow{Info: flows.Info{Client: k.from}}}
		numbers.add(fl)
		table.put(fl)
		keys[i] = k
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if table.find(&keys[i]) == nil {
			b.Fatal("not found")
		}
		if i++; i == n {
			i = 0
		}
	}
}
