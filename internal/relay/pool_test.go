package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIdleDescriptors moves bulk over many relays, then counts what they hold.
func TestIdleDescriptors(t *testing.T) {
	const relays = 1000
	p := newPool(t)
	before := descriptors(t)
	var rigs []*rig
	for range relays {
		rigs = append(rigs, start(t, tcpPair(t), tcpPair(t), Options{pool: p}))
	}
	for _, r := range rigs[:100] {
		go func() { _, _ = io.CopyN(r.server, zeros{}, 1<<20) }()
		if _, err := io.CopyN(io.Discard, r.client, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range rigs {
		mustWrite(t, r.client, "x")
		want(t, r.server, "x")
	}
	if p.spliced.Load() == 0 {
		t.Error("nothing was spliced: the test shows nothing")
	}
	// The last splice may still be on its way to EAGAIN.
	eventually(t, func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		got := descriptors(t) - before - 4*relays // each relay's two and the two of its peers
		if len(p.idle) != p.pipes || p.pipes > maxIdlePipes || got != 2*p.pipes {
			return fmt.Sprintf("%d descriptors beside the sockets, %d pipes, %d idle", got, p.pipes, len(p.idle))
		}
		return ""
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range list {
		// Readlink fails for the descriptor of the listing itself.
		to, err := os.Readlink("/proc/self/fd/" + f.Name())
		if err == nil && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "pipe:")) {
			n++
		}
	}
	return n
}

// held returns how many pipes are in use.
func (p *pool) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pipes - len(p.idle)
}

// eventually repeats check until it finds no fault.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		fault := check()
		if fault == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(fault)
		}
		<-time.After(time.Millisecond)
	}
}

// TestSpliceFallback has a kernel that refuses to splice: from the socket, to
// the socket, or to the socket once the pipe holds bytes already.
func TestSpliceFallback(t *testing.T) {
	tests := []struct {
		name string
		test func(p *pool) func(from, to, n int) (int, error)
	}{
		{"from", func(*pool) func(from, to, n int) (int, error) {
			return func(int, int, int) (int, error) { return -1, unix.EINVAL }
		}},
		{"to", func(p *pool) func(from, to, n int) (int, error) {
			return func(from, to, n int) (int, error) {
				if isSocket(to) {
					return -1, unix.EINVAL
				}
				return splice(from, to, n)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPool(t)
			p.test = tt.test(p)
			check(t, start(t, tcpPair(t), tcpPair(t), Options{pool: p}), 16<<20, 16<<20)
			if p.pipes == 0 {
				t.Error("splice was never tried")
			}
		})
	}
	t.Run("O_APPEND", func(t *testing.T) { // the kernel's own EINVAL
		p, s := newPool(t), tcpPair(t)
		raw, err := s[1].(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			_, err = unix.FcntlInt(fd, unix.F_SETFL, unix.O_APPEND|unix.O_NONBLOCK)
		}); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		check(t, start(t, tcpPair(t), s, Options{pool: p}), 16<<20, 0)
		if p.spliced.Load() == 0 {
			t.Error("splice was never tried")
		}
	})
}

func isSocket(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// TestNoPipes copies through buffers when all pipes are in use, or the kernel
// refuses more.
func TestNoPipes(t *testing.T) {
	for name, p := range map[string]*pool{
		"all in use": {pipes: maxPipes},
		"refused":    {refused: time.Now().Add(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, start(t, tcpPair(t), tcpPair(t), Options{pool: p}), 4<<20, 4<<20)
			if p.spliced.Load() != 0 {
				t.Error("spliced without a pipe")
			}
		})
	}
}

func TestPoolKeepsOnlyCleanPipes(t *testing.T) {
	p := newPool(t)
	var held []*pipe
	for x := p.pipe(); x != nil; x = p.pipe() {
		held = append(held, x)
	}
	if len(held) != maxPipes {
		t.Fatalf("got %d pipes, want %d", len(held), maxPipes)
	}
	p.putPipe(held[0], false)
	if len(p.idle) != 0 {
		t.Error("a dirty pipe was kept")
	}
	for _, x := range held[1:] {
		p.putPipe(x, true)
	}
	if len(p.idle) != maxIdlePipes || p.pipes != maxIdlePipes {
		t.Errorf("got %d idle of %d, want %d", len(p.idle), p.pipes, maxIdlePipes)
	}
}

