package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/relay"
)

// client is one accepted connection until it has ended.
type client struct {
	conn     *net.TCPConn
	settings *Settings
	listener *Listener
	addr     netip.AddrPort // the client's
	asked    netip.AddrPort // the address of ours that it connected to
	start    time.Time
	buf      []byte // received and not used yet
	user     string
	session  string
	excess   error // the limit that the client has passed; it is there to be told so
}

// request is what a client wants, and how it is answered in its protocol. The zero
// request has no answer: the client sees its connection end.
type request struct {
	name   string
	dst    netip.AddrPort // without an address where there is a name
	bind   bool           // dst is to connect, and not to be connected
	udp    bool           // an association is wanted, and dst is the client's end of it
	answer func(err error, bound netip.AddrPort) []byte
}

func (c *client) serve() {
	if c.settings.Kind == TCP {
		t := &c.settings.Target
		c.open(request{name: t.Name, dst: t.Dst})
		return
	}
	if c.settings.Handshake > 0 {
		_ = c.conn.SetReadDeadline(c.start.Add(c.settings.Handshake)) // a closed connection fails in the read
	}
	req, err := c.handshake()
	if err != nil {
		c.refuse(req, err)
		c.hangUp(req.answer != nil)
		return
	}
	_ = c.conn.SetReadDeadline(time.Time{}) // likewise
	c.open(req)
}

// open connects the client to what it asked for and relays until both have ended.
func (c *client) open(req request) {
	s := c.settings
	if err := c.enter(); err != nil {
		c.decline(req, err)
		return
	}
	defer c.leave()
	if req.udp {
		c.associate(req)
		return
	}

	ctx, cancel := context.WithCancelCause(c.listener.ctx)
	defer cancel(nil)
	stop := c.watch(cancel, req.answer == nil)
	reach := c.dial
	if req.bind {
		reach = c.awaitPeer
	}
	server, dec, err := reach(ctx, req)
	stop()
	if err != nil {
		c.declined(req, dec, cause(ctx, err))
		return
	}
	defer s.Shared.Descriptors.release()
	defer s.Dialer.Release(&dec)
	c.join(req, server, dec)
}

// dial opens the connection to the destination; with it goes one of the descriptors.
func (c *client) dial(ctx context.Context, req request) (*net.TCPConn, dialer.Decision, error) {
	s := c.settings
	if err := s.Shared.Descriptors.waitServer(ctx); err != nil {
		return nil, dialer.Decision{}, err
	}
	conn, dec, err := s.Dialer.DialFlow(ctx, c.flow(req))
	if err != nil {
		s.Shared.Descriptors.release()
		return nil, dec, err
	}
	return conn.(*net.TCPConn), dec, nil
}

// flow is what the rules may know of a request.
func (c *client) flow(req request) dialer.Flow {
	return dialer.Flow{
		Network:  "tcp",
		Dst:      req.dst,
		Name:     req.name,
		Client:   c.addr,
		Asked:    c.asked,
		User:     c.user,
		Session:  c.session,
		Listener: c.settings.Name,
	}
}

// cause prefers why ctx was cancelled to what the dial made of it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

// join answers the client, registers the flow and relays.
func (c *client) join(req request, server *net.TCPConn, dec dialer.Decision) {
	s := c.settings
	bound := addrPort(server.LocalAddr())
	info := c.info(req, dec)
	info.Dst, info.Src = addrPort(server.RemoteAddr()), bound
	flow := s.Shared.Flows.Open(info, func(error) {
		relay.Reset(c.conn)
		relay.Reset(server)
	})
	c.listener.release(c.conn)
	if src := s.Shared.Sources; src != nil && src.Lost(info.Source, bound.Addr()) {
		flow.Close(flows.ErrSourceDown) // it went just before the flow was there to be ended
	}
	flow.Done(c.relay(req, server, flow, bound))
}

// tuneAfter is how old a connection is when it gets its keepalive: a short one never
// pays for that.
const tuneAfter = 2 * time.Second

