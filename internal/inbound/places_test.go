package inbound

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/srcproxy/srcproxy/internal/egress"
)

const refused5 = "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"

// bounded serves with these limits, and a users file with a and b.
func bounded(t *testing.T, b egress.Bounds, change func(*Settings)) *rig {
	t.Helper()
	return start(t, func(s *Settings) {
		s.Shared.Limits.Set(&b)
		s.Dialer.Limiter = &s.Shared.Limits
		if change != nil {
			change(s)
		}
	})
}

// wantReset wants c closed without a word.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if got, err := rest(c); got != "" {
		t.Errorf("got %q, %v, want the end", got, err)
	}
}

// refusedOnce opens connections until one is refused by SOCKS, and returns how many were
// not.
func (r *rig) refusedOnce(t *testing.T, target netip.AddrPort, most int) int {
	t.Helper()
	for n := range most + 1 {
		c := r.dial(t)
		mustSend(t, c, hello5+connect5(target))
		mustGet(t, c, ok5)
		var b [10]byte
		if _, err := c.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		if b[1] != 0 {
			if got := string(b[:]); got != refused5 {
				t.Fatalf("got %q, want %q", got, refused5)
			}
			return n
		}
	}
	t.Fatalf("%d connections, and none is refused", most+1)
	return 0
}

// TestSilentClients counts a client's connections before they have said a word: beyond
// its limit it is told so, and beyond that cut off. Other clients come in all the while.
func TestSilentClients(t *testing.T) {
	const most = 3
	target := serve(t, echo)
	r := bounded(t, egress.Bounds{PerClient: egress.Bound{Connections: most}}, nil)
	var silent []*net.TCPConn
	for range most {
		silent = append(silent, r.dial(t))
	}
	open := func(from netip.Addr) string {
		c := connectFrom(t, from, addrPort(r.Addr()))
		mustSend(t, c, hello5+connect5(target.addr()))
		mustGet(t, c, ok5)
		got := make([]byte, 10)
		if _, err := c.Read(got); err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	client, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.77")
	eventually(t, func() string {
		if open(client) != refused5 {
			return "one more than the limit was let in"
		}
		return ""
	})
	c := r.dial(t)
	mustSend(t, c, connectHTTP(target.addr().String()))
	mustGet(t, c, "HTTP/1.1 429 ")
	if got, err := rest(c); err != nil || !strings.Contains(got, "limits.per_client.connections = 3, of 127.0.0.1/32") {
		t.Errorf("got %q, %v, want the limit in it", got, err)
	}
	for _, l := range r.log.wait(t, "flow", 2) {
		if !strings.Contains(l["err"].(string), "limits.per_client.connections = 3") {
			t.Errorf("got %v, want the limit in it", l)
		}
	}
	if got := open(other); got[1] != 0 {
		t.Errorf("another client got %q", got)
	}

	var excess []*net.TCPConn
	eventually(t, func() string { // until one is cut off, the client has what it may have
		c := r.dial(t)
		excess = append(excess, c)
		if len(r.log.all("flow")) == 2 && len(excess) < 100 {
			return "none of many silent connections is cut off"
		}
		return ""
	})
	if len(excess) < 10 || len(excess) > 90 {
		t.Errorf("%d connections were let in beyond the limit", len(excess))
	}
	if got := open(other); got[1] != 0 {
		t.Errorf("another client got %q", got)
	}
	for _, c := range append(excess, silent...) {
		_ = c.Close()
	}
	eventually(t, func() string {
		c := r.dial(t)
		mustSend(t, c, hello5)
		var b [2]byte
		if _, err := c.Read(b[:]); err != nil {
			return "no place is free again"
		}
		mustSend(t, c, connect5(target.addr()))
		reply := make([]byte, 10)
		if _, err := c.Read(reply); err != nil || reply[1] != 0 {
			return "no place is free again"
		}
		return ""
	})
}

// TestForwardOfLimitedClient has no protocol in which it could say so.
func TestForwardOfLimitedClient(t *testing.T) {
	target := serve(t, echo)
	r := bounded(t, egress.Bounds{PerClient: egress.Bound{Connections: 1}}, func(s *Settings) {
		s.Kind, s.Target.Dst = TCP, target.addr()
	})
	first := r.dial(t)
	mustSend(t, first, "x")
	mustGet(t, first, "x")
	if c, err := net.Dial("tcp", r.Addr().String()); err == nil { // else the end came first
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit)) // of an open connection
		wantReset(t, c)
	}
	if l := r.log.wait(t, "flow", 1)[0]; !strings.Contains(l["err"].(string), "limits.per_client") {
		t.Errorf("got %v, want the limit in it", l)
	}
	mustSend(t, first, "y")
	mustGet(t, first, "y")
}

