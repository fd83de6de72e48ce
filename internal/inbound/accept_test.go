package inbound

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

func TestAllow(t *testing.T) {
	target := serve(t, echo)
	r := start(t, func(s *Settings) {
		s.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/29"), netip.MustParsePrefix("::1/128")}
	})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}
	c, err := d.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // read to its end
	if got, err := rest(c); got != "" || err != nil && !isReset(err) {
		t.Errorf("got %q, %v, want the end", got, err)
	}
	l := r.log.wait(t, "flow", 1)[0]
	if !l.has("listener", "office") || !l.has("err", errNotAllowed.Error()) || !strings.HasPrefix(l["client"].(string), "127.0.0.7:") {
		t.Errorf("got %v", l)
	}

	d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 8)}
	c, err = d.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r.log.wait(t, "flow", 2)
	if n := len(target.seen); n != 1 {
		t.Errorf("the target saw %d connections, want 1", n)
	}
}

// TestAllowOnWildcard takes an IPv4 client of an IPv6 socket for what it is.
func TestAllowOnWildcard(t *testing.T) {
	r := start(t, func(s *Settings) { s.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	l, err := Listen(t.Context(), netip.MustParseAddrPort("[::]:0"), r.s, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Serve()
	defer l.Wait()
	defer func() { _ = l.Close() }() // nothing is lost
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := dialTCP(t, net.JoinHostPort("127.0.0.1", port))
	mustSend(t, c, hello5)
	mustGet(t, c, ok5)
	c = dialTCP(t, net.JoinHostPort("::1", port))
	if got, err := rest(c); got != "" || err != nil && !isReset(err) {
		t.Errorf("got %q, %v, want the end", got, err)
	}
}

func TestKinds(t *testing.T) {
	target := serve(t, echo)
	a := target.addr()
	protocols := map[string]struct{ send, want string }{
		"socks5": {hello5 + connect5(a), ok5 + "\x05\x00"},
		"socks4": {"\x04\x01" + port(a) + string(a.Addr().AsSlice()) + "me\x00", "\x00\x5a"},
		"http":   {connectHTTP(a.String()), "HTTP/1.1 200 "},
	}
	for _, tt := range []struct {
		name   string
		kind   Kind
		serves string
	}{
		{"mixed", Mixed, "socks5 socks4 http"},
		{"socks", SOCKS, "socks5 socks4"},
		{"http", HTTP, "http"},
	} {
		r := start(t, func(s *Settings) { s.Kind = tt.kind })
		for name, p := range protocols {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				c := r.dial(t)
				mustSend(t, c, p.send)
				if strings.Contains(tt.serves, name) {
					mustGet(t, c, p.want)
					return
				}
				if got, err := rest(c); got != "" || err != nil && !isReset(err) {
					t.Errorf("got %q, %v, want the end", got, err)
				}
			})
		}
	}
}

func TestNoProtocol(t *testing.T) {
	r := start(t, nil)
	for _, send := range []string{"\x00\x01\x00", "\x06\x01\x00", "\x16\x03\x01\x02\x00", "get / HTTP/1.1\r\n", " CONNECT", "\xff", "\n"} {
		c := r.dial(t)
		mustSend(t, c, send)
		if got, err := rest(c); got != "" || err != nil && !isReset(err) {
			t.Errorf("%q: got %q, %v, want the end", send, got, err)
		}
	}
}

func TestForward(t *testing.T) {
	target := serve(t, echo)
	names := newResolver()
	for name, dst := range map[string]dialer.Flow{
		"address": {Dst: target.addr()},
		"name":    {Name: "smtp.mail.example", Dst: netip.AddrPortFrom(netip.Addr{}, target.addr().Port())},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(s *Settings) {
				s.Kind, s.Target = TCP, dst
				s.Dialer.Resolver = names
			})
			names.answer <- []netip.Addr{target.addr().Addr()}
			c := r.dial(t)
			mustSend(t, c, "\x05\x01\x00 is no handshake here")
			mustGet(t, c, "\x05\x01\x00 is no handshake here")
			if peer := within(t, target.seen, limit); peer.Addr() != sourceAddr {
				t.Errorf("the target saw %v, want %v", peer, sourceAddr)
			}
		})
	}
}

func TestForwardFails(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"refused": func(s *Settings) { s.Target.Dst = closedPort(t) },
		"denied": func(s *Settings) {
			s.Target.Dst = closedPort(t)
			s.Dialer.Table = new(dialer.Table)
		},
		"limit": func(s *Settings) { s.Shared.Max.Store(1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(s *Settings) {
				s.Kind = TCP
				change(s)
			})
			r.s.Shared.Connections.Enter(0)
			defer r.s.Shared.Connections.Leave()
			var got string
			c, err := net.Dial("tcp", r.Addr().String())
			if err == nil { // else the reset was quicker
				defer func() { _ = c.Close() }() // read to its end
				got, err = rest(c)
			}
			if got != "" || !isReset(err) {
				t.Errorf("got %q, %v, want a reset", got, err)
			}
			if l := r.log.wait(t, "flow", 1)[0]; l["err"] == nil {
				t.Errorf("got %v, want an error in it", l)
			}
		})
	}
}

