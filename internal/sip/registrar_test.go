package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRegistrar(t *testing.T) {
	const to = "INVITE %s i " + b + "p s -"
	call := func(uri string) string { return fmt.Sprintf(to, uri) }
	tests := []struct {
		name string
		run  func(d *desk)
	}{
		{"the whole Contact goes before its parts", func(d *desk) {
			d.register(1, "sip:100@198.51.100.30:5060;line=a")
			d.register(2, "sip:100@198.51.100.30:5060;line=b")
			d.register(3, "sip:100@10.0.0.3:5060")
			d.gets(1, ByContact, call("sip:100@198.51.100.30:5060;line=a"))
			d.gets(2, ByContact, call("SIPS:100@198.51.100.30:5060;line=b?x=y"))
			d.gets(3, ByHost, call("sip:100@10.0.0.3:5060;ob"))
			d.nobody(Ambiguous, call("sip:100@198.51.100.30:5060"))
			d.nobody(Ambiguous, call("sip:100@198.51.100.30"))
		}},
		{"the host in any case, the user as it is", func(d *desk) {
			d.register(1, "sip:Alice@Phone.Example")
			d.gets(1, ByContact, call("sip:Alice@pHONE.eXAMPLE"))
			d.gets(1, ByUser, call("sip:Alice:secret@elsewhere"))
			d.nobody(NoContact, call("sip:alice@phone.example"))
		}},
		{"a host rewritten by the registrar", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1", "Contact: <sip:100@198.51.100.30:5060>;expires=60")
			d.gets(1, ByUser, call("sip:100@198.51.100.30:5060"))
			d.wait(time.Minute)
			d.nobody(NoContact, call("sip:100@198.51.100.30:5060"))
		}},
		{"one user at two clients", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.register(2, "sip:100@10.0.0.2", "Expires: 60")
			d.gets(2, ByContact, call("sip:100@10.0.0.2"))
			d.nobody(Ambiguous, call("sip:100@198.51.100.30"))
			d.wait(time.Minute) // also without an Expire
			d.gets(1, ByUser, call("sip:100@198.51.100.30"))
		}},
		{"no user", func(d *desk) {
			d.register(1, "sip:10.0.0.1:5060")
			d.gets(1, ByContact, call("sip:10.0.0.1:5060"))
			d.nobody(NoContact, call("sip:10.0.0.2:5060"))
		}},
		{"a number as tel", func(d *desk) {
			d.register(1, "sip:+4930555@10.0.0.1")
			d.gets(1, ByUser, call("tel:+4930555;phone-context=x"))
		}},
		{"several Contacts, each with its own life", func(d *desk) {
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Expires: 600",
				"Contact: <sip:1@h>;expires=60, <sip:2@h>", "Contact: <sip:3@h>", "m: mailto:x@h")
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"1 f s", "Expires: 300", "Contact: <sip:9@h>;expires=9999, <sip:3@h>;expires=120")
			d.wait(119 * time.Second)
			d.gets(1, ByContact, call("sip:3@h"))
			d.wait(2 * time.Second)
			d.nobody(NoContact, call("sip:3@h"))
			d.wait(178 * time.Second)
			d.gets(1, ByContact, call("sip:1@h")) // the answer does not list it, but says 300
			d.wait(2 * time.Second)
			d.nobody(NoContact, call("sip:2@h"))
			d.nobody(NoContact, call("sip:9@h"))
		}},
		{"Expires: 0 removes when answered", func(d *desk) {
			d.register(1, "sip:1@h")
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: <sip:1@h>;expires=0")
			d.gets(1, ByContact, call("sip:1@h"))
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"1 f s", "Contact: <sip:2@h>;expires=60")
			d.nobody(NoContact, call("sip:1@h"))
		}},
		{"Contact: * removes all of one address of record", func(d *desk) {
			d.register(1, "sip:1@h")
			d.register(2, "sip:2@h")
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: *", "Expires: 60") // not with this Expires
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"1 f s")
			d.gets(1, ByContact, call("sip:1@h"))
			m := parse(d.t, "REGISTER sip:p r "+b+"o f -", "Contact: <sip:3@h>")
			m.To.URI = []byte("sip:other@p")
			d.tab.FromClient(d.now, 1, m)
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"o f s")
			d.from(1, "REGISTER sip:p r "+b+"2 f -", "Contact: *", "Expires: 0")
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"2 f s")
			d.nobody(NoContact, call("sip:1@h"))
			d.gets(2, ByContact, call("sip:2@h"))
			d.gets(1, ByContact, call("sip:3@h"))
		}},
		{"refused registration", func(d *desk) {
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: <sip:1@h>")
			d.gets(1, ByContact, call("sip:1@h")) // may come before the answer
			d.gets(1, ByBranch, "403/REGISTER - r "+b+"1 f s")
			d.wait(linger)
			d.nobody(NoContact, call("sip:1@h"))
		}},
		{"a refused refresh takes nothing away", func(d *desk) {
			d.register(1, "sip:1@h", "Expires: 300")
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: <sip:1@h>;expires=60")
			d.gets(1, ByBranch, "503/REGISTER - r "+b+"1 f s")
			d.wait(299 * time.Second)
			d.gets(1, ByContact, call("sip:1@h"))
		}},
		{"a query teaches nothing", func(d *desk) {
			d.from(1, "REGISTER sip:p r "+b+"1 f -")
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"1 f s", "Contact: <sip:1@h>;expires=60")
			d.nobody(NoContact, call("sip:1@h"))
		}},
		{"without an answer nobody is in another's way", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.from(2, "REGISTER sip:p r "+b+"1 f -", "Contact: <sip:100@10.0.0.1>, <sip:100@10.0.0.2>")
			d.gets(1, ByContact, call("sip:100@10.0.0.1"))
			d.gets(1, ByUser, call("sip:100@10.0.0.2"))
		}},
		{"without an answer, a second Contact of the same user", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: <sip:100@10.0.0.2>")
			d.gets(1, ByContact, call("sip:100@10.0.0.2"))
		}},
		{"a phone comes back as another client", func(d *desk) {
			d.register(1, "sip:100@10.0.0.1")
			d.register(2, "sip:100@10.0.0.1") // the same address of record and Contact
			d.gets(2, ByContact, call("sip:100@10.0.0.1"))
			d.gets(2, ByUser, call("sip:100@198.51.100.30"))
			d.tab.Forget(1)
			d.gets(2, ByUser, call("sip:100@198.51.100.30"))
		}},
		{"many address of records with one Contact", func(d *desk) {
			for i := range 3 {
				text := fmt.Sprintf("REGISTER sip:p r%d %s%d f -", i, b, i)
				m := parse(d.t, text, "Contact: <sip:s@10.0.0.1>;expires=300")
				m.To.URI = fmt.Appendf(nil, "sip:did%d@p", i)
				d.tab.FromClient(d.now, 1, m)
				d.gets(1, ByBranch, fmt.Sprintf("200/REGISTER - r%d %s%d f s", i, b, i))
			}
			m := parse(d.t, "REGISTER sip:p r "+b+"z f -", "Contact: <sip:s@10.0.0.1>;expires=0")
			m.To.URI = []byte("sip:did1@p")
			d.tab.FromClient(d.now, 1, m)
			d.gets(1, ByBranch, "200/REGISTER - r "+b+"z f s")
			d.gets(1, ByContact, call("sip:s@10.0.0.1"))
		}},
		{"a request in a lost dialog goes by its Contact", func(d *desk) {
			d.register(1, "sip:1@10.0.0.1")
			d.gets(1, ByContact, "BYE sip:1@10.0.0.1 lost "+b+"p s t")
		}},
		{"more Contacts than anybody has", func(d *desk) {
			var l []string
			for i := range MaxContacts + 5 {
				l = append(l, fmt.Sprintf("<sip:%d@h>", i))
			}
			d.from(1, "REGISTER sip:p r "+b+"1 f -", "Contact: "+strings.Join(l, ","))
			s := d.tab.Stats()
			if s.Held.Contacts != MaxContacts || s.Excess != 1 {
				d.t.Errorf("got %+v", s)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(&desk{t: t}) })
	}
}

// TestOwnersBounded registers one user at so many clients that a walk over them would show, and lets
// them end: the walk is cut, and says that it cannot know.
func TestOwnersBounded(t *testing.T) {
	d := &desk{t: t}
	for i := 1; i <= 2*ownersSeen; i++ {
		d.register(i, fmt.Sprintf("sip:100@10.0.0.%d", i), "Expires: 60")
	}
	d.nobody(Ambiguous, "INVITE sip:100@h i "+b+"p s -")
	d.wait(time.Minute)
	d.nobody(Ambiguous, "INVITE sip:100@h i "+b+"p s -") // ended, not swept
	d.tab.Expire(d.now)
	d.nobody(NoContact, "INVITE sip:100@h i "+b+"p s -")
	if o := &d.tab.registrar.owners; len(o.index) != 0 || len(o.heads) != 0 {
		t.Errorf("owners left: %d, names left: %d", len(o.index), len(o.heads))
	}
}
