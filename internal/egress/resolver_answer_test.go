package egress

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// message is an answer to a question for the A records of a.example.
type message struct {
	rcode       dnsmessage.RCode
	answers     []dnsmessage.Resource
	authorities []dnsmessage.Resource
	recursion   bool
}

func (m message) pack(t testing.TB) []byte {
	t.Helper()
	full := dnsmessage.Message{
		Header:      dnsmessage.Header{Response: true, RCode: m.rcode, RecursionAvailable: m.recursion},
		Questions:   []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers:     m.answers,
		Authorities: m.authorities,
	}
	b, err := full.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func resource(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl},
		Body:   body,
	}
}

var (
	addr9 = netip.MustParseAddr("203.0.113.9")
	addr8 = netip.MustParseAddr("203.0.113.8")
)

func aRecord(name string, ttl uint32, a netip.Addr) dnsmessage.Resource {
	return resource(name, ttl, &dnsmessage.AResource{A: a.As4()})
}

func cnameRecord(name string, ttl uint32, target string) dnsmessage.Resource {
	return resource(name, ttl, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)})
}

func soaRecord(ttl, least uint32) dnsmessage.Resource {
	n := dnsmessage.MustNewName("example.")
	return resource("example.", ttl, &dnsmessage.SOAResource{NS: n, MBox: n, MinTTL: least})
}

// TestAnswerTTL moves what answers say into bounds.
func TestAnswerTTL(t *testing.T) {
	list := func(r ...dnsmessage.Resource) []dnsmessage.Resource { return r }
	for _, tt := range []struct {
		name string
		m    message
		want time.Duration
	}{
		{"shortest", message{answers: list(aRecord("a.example.", 60, addr9), aRecord("a.example.", 50, addr8))}, 50 * time.Second},
		{"shortest of the chain", message{answers: list(cnameRecord("a.example.", 40, "b.example."), aRecord("b.example.", 60, addr9))}, 40 * time.Second},
		{"none", message{answers: list(aRecord("a.example.", 0, addr9))}, time.Second},
		{"negative number", message{answers: list(aRecord("a.example.", 1<<31, addr9))}, time.Second},
		{"a year", message{answers: list(aRecord("a.example.", 86400*365, addr9))}, time.Hour},
		{"no such name", message{rcode: dnsmessage.RCodeNameError, authorities: list(soaRecord(60, 30))}, 30 * time.Second},
		{"no such name, the SOA's own time", message{rcode: dnsmessage.RCodeNameError, authorities: list(soaRecord(20, 30))}, 20 * time.Second},
		{"no such name for a year", message{rcode: dnsmessage.RCodeNameError, authorities: list(soaRecord(86400*365, 86400*365))}, 5 * time.Minute},
		{"no such name without SOA", message{rcode: dnsmessage.RCodeNameError}, 0},
		{"no such name for no time", message{rcode: dnsmessage.RCodeNameError, authorities: list(soaRecord(60, 0))}, 0},
		{"no address", message{authorities: list(soaRecord(60, 30))}, 30 * time.Second},
		{"alias to nothing", message{answers: list(cnameRecord("a.example.", 10, "b.example.")), authorities: list(soaRecord(60, 30))}, 10 * time.Second},
		{"no address without SOA", message{recursion: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := parseAnswer(tt.m.pack(t), question{"a.example", dnsmessage.TypeA})
			if err != nil || a.ttl != tt.want {
				t.Errorf("got %+v, %v, want %v", a, err, tt.want)
			}
		})
	}
}

// TestAnswerForOthers: records of other names, types and classes do not count.
func TestAnswerForOthers(t *testing.T) {
	chaos := aRecord("a.example.", 60, addr8)
	chaos.Header.Class = dnsmessage.ClassCHAOS
	m := message{answers: []dnsmessage.Resource{
		chaos,
		aRecord("b.example.", 60, addr8),
		resource("a.example.", 60, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::9").As16()}),
		resource("a.example.", 60, &dnsmessage.TXTResource{TXT: []string{"text"}}),
		aRecord("A.EXAMPLE.", 60, addr9),
		aRecord("a.example.", 60, addr9),
	}}
	a, err := parseAnswer(m.pack(t), question{"a.example", dnsmessage.TypeA})
	if err != nil || !slices.Equal(a.addrs, []netip.Addr{addr9}) {
		t.Errorf("got %+v, %v, want %v alone", a, err, addr9)
	}
}

// FuzzAnswer: whatever a server sends, there is no panic, and what is taken of it is
// within the bounds.
func FuzzAnswer(f *testing.F) {
	f.Add(message{answers: []dnsmessage.Resource{cnameRecord("a.example.", 60, "b.example."), aRecord("b.example.", 60, addr9)}}.pack(f), false)
	f.Add(message{rcode: dnsmessage.RCodeNameError, authorities: []dnsmessage.Resource{soaRecord(60, 30)}}.pack(f), false)
	f.Add(message{answers: []dnsmessage.Resource{cnameRecord("a.example.", 60, "b.example."), cnameRecord("b.example.", 60, "a.example.")}}.pack(f), false)
	f.Add(message{answers: []dnsmessage.Resource{resource("a.example.", 60, &dnsmessage.AAAAResource{})}}.pack(f), true)
	f.Add([]byte("\x00\x00\x80\x00\x00\x01"), true)
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		q := question{"a.example", dnsmessage.TypeA}
		if six {
			q.kind = dnsmessage.TypeAAAA
		}
		sent, err := newQuery(q, true)
		if err != nil {
			t.Fatal(err)
		}
		h, ok := sent.answeredBy(b)
		if ok && (h.ID != sent.id || !h.Response) {
			t.Errorf("taken for an answer: %+v", h)
		}
		a, err := parseAnswer(b, q)
		if err != nil {
			return
		}
		checkAnswer(t, a, q)
	})
}

func checkAnswer(t *testing.T, a answer, q question) {
	t.Helper()
	outcomes := 0
	for _, is := range []bool{len(a.addrs) > 0, a.next != "", a.err != nil} {
		if is {
			outcomes++
		}
	}
	if outcomes != 1 {
		t.Errorf("not one of addresses, an alias and an error: %+v", a)
	}
	if len(a.addrs) > maxAddrs || a.ttl < 0 || a.ttl > maxTTL || a.err != nil && a.ttl > maxNegative {
		t.Errorf("out of bounds: %+v", a)
	}
	for _, addr := range a.addrs {
		if (q.kind == dnsmessage.TypeA) != addr.Is4() {
			t.Errorf("%v is of the other family", addr)
		}
	}
	if d := (*net.DNSError)(nil); a.err != nil && (!errors.As(a.err, &d) || !d.IsNotFound) {
		t.Errorf("the error is %v", a.err)
	}
}