// TestHandshakeDeadline ends silent clients and slow ones at the deadline of the whole
// handshake, and not at one of each byte.
func TestHandshakeDeadline(t *testing.T) {
	const deadline = 300 * time.Millisecond
	users := mustParse(t, hashed(t, "alice", "secret", 4))
	for name, tt := range map[string]struct {
		users *Users
		kind  Kind
		begin string
		drip  bool
	}{
		"silent":          {},
		"silent http":     {kind: HTTP},
		"cut greeting":    {begin: "\x05\x02\x00"},
		"dripping":        {begin: "\x05\xff", drip: true},
		"dripping http":   {begin: "CONNECT a", drip: true},
		"dripping socks4": {begin: "\x04\x01\x00\x50\x7f\x00\x00\x01", drip: true},
		"no login":        {begin: "\x05\x01\x02", users: users},
		"no request":      {begin: hello5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, func(s *Settings) { s.Handshake, s.Users, s.Kind = deadline, tt.users, tt.kind })
			began := time.Now()
			c := r.dial(t)
			mustSend(t, c, tt.begin)
			ended := make(chan struct{})
			dripping := make(chan struct{})
			go func() {
				defer close(dripping)
				tick := time.NewTicker(deadline / 10)
				defer tick.Stop()
				for tt.drip {
					select {
					case <-tick.C:
						if _, err := c.Write([]byte("a")); err != nil {
							return
						}
					case <-ended:
						return
					}
				}
			}()
			_, err := io.Copy(io.Discard, c)
			took := time.Since(began)
			close(ended)
			<-dripping
			if err != nil && !isReset(err) {
				t.Errorf("got %v", err)
			}
			if took < deadline-50*time.Millisecond || took > 10*deadline {
				t.Errorf("closed after %v, want %v", took, deadline)
			}
			if l := r.log.wait(t, "flow", 1)[0]; !l.has("err", "handshake: i/o timeout") {
				t.Errorf("got %v", l)
			}
		})
	}
}

// TestHandshakeDeadlineDoesNotOutlive leaves a flow alone that began in time.
func TestHandshakeDeadlineDoesNotOutlive(t *testing.T) {
	target := serve(t, echo)
	r := start(t, func(s *Settings) { s.Handshake = 500 * time.Millisecond })
	c := r.dial(t)
	mustSend(t, c, hello5+connect5(target.addr()))
	mustGet(t, c, ok5)
	mustReply(t, c, 0)
	time.Sleep(600 * time.Millisecond) // nothing must happen, so there is nothing to wait for
	mustSend(t, c, "still here")
	mustGet(t, c, "still here")
}

// TestClose takes nobody in any more, and lets go on who is in.
func TestClose(t *testing.T) {
	target := serve(t, echo)
	r := start(t, nil)
	flow, early := r.dial(t), r.dial(t)
	mustSend(t, flow, hello5+connect5(target.addr()))
	mustGet(t, flow, ok5)
	mustReply(t, flow, 0)
	mustSend(t, early, hello5)
	mustGet(t, early, ok5)

	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", r.Addr().String()); err == nil {
		_ = c.Close() // the failure is that it is there
		t.Error("a closed listener takes connections")
	}
	mustSend(t, early, connect5(target.addr()))
	mustReply(t, early, 0)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Wait()
	}()
	for _, c := range []*net.TCPConn{early, flow} {
		mustSend(t, c, "on")
		mustGet(t, c, "on")
		select {
		case <-ended:
			t.Error("Wait did not wait for a flow")
		default:
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustEnd(t, c)
	}
	within(t, ended, limit)
}

// TestContextEnds ends those who have asked for nothing yet, or wait for a dial, also
// of a listener that is closed, and lets flows live.
func TestContextEnds(t *testing.T) {
	target := serve(t, echo)
	names := newResolver()
	r := start(t, func(s *Settings) { s.Dialer.Resolver = names })
	flow, silent, dialling := r.dial(t), r.dial(t), r.dial(t)
	mustSend(t, flow, hello5+connect5(target.addr()))
	mustGet(t, flow, ok5)
	mustReply(t, flow, 0)
	mustSend(t, silent, hello5)
	mustGet(t, silent, ok5)
	mustSend(t, dialling, hello5+connectName("a.example"))
	mustGet(t, dialling, ok5)
	within(t, names.asked, limit)

	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.stop()
	within(t, names.ended, time.Second)
	for _, c := range []net.Conn{silent, dialling} {
		if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
			t.Errorf("got %v, want the end", err)
		}
	}
	mustSend(t, flow, "on")
	mustGet(t, flow, "on")
	if err := flow.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, flow)
	r.Wait()
}

// TestSet changes what comes, not what is there.
func TestSet(t *testing.T) {
	target := serve(t, echo)
	r := start(t, nil)
	flow, early := r.dial(t), r.dial(t)
	mustSend(t, flow, hello5+connect5(target.addr()))
	mustGet(t, flow, ok5)
	mustReply(t, flow, 0)
	mustSend(t, early, hello5)
	mustGet(t, early, ok5)

	s := *r.s
	s.Kind = HTTP
	r.Set(&s)
	late := r.dial(t)
	mustSend(t, late, hello5)
	if got, err := rest(late); got != "" || err != nil && !isReset(err) {
		t.Errorf("after Set: got %q, %v, want the end", got, err)
	}
	mustSend(t, early, connect5(target.addr()))
	mustReply(t, early, 0)
	for _, c := range []net.Conn{flow, early} {
		mustSend(t, c, "on")
		mustGet(t, c, "on")
	}
}
