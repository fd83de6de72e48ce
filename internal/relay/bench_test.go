package relay

import (
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// rivals are compared with `benchstat -col /by`.
var rivals = []struct {
	name  string
	relay func(client, server net.Conn, p *pool) error
}{
	{"iocopy", ioCopy},
	{"stream", func(client, server net.Conn, p *pool) error { return Stream(client, server, &Options{pool: p}) }},
}

// ioCopy is the plain relay: two io.Copy between bare *net.TCPConn.
func ioCopy(client, server net.Conn, _ *pool) error {
	var wait sync.WaitGroup
	wait.Go(func() { copyHalf(server, client) })
	copyHalf(client, server)
	wait.Wait()
	_ = client.Close()
	return server.Close()
}

func copyHalf(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.(*net.TCPConn).CloseWrite()
}

// BenchmarkBulk moves 64 MiB for each operation through one relay.
func BenchmarkBulk(b *testing.B) {
	const size = 64 << 20
	for _, way := range []string{"up", "down", "both"} {
		for _, by := range rivals {
			b.Run("way="+way+"/by="+by.name, func(b *testing.B) {
				c, s, done := bench(b, by.relay)
				b.ReportAllocs()
				b.SetBytes(size)
				if way == "both" {
					b.SetBytes(2 * size)
				}
				began := cpu(b)
				for b.Loop() {
					var wait sync.WaitGroup
					if way != "down" {
						wait.Go(func() { push(b, c, s, size) })
					}
					if way != "up" {
						wait.Go(func() { push(b, s, c, size) })
					}
					wait.Wait()
				}
				b.ReportMetric((cpu(b)-began)/float64(b.N)*1e3, "cpu-ms/op")
				_, _ = c.Close(), s.Close()
				<-done
			})
		}
	}
}

// BenchmarkPingPong sends 64 bytes there and back.
func BenchmarkPingPong(b *testing.B) {
	for _, by := range rivals {
		b.Run("by="+by.name, func(b *testing.B) {
			c, s, done := bench(b, by.relay)
			b.ReportAllocs()
			x := make([]byte, 64)
			for b.Loop() {
				for _, ends := range [][2]net.Conn{{c, s}, {s, c}} {
					if _, err := ends[0].Write(x); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(ends[1], x); err != nil {
						b.Fatal(err)
					}
				}
			}
			_, _ = c.Close(), s.Close()
			<-done
		})
	}
}

// BenchmarkShort opens, relays one byte each way, and ends cleanly.
func BenchmarkShort(b *testing.B) {
	for _, by := range rivals {
		b.Run("by="+by.name, func(b *testing.B) {
			b.ReportAllocs()
			began := cpu(b)
			for b.Loop() {
				c, s, done := bench(b, by.relay)
				push(b, c, s, 1)
				push(b, s, c, 1)
				_, _ = c.Close(), s.Close()
				<-done
			}
			b.ReportMetric((cpu(b)-began)/float64(b.N)*1e6, "cpu-us/op")
		})
	}
}

// bench returns the far ends of a running relay.
func bench(b *testing.B, relay func(client, server net.Conn, p *pool) error) (c, s net.Conn, done chan error) {
	b.Helper()
	cp, sp := dialed(b), dialed(b)
	done = make(chan error, 1)
	go func() { done <- relay(cp[1], sp[1], &shared) }()
	return cp[0], sp[0], done
}

// dialed is tcpPair without a cleanup for each of thousands.
func dialed(b *testing.B) [2]net.Conn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	return [2]net.Conn{far, near}
}

func push(b *testing.B, from, to net.Conn, n int) {
	var wait sync.WaitGroup
	wait.Go(func() {
		x := make([]byte, 64<<10)
		for left := n; left > 0; {
			m, err := from.Write(x[:min(left, len(x))])
			if err != nil {
				b.Error(err)
				return
			}
			left -= m
		}
	})
	x := make([]byte, 256<<10)
	for left := n; left > 0; {
		m, err := to.Read(x[:min(left, len(x))])
		if err != nil {
			b.Error(err)
			break
		}
		left -= m
	}
	wait.Wait()
}

// cpu returns the seconds that this process used: relay and peers alike.
func cpu(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// TestAllocs holds the data path at none: a message there and back, and bulk.
func TestAllocs(t *testing.T) {
	r := start(t, tcpPair(t), tcpPair(t), Options{})
	x, y := make([]byte, 64), make([]byte, 64)
	message := func() {
		_, _ = r.client.Write(x)
		if _, err := io.ReadFull(r.server, y); err != nil {
			t.Error(err)
		}
	}
	message()
	if n := testing.AllocsPerRun(1000, message); n != 0 {
		t.Errorf("message: got %v allocations, want 0", n)
	}
	chunk, sink := make([]byte, 1<<20), make([]byte, 1<<20)
	turn := make(chan struct{})
	go func() {
		for range turn {
			_, _ = r.client.Write(chunk)
		}
	}()
	defer close(turn)
	bulk := func() {
		turn <- struct{}{}
		if _, err := io.ReadFull(r.server, sink); err != nil {
			t.Error(err)
		}
	}
	bulk()
	if n := testing.AllocsPerRun(200, bulk); n != 0 {
		t.Errorf("bulk: got %v allocations, want 0", n)
	}
	if r.pool.spliced.Load() == 0 {
		t.Error("nothing was spliced")
	}
}
