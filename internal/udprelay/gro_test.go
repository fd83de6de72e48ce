package udprelay

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// joiner is a client or peer whose datagrams leave by UDP_SEGMENT, so that they come to
// the relay as one.
type joiner struct {
	*pktinfo.Conn
	testing.TB
}

func newJoiner(t testing.TB, address string) *joiner {
	t.Helper()
	lc := pktinfo.ListenConfig{ReadBuffer: 4 << 20}
	c, err := lc.Listen(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &joiner{c, t}
}

// sendAll sends texts, those of one size and in a row as one.
func (j *joiner) sendAll(to netip.AddrPort, texts []string) {
	j.Helper()
	ms := make([]pktinfo.Message, len(texts))
	for i, s := range texts {
		ms[i] = pktinfo.Message{Buf: []byte(s), N: len(s), Addr: pktinfo.Addr{Peer: to}}
	}
	if n, err := j.WriteBatch(ms); n != len(ms) {
		j.Fatalf("%d of %d sent: %v", n, len(ms), err)
	}
}

// wantAll wants texts in their order, and returns where the last came from.
func (j *joiner) wantAll(texts []string) netip.AddrPort {
	j.Helper()
	j.SetReadDeadline(time.Now().Add(limit))
	m := pktinfo.Message{Buf: make([]byte, 1<<16)}
	for i, want := range texts {
		if err := j.ReadMsg(&m); err != nil {
			j.Fatalf("datagram %d of %d: %v", i, len(texts), err)
		}
		if got := string(m.Buf[:m.N]); got != want {
			j.Fatalf("datagram %d of %d: got %d bytes %.30q, want %d bytes %.30q", i, len(texts), len(got), got, len(want), want)
		}
	}
	return m.Addr.Peer
}

// trains are datagrams that leave as one, as far as the kernel joins them: the last of
// a train is shorter, and more than fit into one are several.
func trains() map[string][]string {
	of := func(n, size, last int) (texts []string) {
		for i := range n {
			s := fmt.Sprintf("%5d", i)
			texts = append(texts, s+strings.Repeat("x", size-len(s)))
		}
		return append(texts, strings.Repeat("y", last))
	}
	return map[string][]string{
		"small":     of(32, 200, 7),
		"of RTP":    of(63, 172, 172),
		"of QUIC":   of(50, 1252, 30),
		"two large": of(2, 30000, 1),
		"one":       of(0, 0, 100),
		"empty end": of(10, 100, 0),
		"many":      of(300, 100, 99),
	}
}

// TestJoinedForward relays datagrams that come as one both ways.
func TestJoinedForward(t *testing.T) {
	for name, texts := range trains() {
		for _, here := range []string{"127.0.0.1", "::1"} {
			t.Run(name+" "+here, func(t *testing.T) {
				e, _ := newEngine(t)
				addr := netip.AddrPortFrom(netip.MustParseAddr(here), 0).String()
				client, far := newJoiner(t, addr), newJoiner(t, addr)
				f := forward(t, e, addr, &Settings{
					Dialer: always(t, useOf("s", "127.0.0.2", "::1")), Target: to(addrPort(far)),
				})
				client.sendAll(addrPort(f.conn), texts)
				far.sendAll(far.wantAll(texts), texts)
				if from := client.wantAll(texts); from != addrPort(f.conn) {
					t.Errorf("answers came from %v, want %v", from, addrPort(f.conn))
				}
				n, bytes := uint64(len(texts)), int64(len(strings.Join(texts, "")))
				until(t, "all is counted", func() bool {
					s, fl := e.Stats(), e.Flows.All()[0]
					return s.Up == n && s.Down == n && fl.Up.Load() == bytes && fl.Down.Load() == bytes
				})
			})
		}
	}
}

// TestJoinedAssociate relays datagrams that come as one, each with its header.
func TestJoinedAssociate(t *testing.T) {
	for name, texts := range trains() {
		for _, there := range []string{"127.0.0.11", "::1"} {
			t.Run(name+" "+there, func(t *testing.T) {
				e, _ := newEngine(t)
				client, far := newJoiner(t, "127.0.0.9:0"), newJoiner(t, netip.AddrPortFrom(netip.MustParseAddr(there), 0).String())
				a := associate(t, e, always(t, useOf("s", "127.0.0.2", "::1")), nil)
				wrapped := make([]string, len(texts))
				for i, s := range texts {
					wrapped[i] = datagram(addrPort(far), s)
				}
				client.sendAll(a.Addr(), wrapped)
				far.sendAll(far.wantAll(texts), texts)
				if from := client.wantAll(wrapped); from != a.Addr() {
					t.Errorf("answers came from %v, want %v", from, a.Addr())
				}
				n, bytes := uint64(len(texts)), int64(len(strings.Join(texts, "")))
				until(t, "all is counted", func() bool {
					s := e.Stats()
					return s.Up == n && s.Down == n && a.entry.Up.Load() == bytes && a.entry.Down.Load() == bytes
				})
				stranger := newJoiner(t, "127.0.0.12:0")
				stranger.sendAll(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), a.exits[exitKey{}].at.Port()), texts)
				until(t, "a stranger's are counted", func() bool { return dropped(e, Stranger) == len(texts) })
			})
		}
	}
}

