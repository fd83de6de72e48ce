package sip

import "time"

// MaxContacts is how many Contacts of one REGISTER are learned, and up to four times as many of its
// answer are read.
const MaxContacts = 16

// registrar knows which client has registered which Contact. A REGISTER is kept until its
// answer: a 2xx makes, renews or removes the bindings that it asked for, and takes a Contact over that
// another client has registered for the same address of record, as the registrar has. Until then
// a new binding counts for a short while already, where it is in nobody's way.
type registrar[C comparable] struct {
	bindings store[C, binding]
	pending  store[C, *registration]
	owners   owners[C]
}

// binding is a Contact of an address of record, with the client that registered it.
type binding struct {
	address key
	names   names
}

// registration is a REGISTER without an answer.
type registration struct {
	address  key
	all      bool // Contact: * with Expires: 0
	contacts []candidate
}

// candidate is a binding that a REGISTER asks for.
type candidate struct {
	binding key
	names   names
	expires int64 // seconds
	matched bool  // the answer names it
}

func (r *registrar[C]) init(limit int) {
	r.bindings.limit, r.pending.limit = limit, limit
	r.bindings.gone = func(e *entry[C, binding]) { r.owners.release(e.client, &e.value.names) }
}

func (r *registrar[C]) expire(now time.Duration) {
	r.bindings.expire(now)
	r.pending.expire(now)
}

func (r *registrar[C]) forget(c C) {
	r.bindings.forget(c)
	r.pending.forget(c)
}

func (r *registrar[C]) active(now time.Duration, c C) bool {
	return r.bindings.active(now, c) || r.pending.active(now, c)
}

// lookup finds the client that a Request-URI means, by the strictest name that anybody has.
func (r *registrar[C]) lookup(now time.Duration, n names) (c C, _ Reason) {
	for i, name := range n {
		if name == (key{}) {
			continue
		}
		owner, found := r.owners.of(now, name)
		switch {
		case found == 1:
			return owner, ByContact + Reason(i)
		case found > 1: // weaker names have no fewer owners
			return c, Ambiguous
		}
	}
	return c, NoContact
}

// register learns a REGISTER of a client.
func (t *Table[C]) register(now time.Duration, c C, m *Message) {
	reg := t.newRegistration(m)
	if !reg.all && len(reg.contacts) == 0 {
		return // it only asks
	}
	e, evicted := t.registrar.pending.put(t.seeds.transactionKey(m), c, now+linger)
	if evicted {
		t.stats.Evicted.Registering++
	}
	e.value = reg
	for i := range reg.contacts {
		t.tryBinding(now, c, reg.address, &reg.contacts[i])
	}
}

// newRegistration reads what a REGISTER asks for.
func (t *Table[C]) newRegistration(m *Message) *registration {
	reg := &registration{address: t.seeds.addressKey(m.To.URI)}
	if string(m.Contact) == "*" {
		reg.all = m.Expires == 0
		return reg
	}
	for contact := range m.Contacts {
		if len(reg.contacts) == MaxContacts {
			t.stats.Excess++
			break
		}
		n := t.seeds.names(contact.URI)
		if n[nameExact] == (key{}) {
			continue // not a SIP URI
		}
		seconds := first(contact.Expires, m.Expires, badExpires)
		reg.contacts = append(reg.contacts, candidate{
			binding: t.seeds.bindingKey(reg.address, n[nameExact]),
			names:   n,
			expires: seconds,
		})
	}
	return reg
}

// first returns the first expiry that is given.
func first(expiries ...int64) int64 {
	for _, e := range expiries {
		if e >= 0 {
			return e
		}
	}
	return NoExpires
}

// tryBinding makes a binding that waits for its answer, unless it exists or another client has
// one of its names.
func (t *Table[C]) tryBinding(now time.Duration, c C, address key, n *candidate) {
	if n.expires == 0 || t.registrar.bindings.get(now, n.binding) != nil {
		return
	}
	for _, name := range n.names {
		owner, found := t.registrar.owners.of(now, name)
		if found > 1 || found == 1 && owner != c {
			return
		}
	}
	t.bind(c, address, n, now+min(linger, grant(n.expires)))
}

// bind makes a binding, in place of any other client's.
func (t *Table[C]) bind(c C, address key, n *candidate, deadline time.Duration) {
	e, evicted := t.registrar.bindings.put(n.binding, c, deadline)
	if evicted {
		t.stats.Evicted.Contacts++
	}
	e.value = binding{address: address, names: n.names}
	t.registrar.owners.acquire(c, &n.names, deadline)
}

// registered applies the answer to a REGISTER.
func (t *Table[C]) registered(now time.Duration, k key, m *Message) {
	r := &t.registrar
	e := r.pending.get(now, k)
	if e == nil {
		return // answered already
	}
	if m.Status < 200 {
		e.extend(now + linger)
		return
	}
	c, reg := e.client, e.value
	r.pending.drop(k)
	if m.Status >= 300 {
		return
	}
	if reg.all {
		r.unbindAll(c, reg.address)
	}
	t.readGrants(m, reg.contacts)
	for i := range reg.contacts {
		n := &reg.contacts[i]
		if n.expires == 0 {
			r.bindings.drop(n.binding)
			continue
		}
		t.bind(c, reg.address, n, now+grant(n.expires))
	}
}

// unbindAll removes the bindings of an address of record that a client has.
func (r *registrar[C]) unbindAll(c C, address key) {
	for i := r.bindings.clients[c]; i != 0; {
		e := r.bindings.at(i)
		next := e.next
		if e.value.address == address {
			r.bindings.remove(i)
		}
		i = next
	}
}

// readGrants takes the expiries that the registrar has granted from its 2xx: the parameter of
// the same Contact, or of the only one there, whatever it looks like now; else the Expires field; else
// what was asked for (RFC 3261 section 10.2.4). A removal stays one.
func (t *Table[C]) readGrants(m *Message, asked []candidate) {
	listed, only := 0, int64(NoExpires)
	for contact := range m.Contacts {
		if listed++; listed > 4*MaxContacts {
			break
		}
		only = contact.Expires
		exact := t.seeds.names(contact.URI)[nameExact]
		for i := range asked {
			if n := &asked[i]; n.names[nameExact] == exact && n.expires > 0 {
				n.matched = true
				n.expires = first(contact.Expires, m.Expires, n.expires)
			}
		}
	}
	for i := range asked {
		n := &asked[i]
		if n.matched || n.expires == 0 {
			continue
		}
		if listed != 1 || len(asked) != 1 {
			only = NoExpires
		}
		n.expires = first(only, m.Expires, n.expires)
	}
}
