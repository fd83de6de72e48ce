package udprelay

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/socks"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// associateRig is an association, its client, and an echo that allocates nothing.
type associateRig struct {
	client *net.UDPConn
	relay  netip.AddrPort
	text   []byte
	answer int // bytes
	room   []byte
}

func newAssociateRig(t testing.TB, byName bool) *associateRig {
	t.Helper()
	e, _ := newEngine(t)
	far := open(t, "127.0.0.11:0")
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := far.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			far.WriteToUDPAddrPort(b[:n], from)
		}
	})
	t.Cleanup(func() { far.Close(); running.Wait() })
	d := always(t, useOf("wan1", "127.0.0.2"))
	d.Resolver = &resolver{names: map[string][]netip.Addr{"far.example": {netip.MustParseAddr("127.0.0.11")}}}
	a := associate(t, e, d, nil)
	r := &associateRig{client: open(t, "127.0.0.9:0"), relay: a.Addr(), room: make([]byte, 1<<16)}
	payload := strings.Repeat("x", 200)
	answer := datagram(addrPort(far), payload)
	r.text, r.answer = []byte(answer), len(answer)
	if byName {
		r.text = []byte(named("far.example", addrPort(far).Port(), payload))
		r.turn(t, 1) // more would not wait for the name
	}
	r.turn(t, batchSize)
	return r
}

// turn sends n datagrams and waits for all answers.
func (r *associateRig) turn(t testing.TB, n int) {
	for range n {
		if _, err := r.client.WriteToUDPAddrPort(r.text, r.relay); err != nil {
			t.Fatal(err)
		}
	}
	_ = r.client.SetReadDeadline(time.Now().Add(limit)) // of an open socket
	for range n {
		if k, _, err := r.client.ReadFromUDPAddrPort(r.room); err != nil || k != r.answer {
			t.Fatalf("%d bytes, %v, want %d", k, err, r.answer)
		}
	}
}

func BenchmarkAssociate(b *testing.B) {
	r := newAssociateRig(b, false)
	b.ReportAllocs()
	for b.Loop() {
		r.turn(b, batchSize)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchSize), "ns/echo")
}

// FuzzAssociateDatagram gives an association what any client may send, under rules that
// refuse all: nothing leaves, and each datagram is counted under one reason.
func FuzzAssociateDatagram(f *testing.F) {
	e, _ := newEngine(f)
	d := &dialer.Dialer{Table: byRules(f, nil).Table, Resolver: &resolver{}}
	a := associate(f, e, d, nil)
	client := pktinfo.Addr{Peer: netip.AddrPortFrom(clientAddr, 7)}
	f.Add([]byte(datagram(netip.MustParseAddrPort("192.0.2.1:53"), "v4")))
	f.Add([]byte(datagram(netip.MustParseAddrPort("[2001:db8::1]:53"), "v6")))
	f.Add([]byte(named("name.example", 53, "name")))
	f.Add([]byte("\x00\x00\x01\x01\x7f\x00\x00\x01\x00\x35"))
	f.Add([]byte("\x00\x00\x00\x03\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := total(e)
		m := pktinfo.Message{Buf: b, N: len(b), Addr: client}
		if d, _ := a.take(&m); d != nil {
			t.Fatalf("%q goes to %v", b, d.addr.Peer)
		}
		until(t, "it is counted", func() bool { return total(e) == before+1 })
		g, err := socks.ParseDatagram(b)
		if err != nil && g.Payload != nil {
			t.Errorf("%q: an error and a payload", b)
		}
	})
}

// total returns how many datagrams were dropped.
func total(e *Engine) (n uint64) {
	for _, d := range e.Stats().Dropped {
		n += d
	}
	return n
}