// TestRateOfClients lets so many come at once.
func TestRateOfClients(t *testing.T) {
	target := serve(t, echo)
	r := bounded(t, egress.Bounds{PerClient: egress.Bound{PerSecond: 5}}, nil)
	if n := r.refusedOnce(t, target.addr(), 1000); n < 5 {
		t.Errorf("%d of 5 came in", n)
	}
	if l := r.log.wait(t, "flow", 1)[0]; !strings.Contains(l["err"].(string), "limits.per_client.new_per_second = 5") {
		t.Errorf("got %v, want the limit in it", l)
	}
}

// TestLimitOfUser counts the users by themselves, whatever their session.
func TestLimitOfUser(t *testing.T) {
	target := serve(t, echo)
	users := mustParse(t, hashed(t, "alice", "a", bcrypt.MinCost)+hashed(t, "bob", "b", bcrypt.MinCost))
	r := bounded(t, egress.Bounds{PerUser: egress.Bound{Connections: 1}}, func(s *Settings) { s.Users = users })
	open := func(name, password string) (*net.TCPConn, byte) {
		c := r.dial(t)
		mustSend(t, c, "\x05\x01\x02\x01"+string(rune(len(name)))+name+string(rune(len(password)))+password+connect5(target.addr()))
		mustGet(t, c, "\x05\x02\x01\x00")
		var reply [10]byte
		if _, err := c.Read(reply[:]); err != nil {
			t.Fatal(err)
		}
		return c, reply[1]
	}
	first, rep := open("alice-1", "a")
	if rep != 0 {
		t.Fatalf("the first one got %d", rep)
	}
	if _, rep := open("alice-2", "a"); rep != 2 {
		t.Errorf("a second one got %d, want 2", rep)
	}
	if l := r.log.wait(t, "flow", 1)[0]; !strings.Contains(l["err"].(string), `limits.per_user.connections = 1, of "alice"`) {
		t.Errorf("got %v, want the limit in it", l)
	}
	if _, rep := open("bob", "b"); rep != 0 {
		t.Errorf("another user got %d", rep)
	}
	_ = first.Close()
	eventually(t, func() string {
		if _, rep := open("alice", "a"); rep != 0 {
			return "the place is not free again"
		}
		return ""
	})
}

// TestLimitOfSource refuses what is too much for a source: connections, those that fail
// excepted, and what waits for a peer.
func TestLimitOfSource(t *testing.T) {
	target := serve(t, echo)
	r := bounded(t, egress.Bounds{PerSource: egress.Bound{Connections: 2}}, func(s *Settings) { s.Bind = true })
	for range 5 {
		c := r.dial(t)
		mustSend(t, c, hello5+connect5(closedPort(t)))
		mustGet(t, c, ok5)
		mustReply(t, c, 5)
	}
	first := r.dial(t)
	mustSend(t, first, hello5+connect5(target.addr()))
	mustGet(t, first, ok5)
	mustReply(t, first, 0)
	waiting := r.dial(t)
	mustSend(t, waiting, hello5+bind5(peerAddr))
	mustGet(t, waiting, ok5)
	mustReply(t, waiting, 0)

	c := r.dial(t)
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5+refused5)
	if l := r.log.wait(t, "flow", 6)[5]; !strings.Contains(l["err"].(string), `limits.per_source.connections = 2, of source "wan1"`) {
		t.Errorf("got %v, want the limit in it", l)
	}
	if err := waiting.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		c := r.dial(t)
		mustSend(t, c, hello5+connect5(target.addr()))
		mustGet(t, c, ok5)
		var reply [10]byte
		if _, err := c.Read(reply[:]); err != nil || reply[1] != 0 {
			return "the place of a BIND is not free again"
		}
		return ""
	})
}
