package sip

import (
	"slices"
	"time"
)

// dialog is the side of a client in one or, after forking, several dialogs that have its tag and
// Call-ID in common.
type dialog struct {
	remotes [4]uint32 // hashes of the other sides' tags in answered dialogs, the newest first; 0 is none
	last    uint32    // the other side of the dialog that ended last
	ended   bool      // the last dialog has ended
}

// answered tells whether one of the dialogs was answered and has not ended.
func (d *dialog) answered() bool { return d.remotes[0] != 0 && !d.ended }

// refresh extends a dialog that has been used.
func refresh[C comparable](now time.Duration, e *entry[C, dialog]) {
	switch {
	case e.value.ended:
		e.extend(now + linger)
	case e.value.remotes[0] != 0:
		e.extend(now + callLife)
	default:
		e.extend(now + timerC)
	}
}

// confirm notes that a dialog with that other side has been answered. What repeats
// itself after its end is not a new dialog.
func confirm[C comparable](now time.Duration, e *entry[C, dialog], remote uint32) {
	d := &e.value
	if remote != d.last && !slices.Contains(d.remotes[:], remote) {
		d.ended = false
		copy(d.remotes[1:], d.remotes[:])
		d.remotes[0] = remote
	}
	refresh(now, e)
}

// end notes the end of a dialog with that other side, or of an attempt that had none (0).
func end[C comparable](now time.Duration, e *entry[C, dialog], remote uint32) {
	d := &e.value
	if remote != 0 {
		d.last = remote
		if i := slices.Index(d.remotes[:], remote); i >= 0 {
			copy(d.remotes[i:], d.remotes[i+1:])
			d.remotes[len(d.remotes)-1] = 0
		}
	}
	if d.remotes[0] == 0 {
		d.ended = true
		e.deadline = now + linger
		return
	}
	refresh(now, e)
}

// own returns the dialog with that key if it is the client's own. The second result is
// false if it is another's, who keeps it.
func (t *Table[C]) own(now time.Duration, c C, k key) (e *entry[C, dialog], ok bool) {
	e = t.dialogs.get(now, k)
	if e != nil && e.client != c {
		t.stats.Conflicts++
		return nil, false
	}
	return e, true
}

// open returns e, or a new entry in its place if it is nil.
func (t *Table[C]) open(e *entry[C, dialog], c C, k key) *entry[C, dialog] {
	if e != nil {
		return e
	}
	e, evicted := t.dialogs.put(k, c, 0)
	if evicted {
		t.stats.Evicted.Dialogs++
	}
	return e
}

// inDialog learns the dialog of a request that a client sends: its own tag is in From.
func (t *Table[C]) inDialog(now time.Duration, c C, m *Message) {
	if len(m.From.Tag) == 0 {
		return // RFC 2543
	}
	k := t.seeds.dialogKey(m.CallID, m.From.Tag)
	e, ok := t.own(now, c, k)
	if !ok {
		return
	}
	inside := len(m.To.Tag) > 0
	switch string(m.Method) {
	case "INVITE":
		e = t.open(e, c, k)
		if inside {
			confirm(now, e, t.seeds.remote(m.To.Tag))
			return
		}
		e.value.ended = false
		refresh(now, e)
	case "SUBSCRIBE", "REFER":
		e = t.open(e, c, k)
		e.value.ended = e.value.ended && inside
		e.extend(now + grant(m.Expires) + linger)
	case "BYE":
		if e != nil {
			end(now, e, t.seeds.remote(m.To.Tag))
		}
	case "UPDATE", "INFO", "NOTIFY", "PRACK": // perhaps of a dialog that began before this table
		if e != nil || inside {
			refresh(now, t.open(e, c, k))
		}
	default:
		if e != nil {
			refresh(now, e)
		}
	}
}

// answered learns the dialog of a response that a client sends: its own tag is in To.
func (t *Table[C]) answered(now time.Duration, c C, m *Message) {
	if len(m.To.Tag) == 0 || m.Status == 100 {
		return
	}
	k := t.seeds.dialogKey(m.CallID, m.To.Tag)
	e, ok := t.own(now, c, k)
	if !ok {
		return
	}
	good := m.Status/100 == 2
	method := string(m.CSeqMethod)
	switch {
	case method == "INVITE" && m.Status < 200:
		refresh(now, t.open(e, c, k))
	case method == "INVITE" && good:
		confirm(now, t.open(e, c, k), t.seeds.remote(m.From.Tag))
	case method == "INVITE": // its ACK has this tag
		end(now, t.open(e, c, k), 0)
	case good && (method == "SUBSCRIBE" || method == "REFER"):
		t.open(e, c, k).extend(now + grant(m.Expires) + linger)
	case e != nil:
		refresh(now, e)
	}
}

// inviteAnswered notes the provider's answer to the INVITE of a client.
func (t *Table[C]) inviteAnswered(now time.Duration, c C, m *Message) {
	e := t.dialogs.get(now, t.seeds.dialogKey(m.CallID, m.From.Tag))
	if e == nil || e.client != c {
		return
	}
	switch {
	case m.Status/100 == 2 && len(m.To.Tag) > 0:
		confirm(now, e, t.seeds.remote(m.To.Tag))
	case m.Status >= 300: // of a re-INVITE too: what has been answered stays
		end(now, e, 0)
	default:
		refresh(now, e)
	}
}

// request finds the client of a request from the provider: in a dialog by the tag of the client,
// which is in To, else by the Request-URI, which in a dialog is a Contact too.
func (t *Table[C]) request(now time.Duration, m *Message) (C, Reason) {
	missed := NoContact
	if len(m.To.Tag) > 0 {
		if e := t.dialogs.get(now, t.seeds.dialogKey(m.CallID, m.To.Tag)); e != nil {
			if string(m.Method) == "BYE" {
				end(now, e, t.seeds.remote(m.From.Tag))
			} else {
				refresh(now, e)
			}
			return e.client, ByDialog
		}
		missed = NoDialog
	}
	c, r := t.registrar.lookup(now, t.seeds.names(m.URI))
	if r == NoContact {
		r = missed
	}
	return c, r
}

// grant returns the life that an expiry asks for or grants.
func grant(seconds int64) time.Duration {
	if seconds < 0 {
		return defGrant
	}
	return min(time.Duration(seconds)*time.Second, maxGrant)
}
