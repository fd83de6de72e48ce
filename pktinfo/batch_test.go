//go:build linux

package pktinfo_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// messages returns n messages of the given size to a, all with other content.
func messages(n, size int, a pktinfo.Addr) []pktinfo.Message {
	ms := make([]pktinfo.Message, n)
	for i := range ms {
		ms[i] = pktinfo.Message{Buf: bytes.Repeat([]byte{byte(i)}, size), N: size, Addr: a}
	}
	return ms
}

// room returns n messages to read into.
func room(n, size int) []pktinfo.Message {
	ms := make([]pktinfo.Message, n)
	for i := range ms {
		ms[i].Buf = make([]byte, size)
	}
	return ms
}

// readAll reads n datagrams and returns them, coalesced ones cut.
func readAll(t *testing.T, c *pktinfo.Conn, n int) (got []string, seen []pktinfo.Addr) {
	t.Helper()
	ms := room(64, 1<<16)
	for len(got) < n {
		k, err := c.ReadBatch(ms)
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(got), n, err)
		}
		for i := range ms[:k] {
			for b := range ms[i].Segments() {
				got, seen = append(got, string(b)), append(seen, ms[i].Addr)
			}
		}
	}
	return got, seen
}

func payloads(ms []pktinfo.Message) (want []string) {
	for i := range ms {
		for b := range ms[i].Segments() {
			want = append(want, string(b))
		}
	}
	return want
}

func big(t *testing.T, lc pktinfo.ListenConfig, network string) *pktinfo.Conn {
	lc.ReadBuffer = 4 << 20
	return listen(t, &lc, network, ":0")
}

// TestBatch sends batches that join, that do not, and that mix both; what
// comes must be what was sent, in order and from the source that was named.
func TestBatch(t *testing.T) {
	for _, network := range []string{"udp4", "udp"} {
		for _, gro := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/gro=%v", network, gro), func(t *testing.T) {
				server := big(t, pktinfo.ListenConfig{GRO: gro}, network)
				client := big(t, pktinfo.ListenConfig{}, network)
				testBatch(t, client, server)
			})
		}
	}
}

