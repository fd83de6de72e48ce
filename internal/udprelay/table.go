package udprelay

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// key is what a datagram is known by: where it came from and, on the way up, which of
// our addresses it came to.
type key struct {
	from  netip.AddrPort
	asked netip.Addr // the zero Addr on the way down: an owner has one address
}

// hashKeys make it hopeless to find keys that collide (they are the secret of the
// process, as in wyhash).
var hashKeys = [3]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64()}

// hash does not look at zones: equal does.
func (k *key) hash() uint32 {
	from, asked := k.from.Addr().As16(), k.asked.As16()
	h := mix(binary.NativeEndian.Uint64(from[:])^hashKeys[0], binary.NativeEndian.Uint64(from[8:])^hashKeys[1])
	h = mix(h^binary.NativeEndian.Uint64(asked[:]), binary.NativeEndian.Uint64(asked[8:])^hashKeys[2])
	h = mix(h^hashKeys[0], uint64(k.from.Port())^hashKeys[1])
	return uint32(h)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// flowTable finds flows by their key on one way. It is open addressing with slots of 8
// bytes without pointers, which the garbage collector does not look at: the hash in the
// upper half, one more than the number of the flow in the lower one; zero is free. What
// lies in one row belongs where its hash says, or behind.
type flowTable struct {
	way   way
	all   *flowList
	slots []uint64 // a power of two, or none
	len   int
}

// minSlots is how many slots the first flow gets. Most owners have few flows.
const minSlots = 4

func slotOf(hash uint32, flow uint32) uint64 { return uint64(hash)<<32 | uint64(flow+1) }

func hashOf(slot uint64) uint32 { return uint32(slot >> 32) }

func flowOf(slot uint64) uint32 { return uint32(slot) - 1 }

// find returns the flow with k, or nil.
func (t *flowTable) find(k *key) *flow {
	if t.len == 0 {
		return nil
	}
	h, mask := k.hash(), uint32(len(t.slots)-1)
	for p := h & mask; t.slots[p] != 0; p = (p + 1) & mask {
		if hashOf(t.slots[p]) != h {
			continue
		}
		if fl := t.all.at(flowOf(t.slots[p])); fl.key(t.way) == *k {
			return fl
		}
	}
	return nil
}

// put takes in fl, whose key is not there.
func (t *flowTable) put(fl *flow) {
	if t.len+1 > len(t.slots)/4*3 {
		t.grow()
	}
	k := fl.key(t.way)
	t.set(slotOf(k.hash(), fl.number))
	t.len++
}

func (t *flowTable) set(slot uint64) {
	mask := uint32(len(t.slots) - 1)
	p := hashOf(slot) & mask
	for t.slots[p] != 0 {
		p = (p + 1) & mask
	}
	t.slots[p] = slot
}

func (t *flowTable) grow() {
	old := t.slots
	t.slots = make([]uint64, max(minSlots, 2*len(old)))
	for _, slot := range old {
		if slot != 0 {
			t.set(slot)
		}
	}
}

// remove takes fl out, which is there. What was pushed behind it moves up.
func (t *flowTable) remove(fl *flow) {
	if t.len--; t.len == 0 {
		t.slots = nil
		return
	}
	k, mask := fl.key(t.way), uint32(len(t.slots)-1)
	slot := slotOf(k.hash(), fl.number)
	p := hashOf(slot) & mask
	for t.slots[p] != slot {
		p = (p + 1) & mask
	}
	for q := (p + 1) & mask; t.slots[q] != 0; q = (q + 1) & mask {
		if away := (q - hashOf(t.slots[q])) & mask; away >= (q-p)&mask {
			t.slots[p] = t.slots[q]
			p = q
		}
	}
	t.slots[p] = 0
}

// flows yields all flows in no order. The table must not change meanwhile.
func (t *flowTable) flows() iter.Seq[*flow] {
	return func(yield func(*flow) bool) {
		for _, slot := range t.slots {
			if slot != 0 && !yield(t.all.at(flowOf(slot))) {
				return
			}
		}
	}
}

// flowList numbers the flows of an engine. It grows by chunks, so that it never moves:
// a table's reader that has found a number needs no lock but the table's.
type flowList struct {
	chunks atomic.Pointer[[]*flowChunk]

	// The rest is under Engine.mu.
	free []uint32 // numbers of flows that have ended
	next uint32
}

type flowChunk [1 << 10]*flow

// at returns flow i, which is live.
func (l *flowList) at(i uint32) *flow {
	return (*l.chunks.Load())[i/uint32(len(flowChunk{}))][i%uint32(len(flowChunk{}))]
}

// add gives fl a number.
func (l *flowList) add(fl *flow) {
	if n := len(l.free); n > 0 {
		fl.number = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		fl.number = l.next
		l.next++
	}
	*l.slot(fl.number) = fl
}

// remove takes the number away from fl. No table has it any more.
func (l *flowList) remove(fl *flow) {
	*l.slot(fl.number) = nil
	l.free = append(l.free, fl.number)
}

// slot returns the place of flow i, in a new chunk if need be.
func (l *flowList) slot(i uint32) **flow {
	var chunks []*flowChunk
	if p := l.chunks.Load(); p != nil {
		chunks = *p
	}
	n := int(i) / len(flowChunk{})
	if n == len(chunks) {
		chunks = append(chunks[:n:n], new(flowChunk))
		l.chunks.Store(&chunks)
	}
	return &chunks[n][int(i)%len(flowChunk{})]
}