func (c *client) relay(req request, server *net.TCPConn, flow *flows.Flow, bound netip.AddrPort) error {
	s := c.settings
	tune := time.AfterFunc(tuneAfter, func() {
		_ = relay.TuneTCP(server, s.KeepAlive, s.User) // it fails on a connection that has ended
	})
	defer tune.Stop()
	if req.answer != nil {
		if req.bind {
			bound = addrPort(server.RemoteAddr()) // the second reply says who came
		}
		if _, err := c.conn.Write(req.answer(nil, bound)); err != nil {
			relay.Reset(c.conn)
			relay.Reset(server)
			return fmt.Errorf("reply: %w", err)
		}
	}
	return relay.Stream(c.conn, server, &relay.Options{
		Early:      c.buf,
		Up:         &flow.Up,
		Down:       &flow.Down,
		Idle:       s.Idle,
		HalfClosed: s.HalfClosed,
	})
}

// decline refuses a request before anything was decided.
func (c *client) decline(req request, err error) { c.declined(req, dialer.Decision{}, err) }

// declined tells the client and the log why there is no connection.
func (c *client) declined(req request, dec dialer.Decision, err error) {
	c.settings.Shared.Flows.Refuse(c.info(req, dec), c.start, err)
	if req.answer == nil {
		relay.Reset(c.conn) // a forward has no other way to say that it failed
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(lingering))
	_, err = c.conn.Write(req.answer(err, netip.AddrPort{}))
	c.hangUp(err == nil)
}

// refuse logs a client that asked for nothing that could be dialled.
func (c *client) refuse(req request, err error) {
	c.settings.Shared.Flows.Refuse(c.info(req, dialer.Decision{}), c.start, err)
}

func (c *client) info(req request, dec dialer.Decision) flows.Info {
	i := flows.Info{
		Listener: c.settings.Name,
		User:     c.user,
		Session:  c.session,
		Client:   c.addr,
		Network:  "tcp",
		Dst:      req.dst,
		Name:     req.name,
		Rule:     dec.Rule,
		Src:      netip.AddrPortFrom(dec.Addr, dec.Port),
	}
	if req.udp {
		i.Network, i.Name, i.Dst = "udp", "", netip.AddrPort{} // it has many
	}
	switch {
	case dec.Source != nil:
		i.Source = dec.Source.Name
	case dec.Use.Source != nil: // the only one there was, and it could not be used
		i.Source = dec.Use.Source.Name
	case dec.Use.Kernel:
		i.Source = "kernel"
	}
	return i
}

// lingering is how long a client gets to read an answer that ends its connection.
const lingering = 2 * time.Second

// hangUp closes the connection. After an answer it first takes what the client still
// sends: bytes left unread would make the kernel send a reset, which can overtake the
// answer.
func (c *client) hangUp(answered bool) {
	defer func() { _ = c.conn.Close() }() // the last use of it
	if !answered || c.conn.CloseWrite() != nil {
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(lingering))
	_, _ = io.CopyN(io.Discard, c.conn, 1<<20) // its end, its deadline and a flood all end it
}

// read waits for more of the handshake.
func (c *client) read(limit int) error {
	if len(c.buf) >= limit {
		return fmt.Errorf("%w: longer than %d bytes", errHandshake, limit)
	}
	if len(c.buf) == cap(c.buf) {
		c.buf = append(make([]byte, 0, max(firstRead, 2*cap(c.buf))), c.buf...)
	}
	n, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the client closed", errHandshake)
	}
	return fmt.Errorf("%w: %w", errHandshake, withoutOp(err))
}

// firstRead is what a silent client costs; every SOCKS message fits.
const firstRead = 600

// withoutOp drops the *net.OpError, which repeats the addresses the log line has.
func withoutOp(err error) error {
	if oe := (*net.OpError)(nil); errors.As(err, &oe) {
		return oe.Err
	}
	return err
}

// drop forgets n bytes that were used.
func (c *client) drop(n int) { c.buf = c.buf[n:] }
