package inbound

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/relay"
)

func TestBoundIsSource(t *testing.T) {
	target := serve(t, echo)
	r := start(t, nil)
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5)
	bound := mustReply(t, c, 0)
	if seen := within(t, target.seen, limit); bound != seen || seen.Addr() != sourceAddr {
		t.Errorf("got %v, the target saw %v, want both from %v", bound, seen, sourceAddr)
	}

	c = r.dial(t)
	mustSend(t, c, "\x04\x01"+port(target.addr())+string(target.addr().Addr().AsSlice())+"\x00")
	var reply [8]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		t.Fatal(err)
	}
	seen := within(t, target.seen, limit)
	if want := "\x00\x5a" + port(seen) + string(sourceAddr.AsSlice()); string(reply[:]) != want {
		t.Errorf("got %q, want %q", reply, want)
	}
}

// TestEarlyData sends all in one write and wants the payload to come first and whole.
func TestEarlyData(t *testing.T) {
	target := serve(t, echo)
	r := start(t, nil)
	a := target.addr()
	for name, tt := range map[string]struct{ send, want string }{
		"socks5": {hello5 + connect5(a), ok5 + "\x05\x00\x00\x01"},
		"socks4": {"\x04\x01" + port(a) + string(a.Addr().AsSlice()) + "me\x00", "\x00\x5a"},
		"http":   {connectHTTP(a.String()), "HTTP/1.1 200 "},
		"with a length": {
			"CONNECT " + a.String() + " HTTP/1.1\r\nContent-Length: 4\r\n\r\n", "HTTP/1.1 200 ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial(t)
			mustSend(t, c, tt.send+"ping")
			mustGet(t, c, tt.want)
			mustSend(t, c, " pong")
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := rest(c)
			if err != nil || !strings.HasSuffix(got, "ping pong") {
				t.Errorf("got %q, %v, want it to end in the payload", got, err)
			}
		})
	}
}

// TestEarlyFlood sends 200 000 bytes before the reply, which is late.
func TestEarlyFlood(t *testing.T) {
	target := serve(t, echo)
	names := newResolver()
	r := start(t, func(s *Settings) { s.Dialer.Resolver = names })
	payload := make([]byte, 200_000)
	if _, err := rand.Read(payload); err != nil {
		t.Fatal(err)
	}
	c := r.dial(t)
	sent := make(chan error, 1)
	go func() {
		a := target.addr()
		_, err := c.Write(append([]byte(hello5+"\x05\x01\x00\x03\x09a.example"+port(a)), payload...))
		sent <- err
	}()
	within(t, names.asked, limit)
	time.AfterFunc(2*patience, func() { names.answer <- []netip.Addr{target.addr().Addr()} }) // lets the watch begin
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	got := make([]byte, len(payload))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("got other bytes, %v", err)
	}
	if err := within(t, sent, limit); err != nil {
		t.Error(err)
	}
}

func TestHalfClose(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		target := serve(t, func(c *net.TCPConn) {
			got, err := rest(c)
			if got != "abc" || err != nil {
				t.Errorf("the target got %q, %v", got, err)
			}
			mustSend(t, c, "answer")
		})
		r := start(t, nil)
		c := r.dial(t)
		mustSend(t, c, hello5+connect5(target.addr())+"abc")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustGet(t, c, ok5)
		mustReply(t, c, 0)
		mustGet(t, c, "answer")
		mustEnd(t, c)
	})
	t.Run("target first", func(t *testing.T) {
		got := make(chan string, 1)
		target := serve(t, func(c *net.TCPConn) {
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			s, _ := rest(c)
			got <- s
		})
		r := start(t, nil)
		c := r.dial(t)
		mustSend(t, c, hello5+connect5(target.addr()))
		mustGet(t, c, ok5)
		mustReply(t, c, 0)
		mustEnd(t, c)
		mustSend(t, c, "late")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if s := within(t, got, limit); s != "late" {
			t.Errorf("the target got %q", s)
		}
	})
}

func TestResets(t *testing.T) {
	target := serve(t, func(c *net.TCPConn) {
		mustGet(t, c, "x")
		relay.Reset(c)
	})
	r := start(t, nil)
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	mustSend(t, c, "x")
	if got, err := rest(c); got != "" || !isReset(err) {
		t.Errorf("got %q, %v, want a reset", got, err)
	}
	if l := r.log.wait(t, "flow", 1)[0]; !l.has("err", "server: read: connection reset by peer") || !l.has("out", "1") {
		t.Errorf("got %v", l)
	}
}