// TestResetWithFullPipe ends a relay whose pipe holds bytes.
func TestResetWithFullPipe(t *testing.T) {
	p := newPool(t)
	r := start(t, tcpPair(t), tcpPair(t), Options{pool: p})
	go func() { _, _ = io.Copy(r.server, zeros{}) }()
	eventually(t, func() string { // the client stops reading while a pipe is held
		if p.held() > 0 {
			return ""
		}
		if _, err := io.CopyN(io.Discard, r.client, 256<<10); err != nil {
			t.Fatal(err)
		}
		return "no pipe is held"
	})
	Reset(r.client)
	if err := r.result(t); err == nil {
		t.Error("Stream: got nil")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pipes != len(p.idle) {
		t.Errorf("%d pipes, %d idle", p.pipes, len(p.idle))
	}
	for _, x := range p.idle {
		if n, err := unix.Read(x.r, make([]byte, 1)); err != unix.EAGAIN {
			t.Errorf("an idle pipe gave %d bytes, %v", n, err)
		}
	}
}

// TestSlowReaderLeavesPipe has a reader that takes long to empty the pipe: the
// direction goes back to a buffer and stays there.
func TestSlowReaderLeavesPipe(t *testing.T) {
	p := newPool(t)
	c, s := tcpPair(t), tcpPair(t)
	for _, small := range []net.Conn{c[0], c[1]} {
		if err := errors.Join(small.(*net.TCPConn).SetReadBuffer(16<<10), small.(*net.TCPConn).SetWriteBuffer(16<<10)); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, c, s, Options{pool: p})
	go func() { _, _ = io.Copy(r.server, zeros{}) }()
	eventually(t, func() string { // fast at first
		if p.spliced.Load() > 0 {
			return ""
		}
		if _, err := io.CopyN(io.Discard, r.client, 1<<20); err != nil {
			t.Fatal(err)
		}
		return "nothing is spliced"
	})
	eventually(t, func() string {
		<-time.After(10 * time.Millisecond)
		if _, err := io.CopyN(io.Discard, r.client, 16<<10); err != nil {
			t.Fatal(err)
		}
		if p.held() > 0 {
			return "the pipe is still held"
		}
		return ""
	})
	moved := p.spliced.Load()
	for range 50 {
		if _, err := io.CopyN(io.Discard, r.client, 16<<10); err != nil {
			t.Fatal(err)
		}
		<-time.After(30 * time.Millisecond)
	}
	if got := p.spliced.Load(); got != moved {
		t.Errorf("%d bytes were spliced for a slow reader", got-moved)
	}
}

// TestSlowReadersMemory holds 100 relays whose reader stands still.
func TestSlowReadersMemory(t *testing.T) {
	p := newPool(t)
	var before, after runtime.MemStats
	var rigs []*rig
	for range 100 {
		rigs = append(rigs, start(t, tcpPair(t), tcpPair(t), Options{pool: p}))
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, r := range rigs {
		go func() { _, _ = io.Copy(r.server, zeros{}) }()
	}
	for _, r := range rigs { // all stand still: no counter moves any more
		last := int64(-1)
		eventually(t, func() string {
			now := r.down.Load()
			moved := now != last || now == 0
			last = now
			if moved {
				<-time.After(20 * time.Millisecond)
				return "still moving"
			}
			return ""
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)
	if perFlow := grown / 100; perFlow > 64<<10 {
		t.Errorf("got %d bytes a flow, want at most 64 KiB", perFlow)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pipes > maxPipes {
		t.Errorf("got %d pipes, want at most %d", p.pipes, maxPipes)
	}
	t.Logf("%d KiB a flow, %d pipes", grown/100>>10, p.pipes)
}
