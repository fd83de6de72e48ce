//go:build linux

package pktinfo_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// TestAllocs holds what runs for each datagram at no allocation.
func TestAllocs(t *testing.T) {
	const n = 20
	local := netip.MustParseAddr("127.0.0.2")
	for _, tt := range []struct {
		network, host, local string
	}{
		{"udp4", "127.0.0.1", "127.0.0.2"},
		{"udp", "127.0.0.1", "127.0.0.2"},
		{"udp", "::1", "::1"},
	} {
		c := big(t, pktinfo.ListenConfig{Errors: true}, tt.network)
		to := pktinfo.Addr{Peer: portAt(c, tt.host), Local: netip.MustParseAddr(tt.local)}
		out, in := messages(n, 100, to), room(n, 200)
		payload := []byte("x")
		net := net.Addr(&to)
		steps := map[string]func() error{
			"batch": func() error {
				if _, err := c.WriteBatch(out); err != nil {
					return err
				}
				for got := 0; got < n; {
					k, err := c.ReadBatch(in)
					if err != nil {
						return err
					}
					got += k
				}
				return nil
			},
			"single": func() error {
				if err := c.WriteMsg(&out[0]); err != nil {
					return err
				}
				if err := c.WaitRead(); err != nil {
					return err
				}
				return c.ReadMsg(&in[0])
			},
			"WriteTo": func() error {
				if _, err := c.WriteTo(payload, net); err != nil {
					return err
				}
				return c.ReadMsg(&in[0])
			},
		}
		for name, step := range steps {
			got := testing.AllocsPerRun(100, func() {
				if err := step(); err != nil {
					t.Error(err)
				}
			})
			// The race detector makes sync.Pool drop some of what is put.
			if got != 0 && !raceEnabled {
				t.Errorf("%s %s, %s: %v allocations", tt.network, tt.host, name, got)
			}
		}
	}
	b := make([]byte, 0, 128)
	if got := testing.AllocsPerRun(100, func() {
		b = pktinfo.AppendControl(b[:0], local, 0, 1200)
		if _, err := pktinfo.ParseControl(b); err != nil {
			t.Error(err)
		}
	}); got != 0 {
		t.Errorf("control messages: %v allocations", got)
	}
}

// BenchmarkWriteBatch sends 200-byte datagrams over loopback to a socket that
// drops them; ns/op is for one datagram.
func BenchmarkWriteBatch(b *testing.B) {
	sink := listen(b, &pktinfo.ListenConfig{ReadBuffer: 4096}, "udp4", "127.0.0.1:0")
	to := pktinfo.Addr{Peer: portAt(sink, "127.0.0.1"), Local: netip.MustParseAddr("127.0.0.2")}
	other := pktinfo.Addr{Peer: to.Peer, Local: netip.MustParseAddr("127.0.0.3")}
	for _, network := range []string{"udp4", "udp"} {
		c := listen(b, &pktinfo.ListenConfig{}, network, ":0")
		for _, n := range []int{1, 8, 32} {
			ms := messages(n, 200, to)
			b.Run(fmt.Sprintf("net=%s/batch=%d/joined", network, n), func(b *testing.B) { benchmarkWrite(b, c, ms) })
		}
		ms := messages(32, 200, to)
		for i := range ms {
			if i%2 == 1 {
				ms[i].Addr = other
			}
		}
		b.Run(fmt.Sprintf("net=%s/batch=32/apart", network), func(b *testing.B) { benchmarkWrite(b, c, ms) })
	}
	b.Run("net=udp4/UDPConn", func(b *testing.B) {
		u, err := net.ListenUDP("udp4", nil)
		if err != nil {
			b.Fatal(err)
		}
		defer u.Close()
		payload := make([]byte, 200)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := u.WriteToUDPAddrPort(payload, to.Peer); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchmarkWrite(b *testing.B, c *pktinfo.Conn, ms []pktinfo.Message) {
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(ms) {
		if _, err := c.WriteBatch(ms); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadBatch fills the socket with 64 datagrams and reads them, the
// filling not counted; ns/op is for one datagram.
func BenchmarkReadBatch(b *testing.B) {
	const fill = 64
	client := listen(b, &pktinfo.ListenConfig{}, "udp4", ":0")
	for _, n := range []int{1, 8, 32, 64} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			c := listen(b, &pktinfo.ListenConfig{ReadBuffer: 1 << 20}, "udp4", "127.0.0.1:0")
			in := room(n, 300)
			benchmarkRead(b, client, c, fill, func() (int, error) { return c.ReadBatch(in) })
		})
	}
	b.Run("UDPConn", func(b *testing.B) {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		defer u.Close()
		buf, oob := make([]byte, 300), make([]byte, 64)
		benchmarkRead(b, client, u, fill, func() (int, error) {
			_, _, _, _, err := u.ReadMsgUDPAddrPort(buf, oob)
			return 1, err
		})
	})
}

func benchmarkRead(b *testing.B, client *pktinfo.Conn, c interface{ LocalAddr() net.Addr }, fill int, read func() (int, error)) {
	out := messages(fill, 200, pktinfo.Addr{Peer: portAt(c, "127.0.0.1")})
	b.ReportAllocs()
	for i := 0; i < b.N; i += fill {
		b.StopTimer()
		if _, err := client.WriteBatch(out); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for got := 0; got < fill; {
			n, err := read()
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
}
