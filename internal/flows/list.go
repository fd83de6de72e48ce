package flows

// list is a doubly linked list through the flows: a map would cost more than
// all else in Open and Done.
type list struct {
	first, last *Flow
	len         int
}

func (l *list) push(f *Flow) {
	f.prev = l.last
	if l.last == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
	l.len++
}

func (l *list) remove(f *Flow) {
	l.unlink(f)
	l.len--
}

// before puts a bookmark before f. It does not count.
func (l *list) before(f, bookmark *Flow) {
	bookmark.prev, bookmark.next = f.prev, f
	if f.prev == nil {
		l.first = bookmark
	} else {
		f.prev.next = bookmark
	}
	f.prev = bookmark
}

// isBookmark reports whether f is a place in the list, and no flow.
func (f *Flow) isBookmark() bool { return f.registry == nil }

// unlink takes f out.
func (l *list) unlink(f *Flow) {
	if f.prev == nil {
		l.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
}

// tally counts flows by a key and forgets the keys that have none: clients and
// users are without number. The zero value works.
type tally[K comparable] struct{ counts map[K]*count[K] }

type count[K comparable] struct {
	key K
	n   int
}

// add counts one more. It returns nil, and counts nothing, for a key that is
// not to be counted.
func (t *tally[K]) add(key K, counted bool) *count[K] {
	if !counted {
		return nil
	}
	c := t.counts[key]
	if c == nil {
		if t.counts == nil {
			t.counts = make(map[K]*count[K])
		}
		c = &count[K]{key: key}
		t.counts[key] = c
	}
	c.n++
	return c
}

// drop counts one less; c is what add returned.
func (t *tally[K]) drop(c *count[K]) {
	if c == nil {
		return
	}
	if c.n--; c.n == 0 {
		delete(t.counts, c.key)
	}
}

func (t *tally[K]) len(key K) int {
	if c := t.counts[key]; c != nil {
		return c.n
	}
	return 0
}
