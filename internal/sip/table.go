package sip

import "time"

// The times of RFC 3261, and what a table makes of them.
const (
	linger   = 32 * time.Second         // 64*T1: how long a transaction or dialog is kept after its end
	timerC   = 3*time.Minute + linger   // section 16.6: how long an INVITE may ring, and a margin
	callLife = 12 * time.Hour           // how long an answered dialog may be silent
	maxGrant = 7 * 24 * time.Hour       // the longest life of a registration or subscription
	defGrant = badExpires * time.Second // where no expiry is given
)

// Defaults of the limits of a Table.
const (
	DefaultTransactions = 50_000
	DefaultDialogs      = 20_000
	DefaultContacts     = 10_000
)

// Table tells which client a datagram from the provider belongs to. What clients send teaches it;
// what the provider sends is looked up and may confirm, extend or end what a client has begun, but
// never makes an entry, so that forged datagrams neither fill the table nor reach a client that
// has not asked for them.
//
// C identifies a client, for example by an index; call Forget before an index gets another
// meaning. Moments are durations since any fixed moment and must not go back. The zero value
// works; the limits may be set before the first use. A Table is not safe for concurrent use.
//
// It keeps hashes under a key of its own instead of strings: some 22 MB with all defaults full.
// The least recently used entry makes room for a new one.
type Table[C comparable] struct {
	Transactions int // limit; 0 means DefaultTransactions
	Dialogs      int // limit; 0 means DefaultDialogs
	Contacts     int // limit; 0 means DefaultContacts; also of unanswered REGISTER requests

	stats Stats
	ready bool
	seeds seeds

	transactions store[C, transaction]
	dialogs      store[C, dialog]
	registrar    registrar[C]
}

// Reason says how a client was found, or why none was.
type Reason uint8

// The reasons. Those up to BySTUN come with a client.
const (
	ByBranch      Reason = iota // a response, by the topmost Via of a request of the client
	ByDialog                    // by Call-ID and the tag of the client
	ByContact                   // a request, by the whole Contact of a registration
	ByHost                      // a request, by user, host and port of one client's Contact
	ByUser                      // a request, by the user of one client's Contact
	BySTUN                      // a STUN response, by its transaction
	NoTransaction               // a response to nothing that a client has sent
	NoDialog                    // a request inside a dialog that no client has
	NoContact                   // a new request for nobody who is registered
	Ambiguous                   // a new request that fits the Contacts of several clients
	Reasons                     // one more than the last reason
)

var reasonNames = [Reasons]string{
	"branch", "dialog", "contact", "host", "user", "stun",
	"no transaction", "no dialog", "no contact", "ambiguous",
}

// String returns the reason as one or two words.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Found reports whether a client comes with the reason.
func (r Reason) Found() bool { return r < NoTransaction }

// Stats counts what a table has done since it began, and what it holds.
type Stats struct {
	Routed    [Reasons]uint64 // datagrams from the provider, by what came of them
	Evicted   Held            // entries that had to go for newer ones
	Conflicts uint64          // messages of a client that named what another client has, and taught nothing
	Excess    uint64          // Contacts beyond MaxContacts in one REGISTER, which were not learned
	Held      Held            // entries now, those that have ended since the last Expire included
}

// Held counts entries by what they are.
type Held struct {
	Transactions, Dialogs, Contacts, Registering uint64
}

// Stats returns the counters.
func (t *Table[C]) Stats() Stats {
	s := t.stats
	s.Held = Held{
		Transactions: uint64(t.transactions.len()),
		Dialogs:      uint64(t.dialogs.len()),
		Contacts:     uint64(t.registrar.bindings.len()),
		Registering:  uint64(t.registrar.pending.len()),
	}
	return s
}

// init makes the zero value ready.
func (t *Table[C]) init() {
	if t.ready {
		return
	}
	t.ready = true
	t.seeds = newSeeds()
	t.transactions.limit = limit(t.Transactions, DefaultTransactions)
	t.dialogs.limit = limit(t.Dialogs, DefaultDialogs)
	t.registrar.init(limit(t.Contacts, DefaultContacts))
}

func limit(n, otherwise int) int {
	if n <= 0 {
		return otherwise
	}
	return n
}

// FromClient learns from a message that a client sends to the provider. It keeps no part of m.
func (t *Table[C]) FromClient(now time.Duration, c C, m *Message) {
	t.init()
	if m.Status != 0 {
		t.answered(now, c, m)
		return
	}
	if !t.begin(now, c, m) {
		return
	}
	if string(m.Method) == "REGISTER" {
		t.register(now, c, m)
		return
	}
	t.inDialog(now, c, m)
}

// FromServer returns the client that gets a message from the provider. The Reason says how it
// was found, or why there is none; then the caller has its own rules for what to do. It does not
// allocate.
func (t *Table[C]) FromServer(now time.Duration, m *Message) (C, Reason, bool) {
	t.init()
	var c C
	var r Reason
	if m.Status != 0 {
		c, r = t.response(now, m)
	} else {
		c, r = t.request(now, m)
	}
	t.stats.Routed[r]++
	return c, r, r.Found()
}

// FromClientSTUN learns that a client has sent a STUN message. Call it for requests; for anything
// else it does no harm.
func (t *Table[C]) FromClientSTUN(now time.Duration, c C, id ID) {
	t.init()
	k := t.seeds.stunKey(id)
	if e := t.transactions.get(now, k); e != nil {
		t.reuse(now, c, e)
		return
	}
	t.newTransaction(k, c, now+linger)
}

// FromServerSTUN returns the client that gets a STUN message from the provider.
func (t *Table[C]) FromServerSTUN(now time.Duration, id ID) (C, Reason, bool) {
	t.init()
	if e := t.transactions.get(now, t.seeds.stunKey(id)); e != nil {
		t.stats.Routed[BySTUN]++
		return e.client, BySTUN, true
	}
	t.stats.Routed[NoTransaction]++
	var none C
	return none, NoTransaction, false
}

// Expire removes what has ended. Ended entries route nothing even before, but count against the
// limits. The work is linear in the number of entries, about a millisecond for 80 000; call it every
// few seconds.
func (t *Table[C]) Expire(now time.Duration) {
	t.transactions.expire(now)
	t.dialogs.expire(now)
	t.registrar.expire(now)
}

// Forget removes everything that belongs to a client. The work is linear in that.
func (t *Table[C]) Forget(c C) {
	t.transactions.forget(c)
	t.dialogs.forget(c)
	t.registrar.forget(c)
}

// Talking reports whether a client has a transaction or a dialog that has not ended.
func (t *Table[C]) Talking(c C, now time.Duration) bool {
	return t.transactions.active(now, c) || t.dialogs.active(now, c)
}

// Settled reports whether a client has what the provider has agreed to: a registration,
// or a dialog that was answered and has not ended. A stranger cannot have either by
// sending alone, but for requests inside a dialog, which may be older than the table.
func (t *Table[C]) Settled(c C, now time.Duration) bool {
	return t.registrar.bindings.active(now, c) || t.dialogs.any(now, c, (*dialog).answered)
}

// Active reports whether a client has a transaction, a dialog or a registration that has not ended.
func (t *Table[C]) Active(c C, now time.Duration) bool {
	return t.Talking(c, now) || t.registrar.active(now, c)
}
