package relay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// rig is a relay between two peers: the client's and the server's programs.
type rig struct {
	client, server net.Conn // the far ends
	near           [2]net.Conn
	up, down       atomic.Int64
	pool           *pool
	done           chan struct{} // closed when Stream has returned
	err            error
}

// start runs a relay over two connected pairs (far end, relay's end).
func start(t *testing.T, c, s [2]net.Conn, o Options) *rig {
	t.Helper()
	r := &rig{client: c[0], server: s[0], near: [2]net.Conn{c[1], s[1]}, done: make(chan struct{})}
	o.Up, o.Down = &r.up, &r.down
	if o.pool == nil {
		o.pool = newPool(t)
	}
	r.pool = o.pool
	limit := time.Now().Add(patience)
	for _, far := range []net.Conn{r.client, r.server} {
		if err := far.SetDeadline(limit); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(r.done)
		r.err = Stream(r.near[0], r.near[1], &o)
	}()
	t.Cleanup(func() {
		_, _ = r.client.Close(), r.server.Close()
		_, _ = r.near[0].Close(), r.near[1].Close()
		<-r.done
	})
	return r
}

// result waits for the end of Stream.
func (r *rig) result(t *testing.T) error {
	t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		t.Fatal("Stream did not return")
		return nil
	}
}

// newPool closes its idle pipes at the end, so that tests do not share any.
func newPool(t testing.TB) *pool {
	p := new(pool)
	t.Cleanup(func() {
		for _, x := range p.idle {
			x.close()
		}
	})
	return p
}

func tcpPair(t testing.TB) [2]net.Conn {
	t.Helper()
	return pair(t, "tcp", "127.0.0.1:0")
}

// pair returns a connection's far and near end.
func pair(t testing.TB, network, address string) [2]net.Conn {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = far.Close(), near.Close() })
	return [2]net.Conn{far, near}
}

func unixPair(t testing.TB) [2]net.Conn {
	t.Helper()
	return pair(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func pipePair(testing.TB) [2]net.Conn {
	a, b := net.Pipe()
	return [2]net.Conn{a, b}
}

// wrapped hides the type, as a connection with peeked bytes does.
type wrapped struct{ *net.TCPConn }

func wrappedPair(t testing.TB) [2]net.Conn {
	t.Helper()
	p := tcpPair(t)
	p[1] = wrapped{p[1].(*net.TCPConn)}
	return p
}

// send writes n pseudo-random bytes in random chunks, half-closes, and returns
// the hash. A pause is a yield for up to 1 ms now and then.
func send(c net.Conn, n int, seed uint64) (sum [32]byte, err error) {
	rnd, h := rand.New(rand.NewPCG(seed, 1)), sha256.New()
	chunk := make([]byte, 256<<10)
	for n > 0 {
		b := chunk[:min(n, 1+rnd.IntN(1<<rnd.IntN(19)))]
		for i := 0; i+8 <= len(b); i += 512 {
			b[i] = byte(rnd.Uint32())
		}
		h.Write(b)
		if _, err := c.Write(b); err != nil {
			return sum, err
		}
		if n -= len(b); rnd.IntN(64) == 0 {
			<-time.After(time.Duration(rnd.IntN(1000)) * time.Microsecond)
		}
	}
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		err = c.CloseWrite()
	}
	return [32]byte(h.Sum(nil)), err
}

func receive(c net.Conn) (sum [32]byte, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, c)
	return [32]byte(h.Sum(nil)), n, err
}

// transfer sends up and down at once and compares hashes.
func transfer(r *rig, up, down int) error {
	type got struct {
		sum [32]byte
		n   int64
		err error
	}
	way := func(from, to net.Conn, n int, seed uint64) error {
		in := make(chan got, 1)
		go func() {
			var g got
			g.sum, g.n, g.err = receive(to)
			in <- g
		}()
		want, err := send(from, n, seed)
		g := <-in
		if err := errors.Join(err, g.err); err != nil {
			return err
		}
		if g.n != int64(n) || g.sum != want {
			return fmt.Errorf("got %d bytes, want %d; hashes equal: %t", g.n, n, g.sum == want)
		}
		return nil
	}
	back := make(chan error, 1)
	go func() { back <- way(r.server, r.client, down, 2) }()
	return errors.Join(way(r.client, r.server, up, 1), <-back)
}

