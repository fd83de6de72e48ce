//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// holdThrough opens n connections at a time and holds those that come to be. It returns
// them, and how many were refused by the ruleset reply; all else is an error.
func (r *rig) holdThrough(proxy string, dst netip.AddrPort, n int) (held []*net.TCPConn, declined int) {
	r.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			c, err := r.through(proxy, dst)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				held = append(held, c)
			case errors.Is(err, refused(replyRuleset)):
				declined++
			default:
				r.t.Error(err)
			}
		})
	}
	all.Wait()
	return held, declined
}

// TestSourceLimit has 100 clients come at once for a pool of two sources with 5 and 7
// connections each: the far end never sees more.
func TestSourceLimit(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:80")
	config := func(one int) string {
		return fmt.Sprintf(`
default = "both"
[sources]
one = { ip = "198.51.100.10", limit = %d }
two = { ip = "198.51.100.11" }
[pools]
both = { of = ["one", "two"] }
[[listen]]
mixed = "127.0.0.1:1080"
[limits]
per_source = { connections = 7 }
`, one)
	}
	r.serve(config(5))
	dst := at(nstest.ServerV4(1), 80)
	held, declined := r.holdThrough("127.0.0.1:1080", dst, 100)
	if len(held) != 12 || declined != 88 {
		t.Fatalf("%d are held and %d refused, want 12 and 88", len(held), declined)
	}
	eventually(t, "the server has accepted them", func() bool { return len(s.Peers()) >= 12 })
	seen := s.Sources()
	if seen[nstest.ProxyV4(10)] != 5 || seen[nstest.ProxyV4(11)] != 7 || len(seen) != 2 {
		t.Errorf("the server was called from %v, want 5 and 7 times from the sources", seen)
	}
	got := r.log.wait(t, 20, "flow")[0].text("err")
	for _, want := range []string{`limit = 5, of source "one"`, `limits.per_source.connections = 7, of source "two"`} {
		if !strings.Contains(got, want) {
			t.Errorf("err is %q, want %q in it", got, want)
		}
	}
	for _, want := range []string{"# Health: one: 5 of the 5 flows of its limit are there", "# Health: two: 7 of the 7 flows of its limit are there"} {
		if got := r.program("sources"); !strings.Contains(got.Stdout, want) {
			t.Errorf("sources: %v, want %q in it", got, want)
		}
	}
	if e := r.reload(config(6)); e.text("msg") != "reloaded" {
		t.Fatal(e)
	}
	more, declined := r.holdThrough("127.0.0.1:1080", dst, 3)
	if len(more) != 1 || declined != 2 {
		t.Errorf("with one place more %d come in and %d do not, want 1 and 2", len(more), declined)
	}
	for _, c := range held {
		reset(t, c)
	}
	eventually(t, "all places but one are free again", func() bool {
		return len(asked[admin.Conns](t, r, "conns").Conns) == 1
	})
	held, declined = r.holdThrough("127.0.0.1:1080", dst, 20)
	if len(held) != 12 || declined != 8 {
		t.Errorf("then %d come in and %d do not, want 12 and 8", len(held), declined)
	}
}

// TestClientLimit counts all addresses of a /64 as one client, before they have said a
// word; other clients come in while one holds what it may have.
func TestClientLimit(t *testing.T) {
	const most = 50
	r := newRig(t, nstest.WithClient)
	r.Server.EchoTCP(t, "[::]:80")
	for i := 101; i <= 104; i++ {
		r.Client.AddAddr(t, "lan0", netip.PrefixFrom(nstest.LanV6(i), 64))
	}
	r.serve(fmt.Sprintf(`
default = "2001:db8:1::10"
[[listen]]
mixed = ["[2001:db8:8::1]:1080", "192.0.2.1:1080"]
allow = ["2001:db8:8::/64", "192.0.2.0/24"]
[[listen]]
udp = "192.0.2.1:5300"
to = "[2001:db8:2::1]:80"
allow = "192.0.2.0/24"
[limits]
per_client = { connections = %d }
`, most))
	before := r.descriptors()
	const crowd = 1000
	for i := range crowd {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(at(nstest.LanV6(100+i%5), 0))}
		c, err := r.Client.Dial(d, "tcp", "[2001:db8:8::1]:1080")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "the crowd is let go", func() bool { return r.descriptors()-before <= most+16+10 })
	lines := r.log.wait(t, 20, "flow")
	if got := lines[len(lines)-1].text("err"); !strings.Contains(got, fmt.Sprintf("limits.per_client.connections = %d, of 2001:db8:8::/64", most)) {
		t.Errorf("err is %q, want the limit in it", got)
	}
	if n := r.descriptors() - before; n > most+16+10 {
		t.Errorf("a crowd of %d silent connections holds %d descriptors", crowd, n)
	}
	c, err := r.through("192.0.2.1:1080", at(nstest.ServerV6(1), 80))
	if err != nil {
		t.Fatalf("another client: %v", err)
	}
	if _, err := tryEcho(c, "x"); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// TestClientLimitUDP lets one client have so many conversations, and drops the others.
