package relay

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// halfPipe is as an end of net.Pipe, but CloseWrite ends the peer's reads only.
type halfPipe struct {
	net.Conn
	w *io.PipeWriter
	r *io.PipeReader
}

// newHalfPipe returns two ends; both directions are io.Pipes, so a synctest
// bubble sees every wait.
func newHalfPipe() (a, b *halfPipe) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &halfPipe{r: r1, w: w2}, &halfPipe{r: r2, w: w1}
}

func (p *halfPipe) Read(b []byte) (int, error)       { return p.r.Read(b) }
func (p *halfPipe) Write(b []byte) (int, error)      { return p.w.Write(b) }
func (p *halfPipe) CloseWrite() error                { return p.w.Close() }
func (p *halfPipe) Close() error                     { return errors.Join(p.r.Close(), p.w.Close()) }
func (p *halfPipe) SetDeadline(time.Time) error      { return nil }
func (p *halfPipe) SetReadDeadline(time.Time) error  { return nil }
func (p *halfPipe) SetWriteDeadline(time.Time) error { return nil }

func TestIdle(t *testing.T) {
	tests := []struct {
		name     string
		o        Options
		half     bool // the client ends its direction first
		beats    int  // bytes, one each 50 s, before silence
		want     error
		from, to time.Duration // when it ends, after the last byte
	}{
		{"idle", Options{Idle: time.Minute}, false, 0, ErrIdle, 60 * time.Second, 75 * time.Second},
		{"alive, then idle", Options{Idle: time.Minute}, false, 20, ErrIdle, 60 * time.Second, 75 * time.Second},
		{"half-closed", Options{HalfClosed: time.Minute}, true, 0, ErrHalfClosed, 60 * time.Second, 75 * time.Second},
		{"half-closed, alive", Options{HalfClosed: time.Minute}, true, 20, ErrHalfClosed, 60 * time.Second, 75 * time.Second},
		{"half-closed instead of idle", Options{Idle: time.Hour, HalfClosed: time.Minute}, true, 0, ErrHalfClosed, 60 * time.Second, 75 * time.Second},
		{"longer than idle", Options{Idle: time.Minute, HalfClosed: time.Hour}, true, 0, ErrHalfClosed, time.Hour, 75 * time.Minute},
		{"half-closed under idle", Options{Idle: time.Minute}, true, 0, ErrIdle, 60 * time.Second, 75 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, c := newHalfPipe()
				server, s := newHalfPipe()
				done := make(chan error, 1)
				tt.o.pool = new(pool)
				go func() { done <- Stream(c, s, &tt.o) }()
				if tt.half {
					_ = client.CloseWrite()
					if _, err := server.Read(make([]byte, 1)); err != io.EOF {
						t.Fatalf("got %v, want EOF", err)
					}
				}
				for range tt.beats {
					<-time.After(50 * time.Second)
					mustWrite(t, server, "x")
					want(t, client, "x")
				}
				last := time.Now()
				err := <-done
				if got := time.Since(last); !errors.Is(err, tt.want) || got < tt.from || got > tt.to {
					t.Errorf("got %v after %v, want %v after %v to %v", err, got, tt.want, tt.from, tt.to)
				}
			})
		})
	}
}

func TestNoLimitNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, c := newHalfPipe()
		_, s := newHalfPipe()
		done := make(chan error, 1)
		go func() { done <- Stream(c, s, nil) }()
		<-time.After(1000 * time.Hour)
		select {
		case err := <-done:
			t.Errorf("ended with %v", err)
		default:
		}
		_ = client.Close()
		_ = s.Close()
		<-done
	})
}

// TestIdleOverTCP shows that both peers of a silent relay are reset.
func TestIdleOverTCP(t *testing.T) {
	r := start(t, tcpPair(t), tcpPair(t), Options{Idle: 100 * time.Millisecond})
	if err := r.result(t); !errors.Is(err, ErrIdle) {
		t.Errorf("Stream: got %v, want ErrIdle", err)
	}
	for _, c := range []net.Conn{r.client, r.server} {
		if err := lastError(c); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("peer: got %v, want ECONNRESET", err)
		}
	}
}

// TestSlowReaderIsNotIdle has a reader so slow, and socket buffers so large,
// that no write of the relay succeeds for longer than the limit. What the
// reader acknowledges shows that it lives.
func TestSlowReaderIsNotIdle(t *testing.T) {
	const limit = 600 * time.Millisecond
	c := tcpPair(t)
	if err := c[0].(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	r := start(t, c, tcpPair(t), Options{Idle: limit})
	go func() {
		_, _ = io.CopyN(r.server, zeros{}, 16<<20)
		_ = r.server.(*net.TCPConn).CloseWrite()
	}()
	b := make([]byte, 2<<10)
	for end := time.Now().Add(4 * limit); time.Now().Before(end); {
		if _, err := r.client.Read(b); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
	select {
	case <-r.done:
		t.Fatalf("ended with %v", r.err)
	default:
	}
	if err := r.result(t); !errors.Is(err, ErrIdle) { // now the reader stops
		t.Errorf("Stream: got %v, want ErrIdle", err)
	}
}

func TestTuneTCP(t *testing.T) {
	tests := []struct {
		name             string
		keepAlive, user  time.Duration
		on, idle, intvl  int
		userMilliseconds int
	}{
		{"both", 30 * time.Second, 30 * time.Second, 1, 30, 10, 30000},
		{"rounded up", time.Second, 1500 * time.Microsecond, 1, 1, 1, 2},
		{"off", 0, 0, 0, -1, -1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tcpPair(t)[1].(*net.TCPConn)
			if err := TuneTCP(c, tt.keepAlive, tt.user); err != nil {
				t.Fatal(err)
			}
			for _, o := range []struct {
				name             string
				level, opt, want int
			}{
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, tt.on},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, tt.idle},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, tt.intvl},
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, tt.userMilliseconds},
			} {
				if got := socketOption(t, c, o.level, o.opt); o.want >= 0 && got != o.want {
					t.Errorf("%s: got %d, want %d", o.name, got, o.want)
				}
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		c := tcpPair(t)[1].(*net.TCPConn)
		_ = c.Close()
		if err := TuneTCP(c, time.Second, time.Second); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want net.ErrClosed", err)
		}
	})
}

func socketOption(t *testing.T, c *net.TCPConn, level, opt int) (v int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := errors.Join(raw.Control(func(fd uintptr) {
		v, inner = unix.GetsockoptInt(int(fd), level, opt)
	}), inner); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestUserTimeout has a peer that closes its window: the kernel counts that
// against the peer, which the documentation of TuneTCP tells.
func TestUserTimeout(t *testing.T) {
	c := tcpPair(t)
	if err := TuneTCP(c[1].(*net.TCPConn), 0, 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	r := start(t, c, tcpPair(t), Options{})
	go func() { _, _ = io.Copy(r.server, zeros{}) }()
	err := r.result(t)
	var e *Error
	if !errors.As(err, &e) || e.Side != Client || e.Op != "write" || !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("Stream: got %v, want client: write: %v", err, unix.ETIMEDOUT)
	}
	if err := lastError(r.server); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("server: got %v, want ECONNRESET", err)
	}
}