func TestStreamBothWays(t *testing.T) {
	kinds := []struct {
		name string
		c, s func(testing.TB) [2]net.Conn
	}{
		{"tcp", tcpPair, tcpPair},
		{"tcp to unix", tcpPair, unixPair},
		{"unix to tcp", unixPair, tcpPair},
		{"wrapped to tcp", wrappedPair, tcpPair},
		{"tcp to wrapped", tcpPair, wrappedPair},
	}
	sizes := [][2]int{{1, 0}, {0, 1}, {1, 1}, {4095, 32 << 10}, {128<<10 + 1, 5}, {1 << 20, 3 << 20}, {16 << 20, 16 << 20}}
	for _, k := range kinds {
		for _, n := range sizes {
			t.Run(fmt.Sprintf("%s/%d-%d", k.name, n[0], n[1]), func(t *testing.T) {
				check(t, start(t, k.c(t), k.s(t), Options{}), n[0], n[1])
			})
		}
	}
	t.Run("tcp/64M", func(t *testing.T) {
		r := start(t, tcpPair(t), tcpPair(t), Options{})
		check(t, r, 64<<20, 64<<20)
		if r.pool.spliced.Load() == 0 {
			t.Error("no byte went by splice")
		}
	})
}

// check transfers, and compares counters and the end.
func check(t *testing.T, r *rig, up, down int) {
	t.Helper()
	if err := transfer(r, up, down); err != nil {
		t.Error(err)
	}
	if err := r.result(t); err != nil {
		t.Errorf("Stream: got %v, want nil", err)
	}
	if r.up.Load() != int64(up) || r.down.Load() != int64(down) {
		t.Errorf("counters: got %d up, %d down, want %d, %d", r.up.Load(), r.down.Load(), up, down)
	}
}

func TestEarlyBytesComeFirst(t *testing.T) {
	for name, s := range map[string]func(testing.TB) [2]net.Conn{"tcp": tcpPair, "plain": wrappedPair} {
		t.Run(name, func(t *testing.T) {
			r := start(t, tcpPair(t), s(t), Options{Early: []byte("early ")})
			mustWrite(t, r.client, "late")
			want(t, r.server, "early late")
			eventually(t, func() string { // the server may be ahead of the counter
				if got := r.up.Load(); got != 10 {
					return fmt.Sprintf("up: got %d, want 10", got)
				}
				return ""
			})
		})
	}
}

func TestHalfClose(t *testing.T) {
	flip := func(r *rig) (a, b net.Conn) { return r.server, r.client }
	same := func(r *rig) (a, b net.Conn) { return r.client, r.server }
	for name, ends := range map[string]func(*rig) (a, b net.Conn){"client first": same, "server first": flip} {
		t.Run(name, func(t *testing.T) {
			r := start(t, tcpPair(t), tcpPair(t), Options{})
			a, b := ends(r)
			mustWrite(t, a, "question")
			if err := a.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(b); string(got) != "question" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			for range 3 { // the other direction goes on
				mustWrite(t, b, "answer")
				want(t, a, "answer")
			}
			if err := b.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(a); len(got) != 0 || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			if err := r.result(t); err != nil {
				t.Errorf("Stream: got %v, want nil", err)
			}
		})
	}
}

func TestPipeEndsWhole(t *testing.T) {
	r := start(t, tcpPair(t), pipePair(t), Options{})
	mustWrite(t, r.client, "x")
	want(t, r.server, "x")
	mustWrite(t, r.server, "y")
	want(t, r.client, "y")
	_ = r.client.(*net.TCPConn).CloseWrite()
	if _, err := r.server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
	if err := r.result(t); err != nil {
		t.Errorf("Stream: got %v, want nil", err)
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func mustWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, c net.Conn, s string) {
	t.Helper()
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("got %q, %v, want %q", b, err, s)
	}
}
