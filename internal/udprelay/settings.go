package udprelay

import (
	"net/netip"
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// Settings of a forward. Set it anew with Forward.Set; it is not to be changed. The
// forwards of one listener share one.
type Settings struct {
	Name string // of the listener, in the log and in rules

	// Allow lists the clients that may start flows. Empty allows all.
	Allow []netip.Prefix

	// Limit is how many flows the listener may have, all its forwards together; the one
	// that has been idle for the longest time makes room for a new one. Zero means no
	// limit of its own.
	Limit int

	// Idle ends a flow without a datagram in either direction. Zero means 2 minutes.
	// Unlike the rest, a new value counts for live flows too.
	Idle time.Duration

	// Dialer decides, by Decide for an address and by Resolve and Decide for a name.
	Dialer *dialer.Dialer

	// Target is where the forward leads: Dst, or Name and the port of Dst. With port
	// zero it is the port that the client has asked.
	Target dialer.Flow

	// SourcePort fixes the port that datagrams leave from. Zero leaves it free, unless
	// the rule fixes it.
	SourcePort uint16

	// SamePort fixes it to the port that the client has asked; SourcePort is not used.
	SamePort bool

	// ShareSIP lets many clients use one fixed port towards the same peer. Which of
	// them a datagram from there is for is read from SIP (RFC 3261); nothing is changed
	// in it. Without it a second client is refused.
	ShareSIP bool

	// Inbound gets the calls that the peer starts and that are for no other client, on
	// a forward with ShareSIP. The zero AddrPort: nobody does.
	Inbound netip.AddrPort

	// InboundFrom is from where datagrams may come, on a forward with ShareSIP, besides
	// the address of Target (from any port).
	InboundFrom []netip.Prefix

	// DSCP marks what is sent to either side: 0 to 63 (RFC 2474).
	DSCP uint8
}

// sourcePort is the fixed port of flows that came to port; zero if it is free.
func (s *Settings) sourcePort(port uint16) uint16 {
	if s.SamePort {
		return port
	}
	return s.SourcePort
}

// class is the byte of the IP header in which the DSCP is.
func (s *Settings) class() uint8 { return s.DSCP << 2 }

// query returns what the rules are asked for flow k, that came to port.
func (s *Settings) query(k key, port uint16) dialer.Flow {
	q := s.Target
	q.Network = "udp"
	q.Listener = s.Name
	q.Client = k.from
	q.Asked = netip.AddrPortFrom(k.asked, port)
	if q.Dst.Port() == 0 {
		q.Dst = netip.AddrPortFrom(q.Dst.Addr(), port)
	}
	if a := q.Dst.Addr(); a.IsValid() {
		q.Dst = numericZone(netip.AddrPortFrom(a.Unmap(), q.Dst.Port()))
	}
	return q
}

// fixedRoute returns the way on which all flows of s that come to port leave, if
// their source port is fixed and source and target depend on nothing else; else nil.
// The error says why there is none now, where the port is fixed.
func (s *Settings) fixedRoute(port uint16) (*route, error) {
	q := s.query(key{}, port)
	fixed := s.sourcePort(port)
	if fixed == 0 || !q.Dst.Addr().IsValid() {
		return nil, nil
	}
	dec := s.Dialer.Decide(q)
	if dec.Use.Same {
		return nil, nil // no client has asked for an address yet
	}
	if dec.Err != nil {
		return nil, dec.Err
	}
	if dec.Use.Pool != nil || dec.Source != nil && len(dec.Source.Addrs) == 0 && dec.Source.Interface == "" {
		return nil, nil
	}
	return routeOf(&dec, q.Dst, fixed), nil
}

// allows tells whether a client may start flows.
func (s *Settings) allows(client netip.Addr) bool {
	return len(s.Allow) == 0 || contains(s.Allow, client)
}

// contains tells whether a is within one of ps. A prefix contains no address with a
// zone, so that is left out.
func contains(ps []netip.Prefix, a netip.Addr) bool {
	a = a.WithZone("")
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}
