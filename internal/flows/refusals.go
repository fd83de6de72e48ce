package flows

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the lines about refused flows in a second: for each client, listener and rule,
// and in all. Who is refused pays for no connection, and could otherwise fill the disk.
const (
	refusalsOfOne = 20
	refusalsOfAll = 100
)

// refusals says which refusals get a line. The zero value is ready.
type refusals struct {
	mu    sync.Mutex
	since time.Time // start of the second that the counts are of
	all   int
	of    map[refusal]int
	left  int // without a line, since the last one that got one
}

type refusal struct {
	client         netip.Addr
	listener, rule string
}

// allow tells whether a refusal is to be logged now, and how many before it were not.
func (r *refusals) allow(i *Info, now time.Time) (left int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= time.Second || r.of == nil {
		r.since, r.all, r.of = now, 0, make(map[refusal]int)
	}
	k := refusal{i.Client.Addr(), i.Listener, i.Rule}
	if r.all == refusalsOfAll || r.of[k] == refusalsOfOne {
		r.left++
		return 0, false
	}
	r.all++
	r.of[k]++
	left, r.left = r.left, 0
	return left, true
}
