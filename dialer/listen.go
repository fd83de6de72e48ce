package dialer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
)

// ListenFlow opens a TCP listener for a connection that comes back: on the address
// from which the rules would let f leave, where f's Dst or Name is who is to connect.
// It returns that one's address too, the first of a Name's that the rules let through;
// whether it is the one who connects, the caller checks. The listener has a port of the
// source's Ports, or the rule's fixed port. Errors are those of DialFlow, as is the place
// of the Limiter.
func (d *Dialer) ListenFlow(ctx context.Context, f Flow) (*net.TCPListener, netip.Addr, Decision, error) {
	flows := []Flow{f}
	if !f.Dst.Addr().IsValid() {
		var dec Decision
		var err error
		if flows, dec, err = d.Resolve(ctx, f); err != nil {
			return nil, netip.Addr{}, dec, opError(&f, &dec, err)
		}
	}
	var failed attempts
	var first Decision
	for i := range flows {
		l, dec, err := d.listenFor(ctx, &flows[i])
		if err == nil {
			return l, flows[i].Dst.Addr(), dec, nil
		}
		if i == 0 {
			first = dec
		}
		failed = append(failed, err)
	}
	return nil, netip.Addr{}, first, opError(&f, &first, failed)
}

// listenFor listens for one peer.
func (d *Dialer) listenFor(ctx context.Context, f *Flow) (*net.TCPListener, Decision, error) {
	f.Dst = netip.AddrPortFrom(f.Dst.Addr().Unmap(), f.Dst.Port())
	dec := d.decide(f, nil)
	if dec.Err != nil {
		return nil, dec, &RefusedError{*f, dec}
	}
	local := dec.Addr
	if !local.IsValid() {
		var err error
		if local, err = kernelSource(ctx, f.Dst); err != nil {
			return nil, dec, err
		}
	}
	if err := d.Enter(&dec); err != nil {
		return nil, dec, refused(f, &dec, err)
	}
	l, err := d.listenOn(ctx, local, &dec)
	if err == nil {
		return l, dec, nil
	}
	d.Release(&dec)
	if reason := localReason(f, &dec, err); reason != nil {
		dec.Err = reason
		return nil, dec, &RefusedError{*f, dec}
	}
	return nil, dec, err
}

// kernelSource returns the address that the routing table chooses towards dst. It
// sends nothing.
func kernelSource(ctx context.Context, dst netip.AddrPort) (netip.Addr, error) {
	port := max(dst.Port(), 1) // connect(2) wants one
	c, err := new(net.Dialer).DialUDP(ctx, "udp", netip.AddrPort{}, netip.AddrPortFrom(dst.Addr(), port))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }() // it has told its address
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// listenOn listens on one of the ports that dec leaves.
func (d *Dialer) listenOn(ctx context.Context, local netip.Addr, dec *Decision) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if d.Control != nil {
			if err := d.Control(network, address, c); err != nil {
				return err
			}
		}
		return prepareListen(c, dec)
	}}
	lc.SetMultipathTCP(false)
	first, n := int(dec.Port), 1
	if dec.Port == 0 && !dec.Ports.IsZero() {
		first, n = int(dec.Ports.Lo), int(dec.Ports.Hi)-int(dec.Ports.Lo)+1
	}
	start := rand.IntN(n)
	var err error
	for i := range n {
		port := uint16(first + (start+i)%n)
		var l net.Listener
		l, err = lc.Listen(ctx, "tcp", netip.AddrPortFrom(local, port).String())
		if err == nil {
			return l.(*net.TCPListener), nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("listen on %v: %w", local, err)
}
