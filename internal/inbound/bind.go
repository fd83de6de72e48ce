package inbound

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// bindWait is how long a BIND waits for its peer.
const bindWait = 2 * time.Minute

// awaitPeer serves BIND (RFC 1928 section 4): it listens on the source that the rules
// choose towards the peer, tells the client where, and returns the connection that the
// peer makes. Whoever else connects is let go again.
func (c *client) awaitPeer(ctx context.Context, req request) (*net.TCPConn, dialer.Decision, error) {
	s := c.settings
	if err := s.Shared.Descriptors.waitServer(ctx); err != nil {
		return nil, dialer.Decision{}, err
	}
	conn, dec, err := c.listenFor(ctx, req)
	if err != nil {
		s.Shared.Descriptors.release()
	}
	return conn, dec, err
}

func (c *client) listenFor(ctx context.Context, req request) (conn *net.TCPConn, dec dialer.Decision, err error) {
	ctx, cancel := context.WithTimeout(ctx, bindWait)
	defer cancel()
	l, peer, dec, err := c.settings.Dialer.ListenFlow(ctx, c.flow(req))
	if err != nil {
		return nil, dec, err
	}
	defer func() {
		_ = l.Close() // one peer is all it was for
		if err != nil {
			c.settings.Dialer.Release(&dec)
		}
	}()
	if src := c.settings.Shared.Sources; src != nil && dec.Source != nil {
		var done func()
		ctx, done = src.While(ctx, dec.Source.Name, dec.Addr)
		defer done()
	}
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.send(req.answer(nil, addrPort(l.Addr()))); err != nil {
		return nil, dec, err
	}
	conn, err = acceptFrom(l, peer)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("bind on %v: no peer came: %w", l.Addr(), context.Cause(ctx))
	}
	return conn, dec, err
}

// acceptFrom returns the first connection from peer.
func acceptFrom(l *net.TCPListener, peer netip.Addr) (*net.TCPConn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if addrPort(conn.RemoteAddr()).Addr() == peer {
			return conn, nil
		}
		_ = conn.Close() // a stranger
	}
}