func testBatch(t *testing.T, client, server *pktinfo.Conn) {
	from := func(host string) pktinfo.Addr {
		return pktinfo.Addr{Peer: portAt(server, "127.0.0.1"), Local: netip.MustParseAddr(host)}
	}
	odd := messages(10, 1000, from("127.0.0.3"))
	odd[9].N = 7
	middle := messages(10, 1000, from("127.0.0.3"))
	middle[4].N, middle[5].N, middle[6].N = 3, 0, 1000
	middle[2].N = 0 // the end of a run must not swallow it
	mixed := append(messages(5, 300, from("127.0.0.3")), messages(5, 300, from("127.0.0.4"))...)
	segmented := messages(3, 5000, from("127.0.0.5"))
	for i := range segmented {
		segmented[i].Segment = 1200
	}
	many := messages(1, 40000, from("127.0.0.5"))
	many[0].Segment = 100 // 400 of them: more than the kernel cuts at once
	tests := []struct {
		name string
		ms   []pktinfo.Message
	}{
		{"equal", messages(200, 200, from("127.0.0.2"))},
		{"odd last", odd},
		{"short and empty ones within", middle},
		{"two sources", mixed},
		{"segmented by the caller", segmented},
		{"more segments than the kernel takes", many},
		{"segment larger than all", []pktinfo.Message{{Buf: []byte("abc"), N: 3, Segment: 9, Addr: from("127.0.0.2")}}},
		{"more than a packet holds", messages(64, 9000, from("127.0.0.2"))},
		{"largest", messages(2, 65507, from("127.0.0.2"))},
		{"empty", messages(3, 0, from("127.0.0.2"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, err := client.WriteBatch(tt.ms); n != len(tt.ms) || err != nil {
				t.Fatalf("WriteBatch = %d, %v, want %d", n, err, len(tt.ms))
			}
			want := payloads(tt.ms)
			got, seen := readAll(t, server, len(want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			for i, a := range seen {
				if i < len(tt.ms) && len(tt.ms) == len(want) && a.Peer.Addr() != tt.ms[i].Addr.Local {
					t.Fatalf("datagram %d came from %v, want %v", i, a.Peer, tt.ms[i].Addr.Local)
				}
			}
		})
	}
}

// TestGRO wants to see a joined run arrive as one message with an odd end.
func TestGRO(t *testing.T) {
	server := big(t, pktinfo.ListenConfig{GRO: true}, "udp")
	client := big(t, pktinfo.ListenConfig{}, "udp")
	if f := server.Features(); !f.GRO || !f.GSO {
		t.Fatalf("kernel 5.0 and later have both: %+v", f)
	}
	ms := messages(20, 1200, pktinfo.Addr{Peer: portAt(server, "127.0.0.2")})
	ms[19].N = 77
	if n, err := client.WriteBatch(ms); n != 20 || err != nil {
		t.Fatal(n, err)
	}
	m := pktinfo.Message{Buf: make([]byte, 1<<16)}
	if err := server.ReadMsg(&m); err != nil {
		t.Fatal(err)
	}
	if m.N != 19*1200+77 || m.Segment != 1200 || m.Truncated {
		t.Errorf("N %d, Segment %d, Truncated %v", m.N, m.Segment, m.Truncated)
	}
	if _, _, err := server.ReadFrom(m.Buf); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ReadFrom: %v, want ErrUnsupported", err)
	}
}

// TestJoinLimit wants a run that no packet can hold to leave as several that
// it can, and not as single datagrams.
func TestJoinLimit(t *testing.T) {
	server := big(t, pktinfo.ListenConfig{GRO: true}, "udp")
	client := big(t, pktinfo.ListenConfig{}, "udp")
	ms := messages(14, 9000, pktinfo.Addr{Peer: portAt(server, "127.0.0.2")})
	if n, err := client.WriteBatch(ms); n != len(ms) || err != nil {
		t.Fatal(n, err)
	}
	m := pktinfo.Message{Buf: make([]byte, 1<<16)}
	for range 2 {
		if err := server.ReadMsg(&m); err != nil || m.N != 7*9000 || m.Segment != 9000 {
			t.Errorf("N %d, Segment %d, %v, want seven of 9000", m.N, m.Segment, err)
		}
	}
}

func TestBatchTruncated(t *testing.T) {
	c := listen(t, &pktinfo.ListenConfig{}, "udp", ":0")
	for _, s := range []string{"12345", "1234", ""} {
		write(t, c, s, at(c, "127.0.0.1"))
	}
	ms := room(5, 4)
	ms[0].Segment, ms[2].Truncated = 7, true // of an earlier use
	n, err := c.ReadBatch(ms)
	if n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if ms[0].N != 4 || !ms[0].Truncated || ms[0].Segment != 0 || ms[1].N != 4 || ms[1].Truncated || ms[2].N != 0 || ms[2].Truncated {
		t.Errorf("got %+v", ms[:3])
	}
	if n, err := c.ReadBatch(nil); n != 0 || err != nil {
		t.Errorf("no room: %d, %v", n, err)
	}
	if n, err := c.WriteBatch(nil); n != 0 || err != nil {
		t.Errorf("nothing to send: %d, %v", n, err)
	}
}

// TestBatchError puts a bad message at each place of a batch: the others must
// arrive when the caller skips it, and n must be its place.
func TestBatchError(t *testing.T) {
	const n = 70
	bad := map[string]func(*pktinfo.Message){
		"no such source": func(m *pktinfo.Message) { m.Addr.Local = netip.MustParseAddr("192.0.2.1") },
		"other family":   func(m *pktinfo.Message) { m.Addr.Local = netip.MustParseAddr("::1") },
		"too long":       func(m *pktinfo.Message) { m.Buf = make([]byte, 65508); m.N = len(m.Buf) },
		"N beyond Buf":   func(m *pktinfo.Message) { m.N = len(m.Buf) + 1 },
		"N below zero":   func(m *pktinfo.Message) { m.N = -1 },
	}
	for _, lc := range []pktinfo.ListenConfig{{}, {Errors: true}} {
		server, client := big(t, pktinfo.ListenConfig{}, "udp"), big(t, lc, "udp")
		for name, spoil := range bad {
			for _, place := range []int{0, 1, 33, 64, n - 1} {
				ms := messages(n, 100, pktinfo.Addr{Peer: portAt(server, "127.0.0.1"), Local: netip.MustParseAddr("127.0.0.2")})
				spoil(&ms[place])
				sent, err := client.WriteBatch(ms)
				if sent != place || err == nil {
					t.Fatalf("%s at %d: WriteBatch = %d, %v", name, place, sent, err)
				}
				rest := ms[place+1:]
				if sent, err := client.WriteBatch(rest); sent != len(rest) || err != nil {
					t.Fatalf("%s at %d: the rest: %d, %v", name, place, sent, err)
				}
				if diff := cmp.Diff(append(payloads(ms[:place]), payloads(rest)...), first(readAll(t, server, n-1))); diff != "" {
					t.Errorf("%s at %d: -want +got\n%s", name, place, diff)
				}
			}
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestWaitRead(t *testing.T) {
	c := listen(t, &pktinfo.ListenConfig{Errors: true}, "udp", ":0")
	done := make(chan error)
	wait := func() { done <- c.WaitRead() }
	go wait()
	write(t, c, "", at(c, "::1"))
	if err := receive(t, done); err != nil {
		t.Fatal(err)
	}
	go wait() // still there
	if err := receive(t, done); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, c); got != "" {
		t.Errorf("got %q", got)
	}
	go wait()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	wantTimeout(t, receive(t, done))
	_ = c.Close()
	if err := c.WaitRead(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentBatches(t *testing.T) {
	const writers, batches, size = 3, 30, 20
	c := big(t, pktinfo.ListenConfig{Errors: true}, "udp")
	var wg sync.WaitGroup
	arrived := make(chan int)
	for range 3 {
		wg.Go(func() {
			ms := room(8, 300)
			for {
				n, err := c.ReadBatch(ms)
				if err != nil {
					return
				}
				arrived <- n
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			ms := messages(size, 100+w, pktinfo.Addr{Peer: portAt(c, "127.0.0.1"), Local: netip.MustParseAddr("127.0.0.2")})
			for range batches {
				if n, err := c.WriteBatch(ms); n != size || err != nil {
					t.Errorf("WriteBatch = %d, %v", n, err)
				}
			}
		})
	}
	for n := 0; n < writers*batches*size; {
		n += receive(t, arrived)
	}
	_ = c.Close()
	wg.Wait()
}

func TestDropped(t *testing.T) {
	c := listen(t, &pktinfo.ListenConfig{ReadBuffer: 4096}, "udp4", "127.0.0.1:0")
	if n, err := c.Dropped(); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	const sent = 300
	ms := messages(sent, 500, pktinfo.Addr{Peer: portAt(c, "127.0.0.1")})
	client := listen(t, &pktinfo.ListenConfig{}, "udp4", ":0")
	if n, err := client.WriteBatch(ms); n != sent || err != nil {
		t.Fatal(n, err)
	}
	dropped, err := c.Dropped()
	if err != nil {
		t.Fatal(err)
	}
	if dropped == 0 || dropped >= sent {
		t.Fatalf("%d of %d dropped", dropped, sent)
	}
	got := 0
	for buf := room(64, 500); got < sent-int(dropped); {
		n, err := c.ReadBatch(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Dropped(); again != dropped || err != nil {
		t.Errorf("%d, then %d, %v", dropped, again, err)
	}
	_ = c.Close()
	if _, err := c.Dropped(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestBuffers(t *testing.T) {
	c := listen(t, &pktinfo.ListenConfig{ReadBuffer: 100_000, WriteBuffer: 50_000}, "udp", ":0")
	r, err := c.ReadBuffer()
	if err != nil || r != 200_000 {
		t.Errorf("ReadBuffer = %d, %v", r, err)
	}
	w, err := c.WriteBuffer()
	if err != nil || w != 100_000 {
		t.Errorf("WriteBuffer = %d, %v", w, err)
	}
}

func TestSegments(t *testing.T) {
	tests := []struct {
		n, segment int
		want       []string
	}{
		{0, 0, []string{""}},
		{0, 3, []string{""}},
		{5, 0, []string{"abcde"}},
		{5, 5, []string{"abcde"}},
		{5, 9, []string{"abcde"}},
		{5, 2, []string{"ab", "cd", "e"}},
		{6, 2, []string{"ab", "cd", "ef"}},
	}
	for _, tt := range tests {
		m := pktinfo.Message{Buf: []byte("abcdefgh"), N: tt.n, Segment: tt.segment}
		var got []string
		for b := range m.Segments() {
			got = append(got, string(b))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%d by %d: -want +got\n%s", tt.n, tt.segment, diff)
		}
		for range m.Segments() {
			break // must not go on
		}
	}
}
