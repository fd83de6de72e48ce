package socks_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/srcproxy/srcproxy/internal/socks"
)

// outcome is all that a client can see of a handshake, and what its end says.
type outcome struct {
	Sent    string     // all bytes sent to the client
	End     socks.Kind // StepMore: the server waits for more
	Read    int        // how many bytes were taken
	Asked   string     // user and password, as often as they were to be verified
	User    string     // at the end
	Request socks.Request
	Err     string
}

const (
	goodUser     = "alice"
	goodPassword = "correct horse"
)

// client feeds chunks to h as a connection would and answers StepLogin.
type client struct {
	h       socks.Handshake
	buffer  []byte
	outcome outcome
	err     error
}

func drive(t testing.TB, h socks.Handshake, chunks ...[]byte) (outcome, error) {
	t.Helper()
	c := client{h: h}
	for _, chunk := range chunks {
		c.buffer = append(c.buffer, chunk...)
		if c.run(t) {
			break
		}
	}
	return c.outcome, c.err
}

// run takes as many steps as the buffered bytes allow and tells whether the
// handshake has ended.
func (c *client) run(t testing.TB) bool {
	t.Helper()
	for {
		before := bytes.Clone(c.buffer)
		s, err := c.h.Next(c.buffer)
		c.check(t, before, s, err)
		c.outcome.End = s.Kind
		c.outcome.Read += s.N
		c.outcome.Sent += string(s.Reply)
		c.buffer = c.buffer[s.N:]
		switch s.Kind {
		case socks.StepMore:
			return false
		case socks.StepLogin:
			c.outcome.Asked += s.User + ":" + s.Password + "\n"
			ok := s.User == goodUser && s.Password == goodPassword
			c.outcome.Sent += string(c.h.Login(ok))
			if !ok {
				c.outcome.End = socks.StepClose
				return true
			}
		case socks.StepRequest, socks.StepClose:
			c.outcome.User, c.outcome.Request = s.User, s.Request
			if err != nil {
				c.outcome.Err, c.err = err.Error(), err
			}
			return true
		}
	}
}

// check holds what is true of each step.
func (c *client) check(t testing.TB, before []byte, s socks.Step, err error) {
	t.Helper()
	if !bytes.Equal(before, c.buffer) {
		t.Fatalf("Next changed its bytes from % x to % x", before, c.buffer)
	}
	if s.N < 0 || s.N > len(before) || s.N > socks.MaxMessage {
		t.Fatalf("Next(% x).N = %d", before, s.N)
	}
	if (err != nil) != (s.Kind == socks.StepClose) {
		t.Fatalf("Next(% x) = %+v with error %v", before, s, err)
	}
	switch s.Kind {
	case socks.StepMore:
		if !reflect.DeepEqual(s, socks.Step{}) || len(before) >= socks.MaxMessage {
			t.Fatalf("Next of %d bytes = %+v: asks for more", len(before), s)
		}
	case socks.StepReply, socks.StepLogin, socks.StepRequest:
		if s.N == 0 {
			t.Fatalf("Next(% x) = %+v takes nothing and goes on", before, s)
		}
	case socks.StepClose:
		if _, err := c.h.Next(before); err == nil {
			t.Fatalf("Next goes on after %+v", s)
		}
	}
}

// driveCut wants the same outcome when in comes in one write, cut at each
// byte, and byte by byte.
func driveCut(t testing.TB, h socks.Handshake, in []byte) (outcome, error) {
	t.Helper()
	whole, err := drive(t, h, in)
	for cut := 1; cut < len(in); cut++ {
		if got, _ := drive(t, h, in[:cut], in[cut:]); got != whole {
			t.Errorf("% x cut at %d:\ngot  %+v\nwant %+v", in, cut, got, whole)
		}
	}
	var single [][]byte
	for i := range in {
		single = append(single, in[i:i+1])
	}
	if got, _ := drive(t, h, single...); got != whole {
		t.Errorf("% x byte by byte:\ngot  %+v\nwant %+v", in, got, whole)
	}
	return whole, err
}
