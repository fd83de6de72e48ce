package egress

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// verdict is what a quota says to one more.
type verdict uint8

const (
	admitted verdict = iota
	tooMany          // at one time
	tooFast          // new ones
)

// key returns the key of the configuration that makes the verdict.
func (v verdict) key() string {
	if v == tooFast {
		return "new_per_second"
	}
	return "connections"
}

// of returns the value of that key.
func (v verdict) of(b Bound) int {
	if v == tooFast {
		return b.PerSecond
	}
	return b.Connections
}

// quota counts what each of many parties has. The zero value is empty and ready. It is
// safe for concurrent use. Clients can be without number: one that has nothing and has
// been quiet is forgotten, and of those that have nothing no more than maxQuiet are kept.
type quota[K comparable] struct {
	mu      sync.Mutex
	shares  map[K]*share
	sweepAt int // so many shares that a look for quiet ones pays
}

// share is what one party has.
type share struct {
	n         int
	rate      *rate.Limiter // nil: no limit on new ones
	perSecond int           // what rate was made for
}

// The bounds of the shares that are kept for parties that have nothing.
const (
	minSweep = 1 << 10
	maxQuiet = 1 << 16
)

// count returns what that party has.
func (q *quota[K]) count(key K) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.shares[key]; s != nil {
		return s.n
	}
	return 0
}

// full tells what enter would say.
func (q *quota[K]) full(key K, b Bound) verdict {
	if b == (Bound{}) {
		return admitted
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.shares[key]
	switch {
	case s == nil:
		return admitted
	case b.Connections > 0 && s.n >= b.Connections:
		return tooMany
	case b.PerSecond > 0 && s.limiter(b.PerSecond).Tokens() < 1:
		return tooFast
	}
	return admitted
}

// enter counts one more, or says why not.
func (q *quota[K]) enter(key K, b Bound) verdict {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.share(key)
	switch {
	case b.Connections > 0 && s.n >= b.Connections:
		return tooMany
	case b.PerSecond > 0 && !s.limiter(b.PerSecond).Allow():
		return tooFast
	case b.PerSecond == 0:
		s.rate = nil
	}
	s.n++
	return admitted
}

// leave counts one less.
func (q *quota[K]) leave(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.shares[key]
	if s == nil {
		return
	}
	s.n = max(s.n-1, 0)
	if s.isQuiet(time.Now()) {
		delete(q.shares, key)
	}
}

// share returns that of key, and makes it if there is none.
func (q *quota[K]) share(key K) *share {
	if s := q.shares[key]; s != nil {
		return s
	}
	if q.shares == nil {
		q.shares, q.sweepAt = make(map[K]*share), minSweep
	}
	if len(q.shares) >= q.sweepAt {
		q.sweep()
	}
	s := new(share)
	q.shares[key] = s
	return s
}

// sweep forgets what tells nothing any more. The next one comes when there are twice as
// many shares as it leaves, so that each costs a constant time.
func (q *quota[K]) sweep() {
	now := time.Now()
	idle := 0
	for key, s := range q.shares {
		if s.n > 0 {
			continue
		}
		if idle++; idle > maxQuiet || s.isQuiet(now) {
			delete(q.shares, key)
			idle--
		}
	}
	q.sweepAt = max(minSweep, 2*len(q.shares))
}

// limiter returns that for so many a second. A reload that says another number begins
// anew.
func (s *share) limiter(perSecond int) *rate.Limiter {
	if s.rate == nil || s.perSecond != perSecond {
		s.rate, s.perSecond = rate.NewLimiter(rate.Limit(perSecond), perSecond), perSecond
	}
	return s.rate
}

// isQuiet reports whether a new share would tell the same.
func (s *share) isQuiet(now time.Time) bool {
	return s.n == 0 && (s.rate == nil || s.rate.TokensAt(now) >= float64(s.rate.Burst()))
}
