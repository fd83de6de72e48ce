package sip

import "time"

// owners tells which clients have registered a name, and until when. The zero value works.
type owners[C comparable] struct {
	entries []owner[C]
	free    int32 // the first unused entry, by next; entries are counted from 1, 0 is none
	index   map[ownerKey[C]]int32
	heads   map[key]int32 // the first owner of each name, by next
}

type ownerKey[C comparable] struct {
	name   key
	client C
}

// owner is a client with one or more bindings that have a name.
type owner[C comparable] struct {
	ownerKey[C]
	bindings   int
	deadline   time.Duration // when the last of the bindings ends
	prev, next int32         // of the same name
}

func (o *owners[C]) at(i int32) *owner[C] { return &o.entries[i-1] }

// ownersSeen bounds the walk over owners of a name. More than a few of them are met only
// while they have ended and have not been swept.
const ownersSeen = 16

// of returns an owner of the name, and 0, 1, or 2 for no owner, one, and several. Too
// many to look at count as several.
func (o *owners[C]) of(now time.Duration, name key) (c C, found int) {
	steps := 0
	for i := o.heads[name]; i != 0 && found < 2; steps++ {
		if steps == ownersSeen {
			return c, 2
		}
		e := o.at(i)
		if e.deadline > now {
			c = e.client
			found++
		}
		i = e.next
	}
	return c, found
}

// acquire counts a binding of a client for each of its names.
func (o *owners[C]) acquire(c C, n *names, deadline time.Duration) {
	if o.index == nil {
		o.index, o.heads = make(map[ownerKey[C]]int32), make(map[key]int32)
	}
	for _, name := range n {
		if name == (key{}) {
			continue
		}
		k := ownerKey[C]{name, c}
		i, ok := o.index[k]
		if !ok {
			i = o.insert(k)
		}
		e := o.at(i)
		e.bindings++
		e.deadline = max(e.deadline, deadline)
	}
}

// release takes back what acquire has counted.
func (o *owners[C]) release(c C, n *names) {
	for _, name := range n {
		i, ok := o.index[ownerKey[C]{name, c}]
		if !ok {
			continue
		}
		e := o.at(i)
		if e.bindings--; e.bindings == 0 {
			o.remove(i)
		}
	}
}

// insert makes an entry, the first of its name.
func (o *owners[C]) insert(k ownerKey[C]) int32 {
	i := o.free
	if i == 0 {
		o.entries = append(o.entries, owner[C]{})
		i = int32(len(o.entries))
	} else {
		o.free = o.at(i).next
	}
	head := o.heads[k.name]
	*o.at(i) = owner[C]{ownerKey: k, next: head}
	if head != 0 {
		o.at(head).prev = i
	}
	o.heads[k.name] = i
	o.index[k] = i
	return i
}

// remove takes an entry out and wipes it.
func (o *owners[C]) remove(i int32) {
	e := o.at(i)
	switch {
	case e.prev != 0:
		o.at(e.prev).next = e.next
	case e.next != 0:
		o.heads[e.name] = e.next
	default:
		delete(o.heads, e.name)
	}
	if e.next != 0 {
		o.at(e.next).prev = e.prev
	}
	delete(o.index, e.ownerKey)
	*e = owner[C]{next: o.free}
	o.free = i
}
