package sip

import (
	"fmt"
	"testing"
)

func TestAllocs(t *testing.T) {
	d := &desk{t: t}
	d.register(1, "sip:100@10.0.0.1")
	d.from(1, "INVITE sip:x@p c "+b+"1 f -")
	d.from(1, "200/INVITE - c2 "+b+"p s t")
	invite := parse(t, "INVITE sip:x@p c "+b+"1 f -")
	ring := parse(t, "180/INVITE - c "+b+"1 f s")
	reinvite := parse(t, "INVITE sip:u@h c2 "+b+"p s t")
	call := parse(t, "INVITE sip:100@10.0.0.1 c3 "+b+"p s -")
	byUser := parse(t, "INVITE sip:100@198.51.100.30 c3 "+b+"p s -")
	stranger := parse(t, "200/OPTIONS - c9 "+b+"9 f s")
	text, options := []byte(plain), []byte(with("m: <sip:1@h>, <sip:2@h>"))
	tests := []struct {
		name string
		run  func()
	}{
		{"Scan", func() { _, _ = Scan(text) }},
		{"Scan, fault", func() { _, _ = Scan(text[:100]) }},
		{"Contacts", func() {
			m, _ := Scan(options)
			n := 0
			for range m.Contacts {
				n++
			}
			if n != 2 {
				panic(n)
			}
		}},
		{"KindOf", func() { KindOf(text) }},
		{"response", func() { d.tab.FromServer(d.now, ring) }},
		{"request in a dialog", func() { d.tab.FromServer(d.now, reinvite) }},
		{"call", func() { d.tab.FromServer(d.now, call) }},
		{"call by user", func() { d.tab.FromServer(d.now, byUser) }},
		{"response for nobody", func() { d.tab.FromServer(d.now, stranger) }},
		{"retransmission of a client", func() { d.tab.FromClient(d.now, 1, invite) }},
		{"Active", func() { d.tab.Active(1, d.now) }},
		{"Expire", func() { d.tab.Expire(d.now) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n := testing.AllocsPerRun(100, tt.run); n != 0 {
				t.Errorf("got %v allocations", n)
			}
		})
	}
	for r, want := range map[Reason]bool{ByBranch: true, ByDialog: true, ByContact: true, ByUser: true, NoTransaction: true} {
		if got := d.tab.Stats().Routed[r] > 100; got != want {
			t.Errorf("%v was not measured", r)
		}
	}
}

func BenchmarkScan(bm *testing.B) {
	text := []byte(plain)
	bm.ReportAllocs()
	bm.SetBytes(int64(len(text)))
	for bm.Loop() {
		if _, err := Scan(text); err != nil {
			bm.Fatal(err)
		}
	}
}

func BenchmarkFromServer(bm *testing.B) {
	d := &desk{t: bm}
	for i := range 10_000 {
		d.from(i, fmt.Sprintf("INVITE sip:x@p c%d %s%d f -", i, b, i))
	}
	d.register(1, "sip:100@10.0.0.1")
	for _, c := range []struct{ name, text string }{
		{"response", "180/INVITE - c777 " + b + "777 f s"},
		{"dialog", "INVITE sip:x@p c777 " + b + "p s f"},
		{"contact", "INVITE sip:100@10.0.0.1 c777 " + b + "p s -"},
		{"user", "INVITE sip:100@198.51.100.30 c777 " + b + "p s -"},
	} {
		m := parse(bm, c.text)
		bm.Run(c.name, func(bm *testing.B) {
			bm.ReportAllocs()
			for bm.Loop() {
				if _, _, ok := d.tab.FromServer(0, m); !ok {
					bm.Fatal("nobody")
				}
			}
		})
	}
}

func BenchmarkFromClient(bm *testing.B) {
	var tab Table[int]
	m := parse(bm, "INVITE sip:x@p c "+b+" f -")
	branch := make([]byte, 20)
	copy(branch, b)
	bm.ReportAllocs()
	for i := 0; bm.Loop(); i++ {
		for j := range 8 {
			branch[12+j] = byte(i >> (8 * j)) // only its hash counts
		}
		m.Branch = branch
		tab.FromClient(0, i&0xFF, m)
	}
}