// TestJoinedSIP has a phone's requests come as one: each is learned by itself.
func TestJoinedSIP(t *testing.T) {
	r := newTrunkRig(t, nil)
	phone, other := newJoiner(t, "127.0.0.3:0"), r.phone("127.0.0.4")
	r.up(other, sipText{method: "OPTIONS", branch: "other", call: "0", from: "z"})
	asks := []sipText{
		{method: "OPTIONS", branch: "one", call: "1", from: "x"},
		{method: "OPTIONS", branch: "two", call: "2", from: "y"},
		{method: "OPTIONS", branch: "six", call: "6", from: "y"},
	}
	texts, answers := make([]string, len(asks)), make([]string, len(asks))
	for i, a := range asks {
		texts[i], answers[i] = a.String(), a.answer(200, "p").String()
	}
	phone.sendAll(r.asked, texts)
	for _, a := range asks {
		r.want(r.provider, a, r.outside)
	}
	for _, s := range answers {
		send(t, r.provider, r.outside, s)
	}
	phone.wantAll(answers)
}

// TestJoinedName has datagrams that come as one wait for the name of the target.
func TestJoinedName(t *testing.T) {
	e, _ := newEngine(t)
	client, far := newJoiner(t, "127.0.0.1:0"), newJoiner(t, "127.0.0.1:0")
	d := always(t, useOf("s", "127.0.0.2"))
	d.Resolver = &resolver{names: map[string][]netip.Addr{"far.example": {netip.MustParseAddr("127.0.0.1")}}}
	f := forward(t, e, "127.0.0.1:0", &Settings{
		Dialer: d, Target: dialer.Flow{Name: "far.example", Dst: netip.AddrPortFrom(netip.Addr{}, addrPort(far).Port())},
	})
	texts := []string{"one", "two", "3"}
	client.sendAll(addrPort(f.conn), texts)
	far.wantAll(texts)
}

// TestJoinedMixed has datagrams to two destinations come as one, and a fragment among
// them.
func TestJoinedMixed(t *testing.T) {
	e, _ := newEngine(t)
	client, one, two := newJoiner(t, "127.0.0.9:0"), newJoiner(t, "127.0.0.11:0"), newJoiner(t, "127.0.0.12:0")
	a := associate(t, e, always(t, useOf("s", "127.0.0.2")), nil)
	texts := []string{"1", "2", "3", "4", "5", "6"}
	var wrapped []string
	for i, far := range []*joiner{one, one, two, one, two, two} {
		wrapped = append(wrapped, datagram(addrPort(far), texts[i]))
	}
	client.sendAll(a.Addr(), append(wrapped[:4:4], "\x00\x00\x01"+wrapped[0][3:], wrapped[4], wrapped[5]))
	one.wantAll([]string{"1", "2", "4"})
	two.wantAll([]string{"3", "5", "6"})
	if n := dropped(e, Fragment); n != 1 {
		t.Errorf("%d fragments, want 1", n)
	}
}
