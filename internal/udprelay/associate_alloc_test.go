//go:build !race

package udprelay

import "testing"

// TestAssociateAllocs counts what a datagram costs an association once its destination
// is known, both ways. With the race detector sync.Pool drops at random.
func TestAssociateAllocs(t *testing.T) {
	for _, byName := range []bool{false, true} {
		r := newAssociateRig(t, byName)
		got := testing.AllocsPerRun(200, func() { r.turn(t, batchSize) })
		// A garbage collection empties the pools; it may fall into a run.
		if got >= 1 {
			t.Errorf("by name %v: %v allocations for %d datagrams both ways, want 0", byName, got, batchSize)
		}
	}
}
