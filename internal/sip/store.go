package sip

import "time"

// store is a bounded map whose entries belong to a client and end at a deadline. It keeps them in one
// slice, linked by index: all of them in the order of their last use, and those of each client.
// The zero value works once limit is set.
type store[C comparable, V any] struct {
	limit   int
	entries []entry[C, V]
	free    int32 // the first unused entry, by older; entries are counted from 1, 0 is none
	index   map[key]int32
	clients map[C]int32 // the first entry of each client, by next

	newest, oldest int32
	gone           func(*entry[C, V]) // called before an entry is removed; may be nil
}

// entry is one record of a store. Its links belong to the store.
type entry[C comparable, V any] struct {
	key      key
	client   C
	deadline time.Duration
	value    V

	newer, older int32 // by last use
	prev, next   int32 // of the same client
}

// extend moves the deadline to a later moment, never to an earlier one.
func (e *entry[C, V]) extend(deadline time.Duration) { e.deadline = max(e.deadline, deadline) }

// at returns the entry with that number, which is not 0.
func (s *store[C, V]) at(i int32) *entry[C, V] { return &s.entries[i-1] }

// len returns the number of entries, those that have ended but not been swept included.
func (s *store[C, V]) len() int { return len(s.index) }

// get returns the live entry with that key and makes it the most recently used, or nil. The
// pointer is good until the next put.
func (s *store[C, V]) get(now time.Duration, k key) *entry[C, V] {
	i, ok := s.index[k]
	if !ok {
		return nil
	}
	e := s.at(i)
	if e.deadline <= now {
		return nil
	}
	if s.newest != i {
		s.unlinkAge(e)
		s.linkAge(i, e)
	}
	return e
}

// put makes an entry in place of any with the same key. It reports whether the oldest one had to
// go for it. The pointer is good until the next put.
func (s *store[C, V]) put(k key, c C, deadline time.Duration) (e *entry[C, V], evicted bool) {
	if s.index == nil {
		s.index, s.clients = make(map[key]int32), make(map[C]int32)
	}
	if i, ok := s.index[k]; ok {
		s.remove(i)
	}
	if len(s.index) >= s.limit {
		s.remove(s.oldest)
		evicted = true
	}
	i := s.free
	if i == 0 {
		s.entries = append(s.entries, entry[C, V]{})
		i = int32(len(s.entries))
	} else {
		s.free = s.at(i).older
	}
	e = s.at(i)
	*e = entry[C, V]{key: k, client: c, deadline: deadline}
	s.index[k] = i
	s.linkAge(i, e)
	s.linkClient(i, e)
	return e, evicted
}

// remove takes an entry out and wipes it.
func (s *store[C, V]) remove(i int32) {
	e := s.at(i)
	if s.gone != nil {
		s.gone(e)
	}
	delete(s.index, e.key)
	s.unlinkAge(e)
	s.unlinkClient(e)
	*e = entry[C, V]{older: s.free}
	s.free = i
}

// drop removes the entry with that key, if there is one.
func (s *store[C, V]) drop(k key) {
	if i, ok := s.index[k]; ok {
		s.remove(i)
	}
}

// expire removes what has ended. It looks at every entry once.
func (s *store[C, V]) expire(now time.Duration) {
	for i := s.oldest; i != 0; {
		e := s.at(i)
		newer := e.newer
		if e.deadline <= now {
			s.remove(i)
		}
		i = newer
	}
}

// forget removes the entries of a client.
func (s *store[C, V]) forget(c C) {
	for i := s.clients[c]; i != 0; i = s.clients[c] {
		s.remove(i)
	}
}

// active reports whether a client has a live entry. It removes those of its entries that have ended
// and that it meets on the way, so that asking again is cheap.
func (s *store[C, V]) active(now time.Duration, c C) bool {
	for i := s.clients[c]; i != 0; i = s.clients[c] {
		if s.at(i).deadline > now {
			return true
		}
		s.remove(i)
	}
	return false
}

// any reports whether a client has a live entry that is like that. The work is linear in
// the number of those that are not.
func (s *store[C, V]) any(now time.Duration, c C, is func(*V) bool) bool {
	for i := s.clients[c]; i != 0; i = s.at(i).next {
		if e := s.at(i); e.deadline > now && is(&e.value) {
			return true
		}
	}
	return false
}

// linkAge makes an unlinked entry the most recently used.
func (s *store[C, V]) linkAge(i int32, e *entry[C, V]) {
	e.older, e.newer = s.newest, 0
	if s.newest != 0 {
		s.at(s.newest).newer = i
	} else {
		s.oldest = i
	}
	s.newest = i
}

func (s *store[C, V]) unlinkAge(e *entry[C, V]) {
	if e.newer != 0 {
		s.at(e.newer).older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != 0 {
		s.at(e.older).newer = e.newer
	} else {
		s.oldest = e.newer
	}
}

// linkClient makes an unlinked entry the first of its client.
func (s *store[C, V]) linkClient(i int32, e *entry[C, V]) {
	e.prev, e.next = 0, s.clients[e.client]
	if e.next != 0 {
		s.at(e.next).prev = i
	}
	s.clients[e.client] = i
}

func (s *store[C, V]) unlinkClient(e *entry[C, V]) {
	switch {
	case e.prev != 0:
		s.at(e.prev).next = e.next
	case e.next != 0:
		s.clients[e.client] = e.next
	default:
		delete(s.clients, e.client)
	}
	if e.next != 0 {
		s.at(e.next).prev = e.prev
	}
}
