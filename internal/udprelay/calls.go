package udprelay

import (
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/internal/sip"
)

// callKey tells the calls of a client apart: hashes of the Call-ID and of the tag of
// the other side. The zero callKey is none.
type callKey struct{ id, tag uint64 }

// seed is the same for all, so that keys can be compared; nobody outside learns it.
var seed = maphash.MakeSeed()

func newCallKey(id, tag []byte) callKey {
	return callKey{maphash.Bytes(seed, id), maphash.Bytes(seed, tag)}
}

// callFromServer returns the call of a request that comes from the peer, and none for
// a response: those come from where the request went.
func callFromServer(m *sip.Message) callKey {
	if m.Method == nil {
		return callKey{}
	}
	return newCallKey(m.CallID, m.From.Tag)
}

// callFromClient returns the call of what a client sends.
func callFromClient(m *sip.Message) callKey {
	if m.Method == nil {
		return newCallKey(m.CallID, m.From.Tag)
	}
	return newCallKey(m.CallID, m.To.Tag)
}

// Bounds of calls.
const (
	maxCalls    = 10000
	callsForget = 5 * time.Minute // without a datagram, when there is no room
)

// calls is the calls of a client that came by another way than its own datagrams
// leave: from another port of the peer, say. What belongs to them goes back there
// (RFC 3261 section 18.2.2). The zero value is empty, and nil stays so. It is safe for
// concurrent use.
type calls struct {
	mu    sync.Mutex
	by    map[callKey]*call
	swept time.Duration // when the silent ones were last looked for
}

type call struct {
	leg  leg
	last time.Duration
}

// add notes that call k came by l.
func (c *calls) add(now time.Duration, k callKey, l leg) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.by[k]; x != nil {
		x.leg, x.last = l, now
		return
	}
	if c.by == nil {
		c.by = make(map[callKey]*call)
	}
	if len(c.by) >= maxCalls {
		c.makeRoom(now)
	}
	c.by[k] = &call{l, now}
}

// makeRoom forgets the calls that are silent, or any one where all speak. Looking at
// all is not done for each of a flood.
func (c *calls) makeRoom(now time.Duration) {
	if now-c.swept >= sweepEvery {
		c.swept = now
		maps.DeleteFunc(c.by, func(_ callKey, x *call) bool { return now-x.last >= callsForget })
	}
	for k := range c.by {
		if len(c.by) < maxCalls {
			break
		}
		delete(c.by, k)
	}
}

// find returns the way by which call k came, if it is known.
func (c *calls) find(now time.Duration, k callKey) (leg, bool) {
	if c == nil {
		return leg{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.by[k]
	if x == nil {
		return leg{}, false
	}
	x.last = now
	return x.leg, true
}
