package udprelay

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// maxRefusals bounds the lines about refused flows in a second.
const maxRefusals = 20

// limiter lets a refusal be logged once a second for each client and rule, and 20
// times a second in all. The zero value is ready.
type limiter struct {
	mu    sync.Mutex
	since time.Duration // start of the second that n counts in
	n     int
	last  map[refusal]time.Duration
}

type refusal struct {
	client         netip.Addr
	listener, rule string
}

// allow tells whether r is to be logged now.
func (l *limiter) allow(r refusal, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = make(map[refusal]time.Duration)
	}
	if now-l.since >= time.Second {
		l.since, l.n = now, 0
		maps.DeleteFunc(l.last, func(_ refusal, t time.Duration) bool { return now-t >= time.Second })
	}
	t, seen := l.last[r]
	if seen && now-t < time.Second || l.n == maxRefusals {
		return false
	}
	l.n++
	l.last[r] = now
	return true
}
