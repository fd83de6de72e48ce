package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// desk is a table with a clock, and scans the messages that go through it.
type desk struct {
	t   testing.TB
	tab Table[int]
	now time.Duration
}

// parse makes a message of "METHOD uri Call-ID branch from-tag to-tag", with - for an empty word and
// CODE/METHOD for a response, and of more lines.
func parse(t testing.TB, text string, more ...string) *Message {
	t.Helper()
	w := strings.Fields(text)
	for i := range w {
		if w[i] == "-" {
			w[i] = ""
		}
	}
	l := []string{w[0] + " " + w[1] + " SIP/2.0"}
	method := w[0]
	if code, rest, ok := strings.Cut(w[0], "/"); ok {
		l[0], method = "SIP/2.0 "+code+" Reason", rest
	}
	l = append(l,
		"Via: SIP/2.0/UDP h"+withParam("branch", w[3]), "Call-ID: "+w[2],
		"From: <sip:u@provider.example>"+withParam("tag", w[4]), "To: <sip:u@provider.example>"+withParam("tag", w[5]))
	if !strings.Contains(strings.Join(more, "\n"), "CSeq:") {
		l = append(l, "CSeq: 1 "+method)
	}
	m, err := Scan([]byte(lines(append(l, more...)...)))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return &m
}

// withParam returns a parameter, or nothing without a value.
func withParam(name, value string) string {
	if value == "" {
		return ""
	}
	return ";" + name + "=" + value
}

func (d *desk) wait(by time.Duration) { d.now += by }

// from lets a client send a message.
func (d *desk) from(client int, text string, more ...string) {
	d.t.Helper()
	d.tab.FromClient(d.now, client, parse(d.t, text, more...))
}

// gets lets the provider send a message, which the client must get for that reason.
func (d *desk) gets(client int, r Reason, text string, more ...string) {
	d.t.Helper()
	c, got, ok := d.tab.FromServer(d.now, parse(d.t, text, more...))
	if c != client || got != r || ok != r.Found() {
		d.t.Errorf("%s: got client %d by %v (%v), want %d by %v", text, c, got, ok, client, r)
	}
}

// nobody lets the provider send a message, which nobody must get.
func (d *desk) nobody(r Reason, text string, more ...string) {
	d.t.Helper()
	d.gets(0, r, text, more...)
}

func (d *desk) active(client int, want bool) {
	d.t.Helper()
	if got := d.tab.Active(client, d.now); got != want {
		d.t.Errorf("client %d active after %v: got %v, want %v", client, d.now, got, want)
	}
}

const b = "z9hG4bK" // begins every branch

// register runs a registration with digest through: 401, then 200.
func (d *desk) register(client int, contact string, granted ...string) {
	d.t.Helper()
	call := fmt.Sprintf("reg%d", client)
	d.from(client, "REGISTER sip:provider.example "+call+" "+b+call+"a f -", "Contact: <"+contact+">")
	d.gets(client, ByBranch, "401/REGISTER - "+call+" "+b+call+"a f s")
	d.from(client, "REGISTER sip:provider.example "+call+" "+b+call+"b f -", "CSeq: 2 REGISTER", "Contact: <"+contact+">")
	d.gets(client, ByBranch, "200/REGISTER - "+call+" "+b+call+"b f s2", append([]string{"CSeq: 2 REGISTER"}, granted...)...)
}

