//go:build linux

package integration

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// cut drops what comes in by a link, as if the cable were cut: nobody is told.
const cut = `table inet cable {
	chain arrivals {
		type filter hook prerouting priority -300; policy accept;
		iifname "LINK" drop
	}
}
`

// TestCutCable cuts the cable of the client, and that of the server, under flows: one that
// is silent is given up by timeouts.keepalive, one in which data is on its way by
// timeouts.user, and the other end is told.
func TestCutCable(t *testing.T) {
	nstest.Need(t, "nft")
	for _, link := range []string{"lan0", "wan0"} {
		for _, owing := range []bool{false, true} {
			name := link + ", silent"
			if owing {
				name = link + ", with data on its way"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cutCable(t, link, owing)
			})
		}
	}
}

func cutCable(t *testing.T, link string, owing bool) {
	r := newRig(t, nstest.WithClient)
	accepted, over := make(chan net.Conn, 1), make(chan struct{})
	r.Server.ServeTCP(t, "0.0.0.0:80", func(c *net.TCPConn) {
		accepted <- c
		<-over
	})
	t.Cleanup(func() { close(over) })
	r.serve(`
default = "198.51.100.10"
[[listen]]
mixed = "192.0.2.1:1080"
allow = "192.0.2.0/24"
[timeouts]
keepalive = "1s"
user = "2s"
`)
	c, err := r.through("192.0.2.1:1080", netip.AddrPortFrom(nstest.ServerV4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	here, far := within(t, accepted), net.Conn(c) // far is behind the cable
	if link == "wan0" {
		here, far = far, here
	}
	greet(t, here, far)
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Replace(cut, "LINK", link, 1))
	if got := r.Proxy.Run(t, cmd); got.Err != nil {
		t.Fatal(got)
	}
	if owing {
		if _, err := here.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	_ = here.SetReadDeadline(start.Add(patience)) // of an open connection
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %v the other end sees %v, want a reset", time.Since(start), err)
	}
	if e := r.log.wait(t, 1, "flow")[0]; !strings.Contains(e.text("err"), syscall.ETIMEDOUT.Error()) {
		t.Errorf("the flow ended by %q, want %v", e.text("err"), syscall.ETIMEDOUT)
	}
}

// greet sends a byte each way.
func greet(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := way[0].Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = way[1].SetReadDeadline(time.Now().Add(patience)) // of an open connection
		if _, err := way[1].Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}
