package sip

import "time"

// transaction is a request of a client that awaits or has got its answer.
type transaction struct {
	invite bool // an INVITE, which may ring long
	done   bool // it has got its final answer
}

// begin learns the transaction of a request and reports whether it is the client's own.
func (t *Table[C]) begin(now time.Duration, c C, m *Message) bool {
	k := t.seeds.transactionKey(m)
	if e := t.transactions.get(now, k); e != nil {
		return t.reuse(now, c, e) // a retransmission, CANCEL, or the ACK of a failure
	}
	switch string(m.Method) {
	case "ACK": // of a 2xx: nothing answers it
	case "INVITE":
		e := t.newTransaction(k, c, now+timerC)
		e.value.invite = true
	default:
		t.newTransaction(k, c, now+linger)
	}
	return true
}

// reuse extends a transaction that a client names once more. Another client that names it
// is not believed: the answers belong to the first.
func (t *Table[C]) reuse(now time.Duration, c C, e *entry[C, transaction]) bool {
	if e.client != c {
		t.stats.Conflicts++
		return false
	}
	e.extend(now + linger)
	return true
}

func (t *Table[C]) newTransaction(k key, c C, deadline time.Duration) *entry[C, transaction] {
	e, evicted := t.transactions.put(k, c, deadline)
	if evicted {
		t.stats.Evicted.Transactions++
	}
	return e
}

// response finds the client of a response from the provider.
func (t *Table[C]) response(now time.Duration, m *Message) (C, Reason) {
	k := t.seeds.transactionKey(m)
	e := t.transactions.get(now, k)
	if e == nil {
		return t.lateResponse(now, m)
	}
	progress(now, e, m)
	switch string(m.CSeqMethod) {
	case "REGISTER":
		t.registered(now, k, m)
	case "INVITE":
		t.inviteAnswered(now, e.client, m)
	default:
		if d := t.dialogs.get(now, t.seeds.dialogKey(m.CallID, m.From.Tag)); d != nil {
			refresh(now, d)
		}
	}
	return e.client, ByBranch
}

// lateResponse finds the client of a response whose transaction is gone, by the tag that the client
// has put into From.
func (t *Table[C]) lateResponse(now time.Duration, m *Message) (c C, r Reason) {
	if len(m.From.Tag) == 0 {
		return c, NoTransaction
	}
	d := t.dialogs.get(now, t.seeds.dialogKey(m.CallID, m.From.Tag))
	if d == nil {
		return c, NoTransaction
	}
	refresh(now, d)
	return d.client, ByDialog
}

// progress moves the deadline of a transaction to where a response puts it. The answer to a CANCEL
// has the branch of the INVITE and is not its final answer.
func progress[C comparable](now time.Duration, e *entry[C, transaction], m *Message) {
	switch {
	case string(m.CSeqMethod) == "CANCEL":
		e.extend(now + linger)
	case m.Status >= 200:
		e.value.done = true
		e.deadline = now + linger
	case e.value.invite && !e.value.done:
		e.extend(now + timerC)
	default:
		e.extend(now + linger)
	}
}
