package inbound

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/httpconnect"
	"github.com/srcproxy/srcproxy/internal/socks"
)

// handshake reads what the client wants. With an error, the answer that the client is
// due has been sent.
func (c *client) handshake() (request, error) {
	if err := c.read(1); err != nil {
		return request{}, err
	}
	first, kind := c.buf[0], c.settings.Kind
	switch {
	case kind != HTTP && (first == socks.Version5 || first == socks.Version4):
		return c.socks()
	case kind != SOCKS && 'A' <= first && first <= 'Z':
		return c.connect()
	}
	return request{}, fmt.Errorf("%w: the first byte %#02x is of no protocol served here", errHandshake, first)
}

// socks drives a SOCKS handshake to its request.
func (c *client) socks() (request, error) {
	h := socks.Handshake{Users: c.settings.Users != nil, SOCKS4: true}
	for {
		step, err := h.Next(c.buf)
		if step.Kind == socks.StepMore {
			if err := c.read(socks.MaxMessage); err != nil {
				return request{}, err
			}
			continue
		}
		c.drop(step.N)
		reply := step.Reply
		switch {
		case step.Kind == socks.StepLogin:
			err = c.login(step.User, step.Password)
			reply = h.Login(err == nil)
		case errors.Is(err, socks.ErrLogin):
			c.loginFailed(step.User)
		}
		if werr := c.send(reply); err == nil {
			err = werr
		}
		switch {
		case err != nil:
			return answered(socksRequest(step.Request), len(reply) > 0), err
		case step.Kind == socks.StepRequest:
			return c.socksCommand(step.Request)
		}
	}
}

// answered keeps of a refused request whether the client was told.
func answered(req request, told bool) request {
	if !told {
		req.answer = nil
	}
	return req
}

// socksCommand refuses the commands that are not served.
func (c *client) socksCommand(r socks.Request) (request, error) {
	req := socksRequest(r)
	req.bind = r.Command == socks.CommandBind && c.settings.Bind
	req.udp = r.Command == socks.CommandAssociate && c.settings.Associate != nil
	if r.Command == socks.CommandConnect || req.bind || req.udp {
		return req, nil
	}
	err := c.send(r.AppendReply(nil, socks.ReplyCommandNotSupported, netip.AddrPort{}))
	return req, errors.Join(fmt.Errorf("%w: command %d is not served", errHandshake, r.Command), err)
}

func socksRequest(r socks.Request) request {
	return request{
		name: r.Dst.Name,
		dst:  r.Dst.Addr,
		answer: func(err error, bound netip.AddrPort) []byte {
			rep, _ := replyTo(err)
			return r.AppendReply(nil, rep, bound)
		},
	}
}

// connect reads an HTTP CONNECT request.
func (c *client) connect() (request, error) {
	r, n, err := httpconnect.Parse(c.buf)
	for errors.Is(err, httpconnect.ErrMore) {
		if err := c.read(httpconnect.MaxHeader); err != nil {
			return request{}, err
		}
		r, n, err = httpconnect.Parse(c.buf)
	}
	c.drop(n)
	req := request{name: r.Name, dst: r.Addr, answer: httpAnswer}
	if bad := (*httpconnect.Error)(nil); errors.As(err, &bad) {
		return req, errors.Join(fmt.Errorf("%w: %w", errHandshake, err), c.send(httpconnect.AppendResponse(nil, bad.Status, bad.Reason)))
	}
	if c.settings.Users == nil {
		return req, nil
	}
	switch {
	case r.HasLogin:
		err = c.login(r.User, r.Password)
	case r.User != "": // with a password that is out of form
		c.loginFailed(r.User)
		err = errLogin
	default:
		err = fmt.Errorf("%w: no login", errHandshake)
	}
	if err != nil {
		return req, errors.Join(err, c.send(loginAnswer(r.HasLogin, err)))
	}
	return req, nil
}

// loginAnswer asks for a login, unless there was one that could not be checked in time:
// a browser would then forget a password that may be right.
func loginAnswer(hasLogin bool, err error) []byte {
	if hasLogin && !errors.Is(err, errLogin) {
		return httpconnect.AppendResponse(nil, http.StatusServiceUnavailable, "too many logins at a time")
	}
	return httpconnect.AppendResponse(nil, http.StatusProxyAuthRequired, "login required")
}

func httpAnswer(err error, _ netip.AddrPort) []byte {
	_, status := replyTo(err)
	text := ""
	if err != nil {
		text = err.Error()
	}
	return httpconnect.AppendResponse(nil, status, text)
}

// login checks a user, inside the time of the handshake, and notes who it is.
func (c *client) login(name, password string) error {
	ctx, cancel := c.listener.ctx, context.CancelFunc(func() {})
	if c.settings.Handshake > 0 {
		ctx, cancel = context.WithDeadline(ctx, c.start.Add(c.settings.Handshake))
	}
	defer cancel()
	user, session, err := c.settings.Users.Verify(ctx, c.addr.Addr(), name, password)
	switch {
	case err == nil:
		c.user, c.session = user, session
	case errors.Is(err, errLogin):
		c.loginFailed(name)
	default: // nobody has looked at the password: whoever counts failures must not count this
		c.user = name
		err = fmt.Errorf("%w: waiting for the check of the password: %w", errHandshake, err)
	}
	return err
}

// loginFailed writes one stable line for whoever counts failures; the flow's own line
// comes too.
func (c *client) loginFailed(name string) {
	c.user = name
	c.settings.Shared.Log.Warn("login failed", "client", c.addr.Addr(), "user", flows.Clean(name), "listener", c.settings.Name)
}

func (c *client) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("%w: %w", errHandshake, withoutOp(err))
	}
	return nil
}
