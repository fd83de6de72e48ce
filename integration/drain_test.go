//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const drainConfig = `
default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8:1::10"]
[[listen]]
mixed = "127.0.0.1:1080"
[[listen]]
tcp = "127.0.0.1:2525"
to  = "203.0.113.1:7"
use = "wan"
[[listen]]
udp = "127.0.0.1:5300"
to  = "203.0.113.1:7"
use = "wan"
source_port = 5300
[timeouts]
drain = "%s"
`

// flowsThrough opens n echo flows.
func flowsThrough(t *testing.T, r *rig, n int) []*net.TCPConn {
	t.Helper()
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1+i%20), s.Addr.Port()))
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
		echoed(t, c, "x")
	}
	return conns
}

// TestDrain sends SIGTERM: nothing new is accepted, what is open goes on, and
// the program ends well with the last flow.
func TestDrain(t *testing.T) {
	r := newRig(t)
	r.serve(fmt.Sprintf(drainConfig, "30s"))
	conns := flowsThrough(t, r, 50)
	r.signal(syscall.SIGTERM)
	r.log.wait(t, 1, "draining")
	eventually(t, "new connections are refused", func() bool {
		c, err := r.tryDial("127.0.0.1:1080")
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	for _, c := range conns {
		if got := echoed(t, c, "still here"); got != "still here" {
			t.Errorf("an open flow: %q", got)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	if err := r.proc.Wait(patience); err != nil {
		t.Errorf("the program ended with %v, want exit 0 with the last flow", err)
	}
	r.log.wait(t, 1, "stopped")
	r.log.wait(t, 50, "flow")
}

// TestDrainEnds leaves flows open: at the limit they are reset, and the program
// ends well.
func TestDrainEnds(t *testing.T) {
	r := newRig(t)
	r.serve(fmt.Sprintf(drainConfig, "1s"))
	conns := flowsThrough(t, r, 50)
	start := time.Now()
	r.signal(syscall.SIGTERM)
	if err := r.proc.Wait(patience); err != nil {
		t.Errorf("the program ended with %v, want exit 0", err)
	}
	if d := time.Since(start); d < 900*time.Millisecond || d > 4*time.Second {
		t.Errorf("it ended after %v, want 1s", d)
	}
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("flow %d ended with %v, want a reset", i, err)
		}
	}
}

// TestSecondSignalEndsTheDrain does not wait for a drain that the operator gave
// up.
func TestSecondSignalEndsTheDrain(t *testing.T) {
	r := newRig(t)
	r.serve(fmt.Sprintf(drainConfig, "60s"))
	flowsThrough(t, r, 5)
	r.signal(syscall.SIGTERM)
	r.log.wait(t, 1, "draining")
	r.signal(syscall.SIGTERM)
	if err := r.proc.Wait(patience); errors.Is(err, nstest.ErrStillRunning) {
		t.Error("a second SIGTERM does not end the drain")
	}
}

// TestKillAndRestart kills the program with open flows: the ports are bound
// again in under a second.
func TestKillAndRestart(t *testing.T) {
	r := newRig(t)
	r.Server.EchoUDP(t, "0.0.0.0:7")
	r.serve(fmt.Sprintf(drainConfig, "30s"))
	conns := flowsThrough(t, r, 50)
	r.signal(os.Kill)
	<-r.proc.Done()
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("flow %d goes on after the kill: %v", i, err)
		}
	}
	start := time.Now()
	r.serve(r.last)
	if d := time.Since(start); d > time.Second {
		t.Errorf("ready %v after the start, want under 1s", d)
	}
	for _, listener := range []string{"127.0.0.1:1080", "127.0.0.1:2525"} {
		if c, err := r.tryDial(listener); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
	}
	u, err := r.Proxy.Dial(net.Dialer{}, "udp", "127.0.0.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got := echoed(t, u, "x"); got != "x" {
		t.Errorf("UDP echo is %q", got)
	}
}

// TestTCPForward goes through a forward with a use of its own.
func TestTCPForward(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.serve(fmt.Sprintf(drainConfig, "1s"))
	c := r.dial("127.0.0.1:2525")
	if got := echoed(t, c, "hello"); got != "hello" {
		t.Errorf("echo is %q", got)
	}
	wantSources(t, s, wan4, 1)
}
