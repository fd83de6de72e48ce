package egress

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// cache is the answers that are remembered, and the questions under way, each of which
// is asked once however many wait for it. It is safe for concurrent use.
type cache struct {
	size int // answers

	mu      sync.Mutex
	entries map[question]*list.Element
	order   list.List // of *entry, the one used last in front
	flights map[question]*flight
}

// entry is an answer that is remembered.
type entry struct {
	question
	answer
	until time.Time
	used  int
}

// flight is a question under way.
type flight struct {
	question question
	done     chan struct{} // closed when answer is set
	answer   answer
	waiters  int // under cache.mu
	cancel   context.CancelFunc
}

func newCache(size int) *cache {
	return &cache{size: size, entries: make(map[question]*list.Element), flights: make(map[question]*flight)}
}

// join returns a flight that answers q: the answer that is remembered, the question
// under way, or a new one, which is asked by ask until it has an answer or nobody waits
// for it. Who does not wait any more calls leave.
func (c *cache) join(q question, ask func(context.Context, question) answer) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.get(q); ok {
		f := &flight{done: make(chan struct{}), answer: a}
		close(f.done)
		return f
	}
	f := c.flights[q]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f = &flight{question: q, done: make(chan struct{}), cancel: cancel}
		c.flights[q] = f
		go c.fly(ctx, f, ask)
	}
	f.waiters++
	return f
}

// fly answers f.
func (c *cache) fly(ctx context.Context, f *flight, ask func(context.Context, question) answer) {
	defer f.cancel()
	a := ask(ctx, f.question)
	c.mu.Lock()
	defer c.mu.Unlock()
	f.answer = a
	close(f.done)
	if c.flights[f.question] == f {
		delete(c.flights, f.question)
		c.put(f.question, a)
	}
}

// leave ends the wait for flights. One that nobody waits for is given up.
func (c *cache) leave(fs []*flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range fs {
		f.waiters--
		if f.waiters == 0 && c.flights[f.question] == f {
			delete(c.flights, f.question)
			f.cancel()
		}
	}
}

// get returns what is remembered. Addresses take turns at the front, as they do when a
// server answers each time. The caller holds c.mu.
func (c *cache) get(q question) (answer, bool) {
	el := c.entries[q]
	if el == nil {
		return answer{}, false
	}
	e := el.Value.(*entry)
	if !time.Now().Before(e.until) {
		c.drop(el)
		return answer{}, false
	}
	c.order.MoveToFront(el)
	a := e.answer
	if n := len(a.addrs); n > 1 {
		e.used++
		a.addrs = append(a.addrs[e.used%n:n:n], a.addrs[:e.used%n]...)
	}
	return a, true
}

// put remembers an answer for its time. The caller holds c.mu.
func (c *cache) put(q question, a answer) {
	if a.ttl <= 0 || c.size <= 0 {
		return
	}
	if el := c.entries[q]; el != nil {
		c.drop(el)
	}
	for c.order.Len() >= c.size {
		c.drop(c.order.Back())
	}
	c.entries[q] = c.order.PushFront(&entry{question: q, answer: a, until: time.Now().Add(a.ttl)})
}

func (c *cache) drop(el *list.Element) {
	delete(c.entries, el.Value.(*entry).question)
	c.order.Remove(el)
}
