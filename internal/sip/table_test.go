package sip

import (
	"fmt"
	"testing"
	"time"
)

// TestForged sends what the provider's side may send without being asked: nothing is learned.
func TestForged(t *testing.T) {
	d := &desk{t: t}
	d.register(1, "sip:100@10.0.0.1", "Expires: 60")
	d.from(1, "INVITE sip:x@p c "+b+"1 f -")
	before := d.tab.Stats().Held
	d.nobody(NoTransaction, "200/INVITE - c "+b+"forged z s")
	d.nobody(NoTransaction, "200/REGISTER - r "+b+"forged z s", "Contact: <sip:900@h>")
	d.nobody(NoTransaction, "200/INVITE - other "+b+"1 f s")
	d.nobody(NoContact, "REGISTER sip:p r "+b+"forged z -", "Contact: <sip:900@h>")
	d.nobody(NoContact, "INVITE sip:900@h c "+b+"p z -")
	d.nobody(NoDialog, "BYE sip:900@h c "+b+"p f z")
	d.gets(1, ByBranch, "200/REGISTER - reg1 "+b+"reg1b f s", "CSeq: 2 REGISTER", "Contact: <sip:900@h>;expires=9999") // answered already
	d.nobody(NoContact, "INVITE sip:900@h c "+b+"p z -")
	if got := d.tab.Stats().Held; got != before {
		t.Errorf("held %+v, before %+v", got, before)
	}
	d.wait(61 * time.Second)
	d.nobody(NoContact, "INVITE sip:100@10.0.0.1 c "+b+"p z -")
}

// TestConflict lets a client name what another client has.
func TestConflict(t *testing.T) {
	d := &desk{t: t}
	d.from(1, "INVITE sip:x@p c "+b+"1 f -")
	d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s")
	d.from(2, "INVITE sip:x@p c "+b+"1 f -")         // the transaction
	d.from(2, "BYE sip:x@p c "+b+"2 f s")            // the dialog
	d.from(2, "200/INVITE - c "+b+"p s f")           // the dialog, by a response
	d.from(2, "CANCEL sip:x@p c "+b+"1 f -")         // the transaction
	d.from(2, "OPTIONS sip:x@p c "+b+"1 z -")        // the transaction alone
	d.gets(2, ByBranch, "481/BYE - c "+b+"2 f s")    // its own
	d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s") // still the first one's
	d.wait(time.Hour)
	d.gets(1, ByDialog, "BYE sip:u@h c "+b+"p s f")
	if got := d.tab.Stats().Conflicts; got != 5 {
		t.Errorf("conflicts: got %d, want 5", got)
	}
}

func TestLifetimes(t *testing.T) {
	tests := []struct {
		name  string
		begin func(d *desk)
		life  time.Duration
	}{
		{"request", func(d *desk) { d.from(1, "OPTIONS sip:p c "+b+"1 f -") }, linger},
		{"request, sent again", func(d *desk) {
			d.from(1, "OPTIONS sip:p c "+b+"1 f -")
			d.wait(20 * time.Second)
			d.from(1, "OPTIONS sip:p c "+b+"1 f -")
		}, linger},
		{"INVITE", func(d *desk) { d.from(1, "INVITE sip:p c "+b+"1 f -") }, timerC},
		{"INVITE that rings", func(d *desk) {
			d.from(1, "INVITE sip:p c "+b+"1 f -")
			d.wait(time.Minute)
			d.gets(1, ByBranch, "180/INVITE - c "+b+"1 f s")
		}, timerC},
		{"INVITE that fails", func(d *desk) {
			d.from(1, "INVITE sip:p c "+b+"1 f -")
			d.gets(1, ByBranch, "486/INVITE - c "+b+"1 f s")
			d.gets(1, ByBranch, "180/INVITE - c "+b+"1 f s") // late
		}, linger},
		{"INVITE that is answered", func(d *desk) {
			d.from(1, "INVITE sip:p c "+b+"1 f -")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s")
		}, callLife},
		{"INVITE of the provider that fails", func(d *desk) { d.from(1, "486/INVITE - c "+b+"p s t") }, linger},
		{"INVITE of the provider that rings", func(d *desk) { d.from(1, "180/INVITE - c "+b+"p s t") }, timerC},
		{"BYE", func(d *desk) {
			d.from(1, "200/INVITE - c "+b+"p s t")
			d.gets(1, ByDialog, "BYE sip:p c "+b+"p s t")
		}, linger},
		{"REGISTER without an answer", func(d *desk) {
			d.from(1, "REGISTER sip:p c "+b+"1 f -", "Contact: <sip:1@h>")
		}, linger},
		{"registration, default", func(d *desk) { d.register(1, "sip:1@h") }, time.Hour},
		{"registration, Expires of the answer", func(d *desk) { d.register(1, "sip:1@h", "Expires: 90") }, 90 * time.Second},
		{"registration, for ever", func(d *desk) { d.register(1, "sip:1@h", "Expires: 4294967295") }, maxGrant},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &desk{t: t}
			tt.begin(d)
			d.wait(tt.life - time.Nanosecond)
			d.tab.Expire(d.now)
			d.active(1, true)
			d.wait(time.Nanosecond)
			d.tab.Expire(d.now)
			if got := d.tab.Stats().Held; got != (Held{}) {
				t.Errorf("held after %v: %+v", tt.life, got)
			}
			d.active(1, false)
		})
	}
}

