package inbound

import (
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/relay"
)

// TestNothingIsLeft mixes a thousand connections of every fate and wants the goroutines
// and descriptors back; the rig looks at the counters.
func TestNothingIsLeft(t *testing.T) {
	target := serve(t, echo)
	nobody := closedPort(t)
	users := mustParse(t, hashed(t, "alice", "secret", 4))
	r := start(t, nil)
	secured := start(t, func(s *Settings) { s.Users = users })
	half := func(c *net.TCPConn) { _ = c.CloseWrite() }
	all := func(c *net.TCPConn) { _ = c.Close() }
	reset := func(c *net.TCPConn) { relay.Reset(c) }
	good := hello5 + connect5(target.addr())
	fates := []struct {
		r    *rig
		send string
		then func(*net.TCPConn)
	}{
		{r, good + "ping", half},
		{r, good + "ping", all},
		{r, good + "ping", reset},
		{r, connectHTTP(target.addr().String()) + "ping", half},
		{r, hello5 + connect5(nobody), half},
		{r, hello5 + connect5(nobody), reset},
		{r, hello5 + "\x05\x02" + connect5(target.addr())[2:], half},
		{r, "", all},
		{r, "\x05", reset},
		{r, "\x05\x00", half},
		{r, "garbage", half},
		{r, "GET / HTTP/1.1\r\n\r\n", half},
		{secured, good, half},
		{secured, "\x05\x01\x02\x01\x05alice\x05wrong", half},
		{secured, "\x05\x01\x02\x01\x05alice\x06secret" + connect5(target.addr()) + "ping", half},
	}
	files, routines := openFiles(t), runtime.NumGoroutine()
	var running sync.WaitGroup
	for w := range 10 {
		running.Go(func() {
			for i := range 100 {
				f := fates[(w+i)%len(fates)]
				c, err := net.Dial("tcp", f.r.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, f.send) // the far side may be done already
				f.then(c.(*net.TCPConn))
				_, _ = io.Copy(io.Discard, c) // how it ends is another test's
				_ = c.Close()                 // it may be closed
			}
		})
	}
	running.Wait()
	r.log.wait(t, "flow", 20) // of refusals a flood has few lines
	secured.log.wait(t, "flow", 20)
	eventually(t, func() string {
		if n := openFiles(t); n > files {
			return "descriptors are left"
		}
		if n := runtime.NumGoroutine(); n > routines {
			return "goroutines are left"
		}
		return ""
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestClosedIsForgotten closes listeners while their context goes on, as a reload does:
// nothing holds them and their rules any more.
func TestClosedIsForgotten(t *testing.T) {
	for name, served := range map[string]bool{"served": true, "never served": false} {
		t.Run(name, func(t *testing.T) {
			s := &Settings{Dialer: &dialer.Dialer{Table: from(t, sourceAddr)}, Shared: &Shared{Descriptors: NewDescriptors(4096)}}
			l, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), s, nil)
			if err != nil {
				t.Fatal(err)
			}
			held := weak.Make(l)
			if served {
				l.Serve()
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if served {
				l.Wait()
			}
			l = nil
			eventually(t, func() string {
				runtime.GC()
				if held.Value() != nil {
					return "the listener is held"
				}
				return ""
			})
		})
	}
}
