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
