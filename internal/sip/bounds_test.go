package sip

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// check walks all links of a store and compares them with its maps.
func (s *store[C, V]) check(t *testing.T, name string) {
	t.Helper()
	n, last := 0, int32(0)
	for i := s.oldest; i != 0 && n <= len(s.entries); i = s.at(i).newer {
		if s.index[s.at(i).key] != i || s.at(i).older != last {
			t.Fatalf("%s: entry %d is not where it should be", name, i)
		}
		n, last = n+1, i
	}
	if n != len(s.index) || last != s.newest || n > s.limit || len(s.entries) > s.limit {
		t.Fatalf("%s: %d linked, %d in the map, %d made, limit %d", name, n, len(s.index), len(s.entries), s.limit)
	}
	byClient := 0
	for c, i := range s.clients {
		for last = 0; i != 0 && byClient <= n; i = s.at(i).next {
			if s.at(i).client != c || s.at(i).prev != last {
				t.Fatalf("%s: entry %d of client %v is not where it should be", name, i, c)
			}
			byClient, last = byClient+1, i
		}
	}
	if byClient != n {
		t.Fatalf("%s: %d linked, %d by client", name, n, byClient)
	}
	for free := s.free; free != 0; free = s.at(free).older {
		n++
	}
	if n != len(s.entries) {
		t.Fatalf("%s: %d linked or free, %d made", name, n, len(s.entries))
	}
}

// check walks the stores of a table, and counts the owners of all names again.
func (tab *Table[C]) check(t *testing.T) {
	t.Helper()
	if !tab.ready {
		return
	}
	tab.transactions.check(t, "transactions")
	tab.dialogs.check(t, "dialogs")
	tab.registrar.bindings.check(t, "bindings")
	tab.registrar.pending.check(t, "pending")
	want := map[ownerKey[C]]int{}
	for _, i := range tab.registrar.bindings.index {
		e := tab.registrar.bindings.at(i)
		for _, name := range e.value.names {
			if name != (key{}) {
				want[ownerKey[C]{name, e.client}]++
			}
		}
	}
	o := &tab.registrar.owners
	linked := 0
	for _, i := range o.heads {
		for ; i != 0 && linked <= len(o.entries); i = o.at(i).next {
			if e := o.at(i); e.bindings != want[e.ownerKey] {
				t.Fatalf("owner %v: counts %d bindings, has %d", e.ownerKey, e.bindings, want[e.ownerKey])
			}
			linked++
		}
	}
	if linked != len(want) || len(o.index) != len(want) {
		t.Fatalf("owners: %d linked, %d in the map, want %d", linked, len(o.index), len(want))
	}
}

// vocabulary is small, so that random messages meet.
var vocabulary = struct{ methods, tags, contacts []string }{
	[]string{
		"INVITE", "REGISTER", "REGISTER", "BYE", "ACK", "CANCEL", "SUBSCRIBE", "NOTIFY", "REFER", "UPDATE", "OPTIONS",
	},
	[]string{"-", "a", "b", "c"},
	[]string{"<sip:1@h>", "<sip:2@h>;expires=0", "<sip:1@i>;expires=5", "<sip:2@h;x>", "*", "<sip:1@h>,<sip:3@j>,<sip:h>", "tel:1"},
}

// random makes a message out of bytes.
func random(t testing.TB, p [8]byte) *Message {
	v := &vocabulary
	pick := func(l []string, i byte) string { return l[int(i)%len(l)] }
	method := pick(v.methods, p[0])
	uri := fmt.Sprintf("sip:%d@h", p[1]%4)
	if codes := []string{"", "", "100/", "180/", "200/", "200/", "401/"}; p[2]%7 > 1 {
		method = pick(codes, p[2]) + method
	}
	more := []string{"Contact: " + pick(v.contacts, p[3])}
	if p[4]%3 == 0 {
		more = append(more, fmt.Sprintf("Expires: %d", p[4]))
	}
	text := fmt.Sprintf("%s %s c%d %s%d %s %s", method, uri, p[5]%3, b, p[6]%5, pick(v.tags, p[7]), pick(v.tags, p[7]>>4))
	return parse(t, text, more...)
}

// FuzzTable: the hashes differ from run to run, and so does what they cover; fuzz with
// -fuzzminimizetime=10x, or the fuzzer only minimizes.
func FuzzTable(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 4 {
		seed := make([]byte, 900)
		for i := range seed {
			seed[i] = byte(r.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(runTable)
}

// runTable lets four clients and the provider talk, and looks after every message whether the
// table is whole.
func runTable(t *testing.T, p []byte) {
	tab := Table[uint8]{Transactions: 6, Dialogs: 5, Contacts: 4}
	spoke := map[uint8]bool{}
	now := time.Duration(0)
	p = p[:min(len(p), 200*9)]
	for ; len(p) >= 9 && now < 1000*time.Hour; p = p[9:] {
		client := p[0] >> 4 & 3
		switch op := p[0] & 15; {
		case op < 7:
			spoke[client] = true
			tab.FromClient(now, client, random(t, [8]byte(p[1:])))
		case op < 12:
			if c, r, ok := tab.FromServer(now, random(t, [8]byte(p[1:]))); ok && (!spoke[c] || !tab.Active(c, now)) {
				t.Fatalf("client %d by %v has not spoken, or is not active", c, r)
			}
		case op == 12:
			tab.Forget(client)
			delete(spoke, client)
			if tab.Active(client, now) {
				t.Fatalf("client %d is active", client)
			}
		case op == 13:
			tab.Expire(now)
		default:
			now += time.Duration(p[1]) * time.Duration(p[2]) * 100 * time.Millisecond
		}
		tab.check(t)
	}
	tab.Expire(1 << 60)
	if got := tab.Stats().Held; got != (Held{}) {
		t.Fatalf("held after the end: %+v", got)
	}
}

// TestMemory fills a table to its limits and goes on: it stays as small as the documentation says.
func TestMemory(t *testing.T) {
	const bound = 30 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var tab Table[int32]
	m := parse(t, "INVITE sip:p c "+b+" f -")
	reg := parse(t, "REGISTER sip:p c "+b+" f -", "Contact: <sip:x@h>")
	var text []byte
	for i := range 2 * DefaultTransactions {
		text = fmt.Appendf(text[:0], "%s%d", b, i)
		m.Branch, m.From.Tag = text, text
		tab.FromClient(time.Duration(i), int32(i), m)
		if i < 2*DefaultContacts {
			reg.Branch = text
			reg.To.URI = fmt.Appendf(nil, "sip:%d@p", i)
			reg.contacts = fmt.Appendf(nil, "Contact: <sip:%d@h>\r\n", i)
			tab.FromClient(time.Duration(i), int32(i), reg)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := tab.Stats().Held
	if held.Transactions != DefaultTransactions || held.Dialogs != DefaultDialogs || held.Contacts != DefaultContacts {
		t.Errorf("held: %+v", held)
	}
	used := after.HeapAlloc - before.HeapAlloc
	t.Logf("%d kB full", used>>10)
	if used > bound {
		t.Errorf("got %d bytes, want less than %d", used, bound)
	}
	tab.check(t)
	start := time.Now()
	tab.Expire(0)
	t.Logf("Expire with nothing to do: %v", time.Since(start))
}