func TestClientLimitUDP(t *testing.T) {
	const most = 10
	r := newRig(t)
	s := r.Server.EchoUDP(t, "0.0.0.0:7")
	r.serve(fmt.Sprintf("default = \"198.51.100.10\"\n[[listen]]\nudp = \"127.0.0.1:5300\"\nto = \"203.0.113.1:7\"\nidle = \"1s\"\n[limits]\nper_client = { connections = %d }\n", most))
	var answered atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		c := r.dialUDP("127.0.0.1:5300")
		all.Go(func() {
			b := make([]byte, 10)
			_ = c.SetDeadline(time.Now().Add(2 * time.Second)) // of an open socket
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			if _, err := c.Read(b); err == nil {
				answered.Add(1)
			}
		})
	}
	all.Wait()
	if n, peers := answered.Load(), len(s.Peers()); n != most || peers != most {
		t.Errorf("%d of 100 are answered, and the server got %d datagrams, want %d", n, peers, most)
	}
	if got := r.log.wait(t, 1, "flow")[0].text("err"); !strings.Contains(got, "limits.per_client.connections = 10, of 127.0.0.1/32") {
		t.Errorf("err is %q, want the limit in it", got)
	}
	s.Forget()
	c := r.dialUDP("127.0.0.1:5300")
	eventually(t, "a place is free when others were idle", func() bool {
		_, err := c.Write([]byte("x"))
		return err == nil && len(s.Peers()) > 0
	})
}

// TestNewPerSecond bounds the pace and not the number.
func TestNewPerSecond(t *testing.T) {
	const rate = 20
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:80")
	r.serve(fmt.Sprintf("default = \"slow\"\n[sources]\nslow = { ip = \"198.51.100.10\", new_per_second = %d }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", rate))
	dst := at(nstest.ServerV4(1), 80)
	start := time.Now()
	held, declined := r.holdThrough("127.0.0.1:1080", dst, 100)
	most := rate + 1 + int(time.Since(start).Seconds()*rate)
	if len(held) < rate || len(held) > most || len(held)+declined != 100 {
		t.Errorf("%d of 100 came in, want %d to %d", len(held), rate, most)
	}
	eventually(t, "the server has accepted them", func() bool { return len(s.Peers()) >= len(held) })
	if got := len(s.Peers()); got != len(held) {
		t.Errorf("the server was called %d times, and %d connections are held", got, len(held))
	}
	if got := r.log.wait(t, 1, "flow")[0].text("err"); !strings.Contains(got, `new_per_second = 20, of source "slow"`) {
		t.Errorf("err is %q, want the limit in it", got)
	}
	eventually(t, "more come in later", func() bool {
		_, err := r.through("127.0.0.1:1080", dst)
		return err == nil
	})
}

// TestUserLimit counts a user's sessions together, and answers HTTP by 429.
func TestUserLimit(t *testing.T) {
	r := newRig(t)
	s := r.Server.GreetTCP(t, "0.0.0.0:80")
	r.writeUsers(map[string]string{"ann": "secret", "bob": "secret"})
	r.serve("default = \"198.51.100.10\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\nusers = \"users\"\n[limits]\nper_user = { connections = 2 }\n")
	ask := func(login string) (*net.TCPConn, string) {
		c := r.dial("127.0.0.1:1080")
		if _, err := fmt.Fprintf(c, "CONNECT 203.0.113.1:80 HTTP/1.1\r\nProxy-Authorization: Basic %s\r\n\r\n", login); err != nil {
			t.Fatal(err)
		}
		status, _, _ := strings.Cut(firstReply(c), "\r\n")
		return c, status
	}
	const ann1, ann2, bob = "YW5uLTE6c2VjcmV0", "YW5uLTI6c2VjcmV0", "Ym9iOnNlY3JldA==" // ann-1:secret, ann-2:secret, bob:secret
	first, status := ask(ann1)
	if !strings.HasPrefix(status, "HTTP/1.1 200") {
		t.Fatalf("the first one: %s", status)
	}
	for i, want := range []struct{ login, status string }{{ann2, "HTTP/1.1 200"}, {ann1, "HTTP/1.1 429"}, {ann2, "HTTP/1.1 429"}, {bob, "HTTP/1.1 200"}} {
		if _, status := ask(want.login); !strings.HasPrefix(status, want.status) {
			t.Errorf("%d: %s, want %s", i, status, want.status)
		}
	}
	eventually(t, "the server has accepted them", func() bool { return len(s.Peers()) >= 3 })
	if n := len(s.Peers()); n != 3 {
		t.Errorf("the server was called %d times, want 3", n)
	}
	reset(t, first)
	eventually(t, "the place is free again", func() bool {
		_, status := ask(ann2)
		return strings.HasPrefix(status, "HTTP/1.1 200")
	})
}
