package udprelay

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// rig is a forward whose clients are all played by one socket of many addresses.
type rig struct {
	e       *Engine
	f       *Forward
	clients *pktinfo.Conn
	peer    *pktinfo.Conn
	out, in []pktinfo.Message
}

// newRig opens n flows.
func newRig(t testing.TB, n int) *rig {
	e, _ := newEngine(t)
	e.Flows.SetLogging(false, false)
	r := &rig{e: e, clients: listen(t), peer: listen(t)}
	r.f = forward(t, e, "127.0.0.1:0", &Settings{
		Dialer: always(t, dialer.Use{Source: source("s", "127.0.0.2")}),
		Target: to(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addrPort(r.peer).Port())),
	})
	for i := range max(n, batchSize) {
		r.out = append(r.out, pktinfo.Message{Buf: make([]byte, 200), N: 200, Addr: pktinfo.Addr{
			Peer:  addrPort(r.f.conn),
			Local: netip.AddrFrom4([4]byte{127, 1, byte(i % n >> 8), byte(i % n)}),
		}})
	}
	for range batchSize {
		r.in = append(r.in, pktinfo.Message{Buf: make([]byte, 256)})
	}
	for i := 0; i < n; i += batchSize {
		r.turn(t, r.out[i:min(i+batchSize, len(r.out))])
	}
	return r
}

func listen(t testing.TB) *pktinfo.Conn {
	lc := pktinfo.ListenConfig{ReadBuffer: 4 << 20}
	c, err := lc.Listen(t.Context(), "udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// turn sends ms to the forward, answers them at the peer, and reads the answers.
func (r *rig) turn(t testing.TB, ms []pktinfo.Message) {
	if _, err := r.clients.WriteBatch(ms); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(ms); {
		k, err := r.peer.ReadBatch(r.in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.peer.WriteBatch(r.in[:k]); err != nil {
			t.Fatal(err)
		}
		n += k
	}
	for n := 0; n < len(ms); {
		k, err := r.clients.ReadBatch(r.in)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
}

// BenchmarkRelay is the time for a datagram and its answer, together with the client's
// and the peer's own system calls; it is the same program that does both.
func BenchmarkRelay(b *testing.B) {
	for _, flows := range []int{1, 32, 1024} {
		for _, burst := range []int{1, 32} {
			b.Run(fmt.Sprintf("flows=%d/burst=%d", flows, burst), func(b *testing.B) {
				r := newRig(b, flows)
				b.ReportAllocs()
				b.ResetTimer()
				at := 0
				for n := 0; n < b.N; n += burst {
					if at+burst > len(r.out) {
						at = 0
					}
					r.turn(b, r.out[at:at+burst])
					at += burst
				}
			})
		}
	}
}

// BenchmarkStart is the time for a flow's beginning and end.
func BenchmarkStart(b *testing.B) {
	r := newRig(b, 1)
	b.ReportAllocs()
	client := pktinfo.Message{Addr: pktinfo.Addr{Peer: addrPort(r.clients), Local: netip.MustParseAddr("127.0.0.1")}}
	b.ResetTimer()
	for b.Loop() {
		fl := r.f.start(&client)
		r.e.end(fl, nil)
	}
}