func TestEviction(t *testing.T) {
	d := &desk{t: t, tab: Table[int]{Transactions: 3, Dialogs: 2, Contacts: 2}}
	for i := 1; i <= 3; i++ {
		d.from(i, fmt.Sprintf("OPTIONS sip:p c %s%d f -", b, i))
	}
	d.from(1, "OPTIONS sip:p c "+b+"1 f -") // used again
	d.from(4, "OPTIONS sip:p c "+b+"4 f -")
	d.nobody(NoTransaction, "200/OPTIONS - c "+b+"2 f s")
	for _, i := range []int{1, 3, 4} {
		d.gets(i, ByBranch, fmt.Sprintf("200/OPTIONS - c %s%d f s", b, i))
	}
	for i := 1; i <= 3; i++ {
		d.from(i, fmt.Sprintf("200/INVITE - c%d %sp s t", i, b))
	}
	d.nobody(NoDialog, "BYE sip:p c1 "+b+"p s t")
	d.gets(2, ByDialog, "BYE sip:p c2 "+b+"p s t")
	for i := 1; i <= 3; i++ {
		d.register(i, fmt.Sprintf("sip:%d@h", i))
	}
	d.nobody(NoContact, "INVITE sip:1@h i "+b+"p s -")
	d.gets(3, ByContact, "INVITE sip:3@h i "+b+"p s -")
	s := d.tab.Stats()
	if s.Held.Transactions != 3 || s.Held.Dialogs != 2 || s.Held.Contacts != 2 {
		t.Errorf("held: %+v", s.Held)
	}
	if s.Evicted.Transactions != 7 || s.Evicted.Dialogs != 1 || s.Evicted.Contacts != 1 {
		t.Errorf("evicted: %+v", s.Evicted)
	}
}

func TestForget(t *testing.T) {
	d := &desk{t: t}
	for i := 1; i <= 2; i++ {
		d.register(i, fmt.Sprintf("sip:%d@h", i))
		d.from(i, fmt.Sprintf("INVITE sip:p c%d %s%d f -", i, b, i))
	}
	d.tab.Forget(1)
	d.active(1, false)
	d.active(2, true)
	d.nobody(NoTransaction, "180/INVITE - c1 "+b+"1 f s")
	d.nobody(NoContact, "INVITE sip:1@h i "+b+"p s -")
	d.gets(2, ByBranch, "180/INVITE - c2 "+b+"2 f s")
	d.gets(2, ByUser, "INVITE sip:2@198.51.100.30:5060 i "+b+"p s -")
	d.tab.Forget(2)
	if got := d.tab.Stats().Held; got != (Held{}) {
		t.Errorf("held: %+v", got)
	}
}

func TestZero(t *testing.T) {
	var tab Table[string]
	tab.Expire(0)
	tab.Forget("x")
	if tab.Active("x", 0) || tab.Stats() != (Stats{}) {
		t.Error("the zero table is not empty")
	}
	if _, r, ok := tab.FromServer(0, parse(t, "INVITE sip:x@h c "+b+" f -")); ok || r != NoContact {
		t.Errorf("got %v", r)
	}
	for r := Reason(0); r <= Reasons; r++ {
		if (r.String() == "unknown") != (r == Reasons) {
			t.Errorf("reason %d is called %q", r, r)
		}
	}
}
