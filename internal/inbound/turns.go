package inbound

import (
	"context"
	"net/netip"
	"sync"
)

// turns lets every client have one turn at a time, so that one that asks a thousand
// times at once stands only once in a queue that all clients share. A client is an IPv4
// address or the /64 of an IPv6 one. The zero value works, and is safe for concurrent
// use.
type turns struct {
	mu sync.Mutex
	of map[netip.Prefix]*turn
}

type turn struct {
	taken   chan struct{} // full while somebody has the turn
	waiting int           // with the one who has it; under turns.mu
}

// take waits for the client's turn. The caller ends it by the function returned, unless
// ctx has ended first.
func (t *turns) take(ctx context.Context, client netip.Addr) (end func(), err error) {
	key := networkOf(client)
	mine := t.enter(key)
	select {
	case mine.taken <- struct{}{}:
		return func() {
			<-mine.taken
			t.leave(key, mine)
		}, nil
	case <-ctx.Done():
		t.leave(key, mine)
		return nil, ctx.Err()
	}
}

func (t *turns) enter(key netip.Prefix) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[netip.Prefix]*turn)
	}
	mine := t.of[key]
	if mine == nil {
		mine = &turn{taken: make(chan struct{}, 1)}
		t.of[key] = mine
	}
	mine.waiting++
	return mine
}

func (t *turns) leave(key netip.Prefix, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.waiting--; mine.waiting == 0 {
		delete(t.of, key)
	}
}

// networkOf returns what one client can have addresses of at will.
func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	p, _ := a.Prefix(min(a.BitLen(), 64)) // no address has no network: all of those are one
	return p
}
