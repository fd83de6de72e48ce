//go:build !race

package udprelay

import "testing"

// TestAllocs counts what a datagram costs once its flow is there, both ways and with
// the sockets of both ends. With the race detector sync.Pool drops at random, so it
// cannot be counted there.
func TestAllocs(t *testing.T) {
	r := newRig(t, 64)
	got := testing.AllocsPerRun(200, func() { r.turn(t, r.out[:batchSize]) })
	// A garbage collection empties the pools; it may fall into a run.
	if got >= 1 {
		t.Errorf("%v allocations for %d datagrams both ways, want 0", got, batchSize)
	}
}