func TestFlows(t *testing.T) {
	tests := []struct {
		name string
		run  func(d *desk)
	}{
		{"register twice challenged", func(d *desk) {
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: <sip:100@10.0.0.1>")
			d.gets(1, ByBranch, "401/REGISTER - r "+b+"1 f s")
			d.from(1, "REGISTER sip:p r "+b+"2 f -", "Contact: <sip:100@10.0.0.1>", "CSeq: 2 REGISTER")
			d.gets(1, ByBranch, "401/REGISTER - r "+b+"2 f s", "CSeq: 2 REGISTER") // stale nonce
			d.from(1, "REGISTER sip:p r "+b+"3 f -", "Contact: <sip:100@10.0.0.1>", "CSeq: 3 REGISTER")
			d.gets(1, ByBranch, "100/REGISTER - r "+b+"3 f -", "CSeq: 3 REGISTER")
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"3 f s", "Contact: <sip:100@10.0.0.1>;expires=120", "CSeq: 3 REGISTER")
			d.gets(1, ByContact, "INVITE sip:100@10.0.0.1 i "+b+"p pf -")
			d.wait(121 * time.Second)
			d.nobody(NoContact, "INVITE sip:100@10.0.0.1 i "+b+"p pf -")
		}},
		{"call out, challenged, forked, BYE from the client", func(d *desk) {
			d.from(1, "INVITE sip:x@p c "+b+"1 f -")
			d.from(2, "INVITE sip:y@p c2 "+b+"2 g -")
			d.gets(1, ByBranch, "407/INVITE - c "+b+"1 f s")
			d.from(1, "ACK sip:x@p c "+b+"1 f s")
			d.from(1, "INVITE sip:x@p c "+b+"3 f -", "CSeq: 2 INVITE")
			for _, tag := range []string{"s1", "s2", "s3", "s1"} {
				d.gets(1, ByBranch, "180/INVITE - c "+b+"3 f "+tag, "CSeq: 2 INVITE")
			}
			d.gets(2, ByBranch, "183/INVITE - c2 "+b+"2 g s1")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"3 f s2", "CSeq: 2 INVITE")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"3 f s2", "CSeq: 2 INVITE") // retransmission
			d.from(1, "ACK sip:x@p c "+b+"4 f s2", "CSeq: 2 ACK")
			d.wait(2 * time.Hour)
			d.nobody(NoDialog, "BYE sip:x@p c2 "+b+"p s1 f")
			d.gets(1, ByDialog, "OPTIONS sip:u@198.51.100.30 c "+b+"p s2 f")
			d.from(1, "BYE sip:x@p c "+b+"5 f s2", "CSeq: 3 BYE")
			d.gets(1, ByBranch, "200/BYE - c "+b+"5 f s2", "CSeq: 3 BYE")
			d.wait(31 * time.Second)
			d.active(1, true)
			d.wait(2 * time.Second)
			d.active(1, false)
		}},
		{"two branches of a fork answer, one is hung up", func(d *desk) {
			d.from(1, "INVITE sip:x@p c "+b+"1 f -")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s1")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s2")
			d.from(1, "BYE sip:x@p c "+b+"2 f s1", "CSeq: 2 BYE")
			d.gets(1, ByBranch, "200/BYE - c "+b+"2 f s1", "CSeq: 2 BYE")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s1") // late: does not begin again
			d.wait(time.Hour)
			d.gets(1, ByDialog, "BYE sip:u@h c "+b+"p s2 f")
			d.wait(time.Minute)
			d.nobody(NoDialog, "BYE sip:u@h c "+b+"p s2 f")
		}},
		{"the first branch of a fork is hung up before the second answers", func(d *desk) {
			d.from(1, "INVITE sip:x@p c "+b+"1 f -")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s1")
			d.from(1, "BYE sip:x@p c "+b+"2 f s1", "CSeq: 2 BYE")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 f s2")
			d.wait(time.Hour)
			d.gets(1, ByDialog, "BYE sip:u@h c "+b+"p s2 f")
		}},
		{"call in, re-INVITE both ways, BYE from the provider", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1:5060")
			d.register(2, "sip:200@10.0.0.2:5060")
			d.gets(2, ByContact, "INVITE sip:200@10.0.0.2:5060 c "+b+"p1 s -")
			d.from(2, "100/INVITE - c "+b+"p1 s -")
			d.from(2, "180/INVITE - c "+b+"p1 s t")
			d.gets(2, ByDialog, "PRACK sip:200@h c "+b+"p2 s t")
			d.from(2, "200/INVITE - c "+b+"p1 s t")
			d.gets(2, ByDialog, "ACK sip:200@h c "+b+"p3 s t")
			d.wait(time.Hour)
			d.from(2, "INVITE sip:s@p c "+b+"1 t s")
			d.gets(2, ByBranch, "491/INVITE - c "+b+"1 t s") // fails: the dialog stays
			d.from(2, "ACK sip:s@p c "+b+"1 t s")
			d.wait(6 * time.Hour)
			d.gets(2, ByDialog, "INVITE sip:200@h c "+b+"p4 s t")
			d.from(2, "488/INVITE - c "+b+"p4 s t")
			d.gets(2, ByDialog, "ACK sip:200@h c "+b+"p4 s t")
			d.wait(6 * time.Hour)
			d.gets(2, ByDialog, "BYE sip:200@h c "+b+"p5 s t")
			d.from(2, "200/BYE - c "+b+"p5 s t")
			d.wait(30 * time.Second)
			d.gets(2, ByDialog, "BYE sip:200@h c "+b+"p5 s t") // retransmission: extends once more
			d.wait(33 * time.Second)
			d.nobody(NoDialog, "BYE sip:200@h c "+b+"p5 s t")
		}},
		{"phone 1 calls phone 2 with one Call-ID", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.register(2, "sip:200@10.0.0.2")
			d.from(1, "INVITE sip:200@p c "+b+"1 a -")
			d.gets(1, ByBranch, "100/INVITE - c "+b+"1 a -")
			d.gets(2, ByContact, "INVITE sip:200@10.0.0.2 c "+b+"p a -")
			d.from(2, "180/INVITE - c "+b+"p a z")
			d.gets(1, ByBranch, "180/INVITE - c "+b+"1 a z")
			d.from(2, "200/INVITE - c "+b+"p a z")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"1 a z")
			d.from(1, "ACK sip:200@p c "+b+"2 a z")
			d.gets(2, ByDialog, "ACK sip:200@10.0.0.2 c "+b+"p2 a z")
			d.from(1, "INVITE sip:200@p c "+b+"3 a z", "CSeq: 2 INVITE")
			d.gets(2, ByDialog, "INVITE sip:200@10.0.0.2 c "+b+"p3 a z", "CSeq: 2 INVITE")
			d.from(2, "200/INVITE - c "+b+"p3 a z", "CSeq: 2 INVITE")
			d.gets(1, ByBranch, "200/INVITE - c "+b+"3 a z", "CSeq: 2 INVITE")
			d.from(2, "BYE sip:100@p c "+b+"4 z a")
			d.gets(1, ByDialog, "BYE sip:100@10.0.0.1 c "+b+"p4 z a")
			d.from(1, "200/BYE - c "+b+"p4 z a")
			d.gets(2, ByBranch, "200/BYE - c "+b+"4 z a")
			if s := d.tab.Stats(); s.Conflicts != 0 {
				d.t.Errorf("conflicts: %d", s.Conflicts)
			}
		}},
		{"CANCEL from the client", func(d *desk) {
			d.from(1, "INVITE sip:x@p c "+b+"1 f -")
			d.wait(3 * time.Minute)
			d.gets(1, ByBranch, "180/INVITE - c "+b+"1 f s")
			d.wait(time.Minute)
			d.from(1, "CANCEL sip:x@p c "+b+"1 f -", "CSeq: 1 CANCEL")
			d.gets(1, ByBranch, "200/CANCEL - c "+b+"1 f s", "CSeq: 1 CANCEL")
			d.wait(40 * time.Second)
			d.gets(1, ByBranch, "487/INVITE - c "+b+"1 f s")
			d.from(1, "ACK sip:x@p c "+b+"1 f s")
			d.gets(1, ByBranch, "487/INVITE - c "+b+"1 f s")
			d.wait(33 * time.Second)
			d.active(1, false)
			d.nobody(NoTransaction, "487/INVITE - c "+b+"1 f s")
		}},
		{"CANCEL from the provider", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1", "Expires: 60")
			d.gets(1, ByContact, "INVITE sip:100@10.0.0.1 c "+b+"p s -")
			d.from(1, "180/INVITE - c "+b+"p s t")
			d.gets(1, ByContact, "CANCEL sip:100@10.0.0.1 c "+b+"p s -")
			d.from(1, "200/CANCEL - c "+b+"p s t")
			d.from(1, "487/INVITE - c "+b+"p s t")
			d.gets(1, ByDialog, "ACK sip:100@10.0.0.1 c "+b+"p s t")
			d.wait(time.Minute)
			d.active(1, false)
		}},
		{"OPTIONS both ways leave no dialogs", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.from(1, "OPTIONS sip:p o "+b+"1 f -")
			d.gets(1, ByBranch, "200/OPTIONS - o "+b+"1 f s")
			d.gets(1, ByContact, "OPTIONS sip:100@10.0.0.1 q "+b+"p s -")
			d.from(1, "200/OPTIONS - q "+b+"p s t")
			if s := d.tab.Stats(); s.Held.Dialogs != 0 || s.Held.Transactions != 3 {
				d.t.Errorf("held: %+v", s.Held)
			}
		}},
		{"SUBSCRIBE and its NOTIFY", func(d *desk) {
			d.from(1, "SUBSCRIBE sip:x@p c "+b+"1 f -", "Expires: 600")
			d.gets(1, ByDialog, "NOTIFY sip:u@h c "+b+"p s f") // may come first
			d.gets(1, ByBranch, "202/SUBSCRIBE - c "+b+"1 f s")
			d.wait(10 * time.Minute)
			d.gets(1, ByDialog, "NOTIFY sip:u@h c "+b+"p2 s f")
			d.wait(5 * time.Minute)
			d.nobody(NoDialog, "NOTIFY sip:u@h c "+b+"p2 s f")
		}},
		{"the provider subscribes", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.gets(1, ByContact, "SUBSCRIBE sip:100@10.0.0.1 c "+b+"p s -", "Expires: 600")
			d.from(1, "200/SUBSCRIBE - c "+b+"p s t", "Expires: 600")
			d.from(1, "NOTIFY sip:s@p c "+b+"1 t s")
			d.gets(1, ByBranch, "200/NOTIFY - c "+b+"1 t s")
			d.gets(1, ByDialog, "SUBSCRIBE sip:u@elsewhere c "+b+"p2 s t")
		}},
		{"RFC 2543 branches", func(d *desk) {
			d.from(1, "INVITE sip:x@p c 1 f -")
			d.from(2, "INVITE sip:x@p d 1 f -")
			d.from(1, "INVITE sip:x@p e - f -")
			d.from(2, "INVITE sip:x@p e - f -", "CSeq: 2 INVITE")
			d.gets(1, ByBranch, "180/INVITE - c 1 f s")
			d.gets(2, ByBranch, "180/INVITE - d 1 f s")
			d.gets(1, ByBranch, "180/INVITE - e - f s")
			d.gets(2, ByBranch, "180/INVITE - e - f s", "CSeq: 2 INVITE")
		}},
		{"two clients with one branch", func(d *desk) {
			d.from(1, "OPTIONS sip:p c1 "+b+"-1-1-0 f -")
			d.from(2, "OPTIONS sip:p c2 "+b+"-1-1-0 f -")
			d.gets(2, ByBranch, "200/OPTIONS - c2 "+b+"-1-1-0 f s")
			d.gets(1, ByBranch, "200/OPTIONS - c1 "+b+"-1-1-0 f s")
		}},
		{"responses after the transaction is gone", func(d *desk) {
			d.tab.Transactions = 1
			d.from(1, "INVITE sip:x@p c "+b+"1 f -")
			d.from(2, "OPTIONS sip:p o "+b+"2 g -")
			d.gets(1, ByDialog, "200/INVITE - c "+b+"1 f s")
			d.nobody(NoTransaction, "200/INVITE - c "+b+"1 - s")
		}},
		{"a re-INVITE teaches a dialog that began before", func(d *desk) {
			d.from(1, "INVITE sip:x@p c "+b+"1 f s")
			d.wait(time.Hour)
			d.gets(1, ByDialog, "BYE sip:u@h c "+b+"p s f")
		}},
		{"STUN", func(d *desk) {
			d.tab.FromClientSTUN(d.now, 1, ID{1})
			d.tab.FromClientSTUN(d.now, 2, ID{2})
			d.tab.FromClientSTUN(d.now, 2, ID{1}) // a conflict
			if c, r, ok := d.tab.FromServerSTUN(d.now, ID{1}); c != 1 || r != BySTUN || !ok {
				d.t.Errorf("got %d by %v", c, r)
			}
			if got := d.tab.Stats().Conflicts; got != 1 {
				d.t.Errorf("conflicts: %d", got)
			}
			d.wait(linger)
			if _, r, ok := d.tab.FromServerSTUN(d.now, ID{1}); ok || r != NoTransaction {
				d.t.Errorf("after its end: got %v", r)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(&desk{t: t}) })
	}
}
