package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/relay"
)

// Associator opens the relays of UDP associations. It is safe for concurrent use.
type Associator interface {
	// Associate returns a relay that is bound and does not serve yet. An error closes
	// what it has opened.
	Associate(ctx context.Context, a *Association) (Relay, error)
}

// Association is what a UDP ASSOCIATE (RFC 1928 section 4) asks for.
type Association struct {
	// Flow is what the rules may know of each datagram, without its destination.
	Flow dialer.Flow

	// Dialer returns what decides on a new destination: after a reload that is another.
	Dialer func() *dialer.Dialer

	// Local is the address that the client has connected to: datagrams are to be taken
	// there and nowhere else. A link-local one has its zone.
	Local netip.Addr

	// Port is the one that the client will send from; zero where it is not known.
	Port uint16
}

// Relay relays the datagrams of one client.
type Relay interface {
	// Addr returns the address that the client is to send to.
	Addr() netip.AddrPort
	// Serve starts to relay, and does not wait. The payload is counted in the flow.
	Serve(f *flows.Flow)
	// Close ends the relay and waits until nothing of it is left.
	Close() error
}

// relayDescriptors is how many descriptors a relay has: one on either side.
const relayDescriptors = 2

// associate serves UDP ASSOCIATE for as long as the client's connection lives (RFC 1928
// section 7). Datagrams do not end it, and neither does their absence.
func (c *client) associate(req request) {
	shared := c.settings.Shared
	for range relayDescriptors {
		if err := shared.Descriptors.waitServer(c.listener.ctx); err != nil {
			c.decline(req, err)
			return
		}
		defer shared.Descriptors.release()
	}
	r, err := c.openRelay(req.dst)
	if err != nil {
		c.decline(req, err)
		return
	}
	flow := shared.Flows.Open(c.info(req, dialer.Decision{}), func(error) { relay.Reset(c.conn) })
	c.listener.release(c.conn)
	r.Serve(flow)
	_, err = c.conn.Write(req.answer(nil, c.reachable(r.Addr())))
	if err == nil {
		err = c.awaitEnd()
	}
	err = errors.Join(err, r.Close())
	_ = c.conn.Close() // it has ended
	flow.Done(err)
}

// openRelay opens the relay on the address that the client has connected to.
func (c *client) openRelay(announced netip.AddrPort) (Relay, error) {
	f := c.flow(request{})
	f.Network = "udp"
	return c.settings.Associate.Associate(c.listener.ctx, &Association{
		Flow:   f,
		Dialer: func() *dialer.Dialer { return c.listener.settings.Load().Dialer },
		Local:  c.local(),
		Port:   c.announcedPort(announced),
	})
}

// local returns the address that the client has connected to, with its zone.
func (c *client) local() netip.Addr {
	if t, ok := c.conn.LocalAddr().(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return c.asked.Addr()
}

// announcedPort returns the port from which the client says it will send, or zero where
// that is not to be believed. Many clients say 0.0.0.0, the address that they have
// behind a NAT, which changes the port as well, or the end of their TCP connection.
func (c *client) announcedPort(a netip.AddrPort) uint16 {
	if a.Addr() != c.addr.Addr() || a.Port() == c.addr.Port() {
		return 0
	}
	return a.Port()
}

// reachable returns bound as the client can reach it: behind a NAT of the server, by
// the address that is advertised. A client on this host needs no NAT.
func (c *client) reachable(bound netip.AddrPort) netip.AddrPort {
	a := c.settings.Advertise
	if !a.IsValid() || a.Is4() != bound.Addr().Is4() || c.addr.Addr().IsLoopback() {
		return bound
	}
	return netip.AddrPortFrom(a, bound.Port())
}

// awaitEnd returns when the client ends its connection, nil if it did so in order. What
// it sends until then means nothing.
func (c *client) awaitEnd() error {
	var b [64]byte
	for {
		_, err := c.conn.Read(b[:])
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("control connection: %w", withoutOp(err))
		}
	}
}