// TestRefusedCommands answers what is not served, in the words of the protocol.
func TestRefusedCommands(t *testing.T) {
	target := serve(t, echo)
	users := mustParse(t, hashed(t, "alice", "secret", 4))
	r, secured := start(t, nil), start(t, func(s *Settings) { s.Users = users })
	request := connect5(target.addr())
	for _, tt := range []struct {
		name       string
		r          *rig
		send, want string
	}{
		{"bind", r, hello5 + "\x05\x02" + request[2:], ok5 + "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"associate", r, hello5 + "\x05\x03" + request[2:], ok5 + "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"socks4 bind", r, "\x04\x02" + port(target.addr()) + "\x7f\x00\x00\x01\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{"closed port", r, hello5 + connect5(closedPort(t)), ok5 + "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"socks4 with users", secured, "\x04\x01" + port(target.addr()) + "\x7f\x00\x00\x01alice\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{"no login", secured, hello5 + request, "\x05\xff"},
		{"wrong password, then a request", secured, "\x05\x01\x02\x01\x05alice\x05wrong" + request, "\x05\x02\x01\x01"},
		{"wrong password, then the right one", secured, "\x05\x01\x02\x01\x05alice\x05wrong\x01\x05alice\x06secret", "\x05\x02\x01\x01"},
		{"NUL in the password", secured, "\x05\x01\x02\x01\x05alice\x07secret\x00" + request, "\x05\x02\x01\x01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.r.dial(t)
			mustSend(t, c, tt.send+strings.Repeat("more", 50_000)) // unread bytes must not make it a reset
			mustGet(t, c, tt.want)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			mustEnd(t, c)
		})
	}
	if n := len(target.seen); n != 0 {
		t.Errorf("the target saw %d connections", n)
	}
}

func TestRefusedHTTP(t *testing.T) {
	target := serve(t, echo)
	users := mustParse(t, hashed(t, "alice", "secret", 4))
	r, secured := start(t, nil), start(t, func(s *Settings) { s.Users = users })
	login := func(head, value string) string {
		return "CONNECT " + target.addr().String() + " HTTP/1.1\r\n" + head + value + "\r\n\r\n"
	}
	const good, bad = "YWxpY2U6c2VjcmV0", "YWxpY2U6d3Jvbmc="
	for _, tt := range []struct {
		name, send, want string
		r                *rig
	}{
		{"get", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 405 ", r},
		{"port 0", connectHTTP("a.example:0"), "HTTP/1.1 400 ", r},
		{"closed port", connectHTTP(closedPort(t).String()), "HTTP/1.1 502 ", r},
		{"huge", "CONNECT a.example:80 HTTP/1.1\r\nX: " + strings.Repeat("x", 20_000), "HTTP/1.1 431 ", r},
		{"no login", connectHTTP(target.addr().String()), "HTTP/1.1 407 ", secured},
		{"wrong login", login("Proxy-Authorization: Basic ", bad), "HTTP/1.1 407 ", secured},
		{"out of form", login("Proxy-Authorization: Basic ", "!"), "HTTP/1.1 407 ", secured},
		{"for the origin", login("Authorization: Basic ", good), "HTTP/1.1 407 ", secured},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.r.dial(t)
			mustSend(t, c, tt.send+strings.Repeat("more", 50_000))
			mustGet(t, c, tt.want)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := rest(c)
			if err != nil || strings.Contains(got, "secret") {
				t.Errorf("got %q, %v, want a clean end", got, err)
			}
		})
	}
	if n := len(target.seen); n != 0 {
		t.Errorf("the target saw %d connections", n)
	}
	c := secured.dial(t)
	mustSend(t, c, login("proxy-authorization: bAsIc ", good))
	mustGet(t, c, "HTTP/1.1 200 ")
}

// TestLogLine wants every key in the line of a flow, and one line for each login that
// failed.
func TestLogLine(t *testing.T) {
	target := serve(t, echo)
	names := newResolver()
	r := start(t, func(s *Settings) {
		s.Users = mustParse(t, hashed(t, "alice", "secret", 4))
		s.Dialer.Resolver = names
	})
	names.answer <- []netip.Addr{target.addr().Addr()}
	c := r.dial(t)
	mustSend(t, c, "\x05\x01\x02\x01\x08alice-42\x06secret\x05\x01\x00\x03\x09a.Example"+port(target.addr())+"ping")
	mustGet(t, c, "\x05\x02\x01\x00")
	bound := mustReply(t, c, 0)
	mustGet(t, c, "ping")
	if f := r.s.Shared.Flows.All(); len(f) != 1 || f[0].User != "alice" || f[0].Session != "42" || f[0].Src != bound {
		t.Errorf("got %v, want one flow of alice", f)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, c)
	l := r.log.wait(t, "flow", 1)[0]
	for key, want := range map[string]string{
		"level":    "INFO",
		"client":   c.LocalAddr().String(),
		"user":     "alice-42",
		"listener": "office",
		"dst":      target.addr().String(),
		"name":     "a.example",
		"rule":     "default",
		"source":   "wan1",
		"src":      bound.String(),
		"in":       "4",
		"out":      "4",
	} {
		if !l.has(key, want) {
			t.Errorf("%s: got %v, want %v", key, l[key], want)
		}
	}
	if l["duration"] == nil || l["err"] != nil {
		t.Errorf("got %v, want a duration and no error", l)
	}

	for i, send := range []string{
		"\x05\x01\x02\x01\x05alice\x05wrong",
		"\x05\x01\x02\x01\x08ma\nllory\x05wrong",
		"\x05\x01\x02\x01\x05alice\x00",
		"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n\r\n",
	} {
		c := r.dial(t)
		mustSend(t, c, send)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c) // other tests look at it
		l := r.log.wait(t, "login failed", i+1)[i]
		if !l.has("level", "WARN") || !l.has("client", "127.0.0.1") || !l.has("listener", "office") || l["user"] == nil {
			t.Errorf("got %v", l)
		}
		if l := r.log.wait(t, "flow", i+2)[i+1]; l["err"] == nil || l["dst"] != nil && i < 3 {
			t.Errorf("got %v", l)
		}
	}
}
