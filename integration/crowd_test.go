//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestSilentCrowd holds 2,000 connections that say nothing: honest clients are
// served all the same, a silent one costs at most 16 KiB, and all are closed at
// the deadline.
func TestSilentCrowd(t *testing.T) {
	const silent, honest, deadline = 2000, 200, 6 * time.Second
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.serve(fmt.Sprintf("%s\n[timeouts]\nhandshake = %q\n[limits]\nconnections = 5000\n", mainConfig, deadline))
	visit := func() error {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), s.Addr.Port()))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = tryEcho(c, "hello")
		return err
	}
	const warmUp = 50
	for range warmUp {
		if err := visit(); err != nil {
			t.Fatal(err)
		}
	}
	r.log.wait(t, warmUp, "flow")
	rss, files := r.rss(), r.descriptors()
	ends := make(chan time.Duration, silent)
	for range silent {
		c, err := r.tryDial("127.0.0.1:1080")
		if err != nil {
			t.Fatal(err)
		}
		go func(start time.Time) {
			_ = c.SetReadDeadline(start.Add(deadline + patience)) // of an open connection
			_, err := c.Read(make([]byte, 1))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				ends <- -1
				return
			}
			ends <- time.Since(start)
		}(time.Now())
	}
	eventually(t, "all are accepted", func() bool { return r.descriptors() >= files+silent })
	each := (r.rss() - rss) / silent
	if each > 16<<10 && !nstest.Race() {
		t.Errorf("a silent client costs %d bytes, want at most 16 KiB", each)
	}
	for i := range honest {
		if err := visit(); err != nil {
			t.Errorf("honest client %d: %v", i, err)
		}
	}
	early, late := time.Duration(1<<62), time.Duration(0)
	for range silent {
		d := <-ends
		if d < 0 {
			t.Fatal("a silent client is open after the deadline")
		}
		early, late = min(early, d), max(late, d)
	}
	if early < deadline-time.Second || late > deadline+time.Second {
		t.Errorf("silent clients were closed after %v to %v, want %v ± 1s", early, late, deadline)
	}
	eventually(t, "descriptors as before", func() bool { return r.descriptors() <= files })
	t.Logf("%d bytes for each silent client; closed after %v to %v", each, early, late)
}

// TestFewDescriptors runs with 64 descriptors and 300 clients: the program
// stays, says so at most once a second, spares the processor, and serves again
// within a second when they are gone.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.wrap = []string{"sh", "-c", `ulimit -n 64; exec "$@"`, "sh"}
	r.serve(mainConfig + "\n[timeouts]\nhandshake = \"60s\"\n")
	dst := at(nstest.ServerV4(1), s.Addr.Port())
	held, err := r.through("127.0.0.1:1080", dst)
	if err != nil {
		t.Fatal(err)
	}
	lines := r.log.lines()
	var crowd []*net.TCPConn
	for range 300 {
		crowd = append(crowd, r.dial("127.0.0.1:1080"))
	}
	cpu, start := r.cpu(), time.Now()
	const watch = 5 * time.Second
	for tick := time.NewTicker(100 * time.Millisecond); time.Since(start) < watch; <-tick.C {
		if _, err := tryEcho(held, "x"); err != nil {
			t.Fatalf("the flow that was there: %v", err)
		}
	}
	if used := r.cpu() - cpu; used > watch/10 {
		t.Errorf("%v of CPU time in %v", used, watch)
	}
	if n, most := r.log.lines()-lines, int(watch/time.Second)+2; n > most || n == 0 {
		t.Errorf("%d log lines in %v, want 1 to %d", n, watch, most)
	}
	for _, c := range crowd {
		reset(t, c)
	}
	relief := time.Now()
	for i := range 20 {
		c, err := r.through("127.0.0.1:1080", dst)
		if err != nil {
			t.Fatalf("client %d after the relief: %v", i, err)
		}
		echoed(t, c, "x")
		c.Close()
	}
	if d := time.Since(relief); d > time.Second {
		t.Errorf("20 clients were served %v after the relief, want 1s", d)
	}
}

// cpu is the processor time of the program.
func (r *rig) cpu() time.Duration {
	r.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.proc.Pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	// proc(5): utime and stime are the 14th and 15th field, in units of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	var user, system int
	if _, err := fmt.Sscan(fields[11], &user); err != nil {
		r.t.Fatal(err)
	}
	if _, err := fmt.Sscan(fields[12], &system); err != nil {
		r.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestConnectionLimit wants the client above the limit to be told.
func TestConnectionLimit(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.serve(mainConfig + "\n[limits]\nconnections = 10\n")
	dst := at(nstest.ServerV4(1), s.Addr.Port())
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := r.through("127.0.0.1:1080", dst); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if c, err := r.through("127.0.0.1:1080", dst); err == nil {
		c.Close()
		t.Error("a connection above the limit was served")
	}
	if got := len(s.Peers()); got != 10 {
		t.Errorf("the server was called %d times, want 10", got)
	}
}
