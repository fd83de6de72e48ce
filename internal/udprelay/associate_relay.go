package udprelay

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/socks"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// ask relays ms[:n] of b, which came to the relay socket, to their destinations.
func (a *Association) ask(b *batch, n int) {
	s := requests{a: a, b: b, now: int64(a.engine.now())}
	for i := range n {
		m := b.ms[i]
		size := m.N
		if isJoined(&m) {
			size = m.Segment
		}
		for rest := m.Buf[:m.N]; ; {
			m.N = min(size, len(rest))
			m.Buf, rest = rest[:m.N], rest[m.N:]
			s.add(&m)
			if len(rest) == 0 {
				break
			}
		}
	}
	s.flush()
}

// requests are on their way to their destinations.
type requests struct {
	a   *Association
	b   *batch
	now int64
	of  [outSize]*destination
	n   int // of b.out

	// What the last one was: most of a batch go the same way.
	from   netip.AddrPort
	header []byte
	last   *destination
}

func (s *requests) add(m *pktinfo.Message) {
	d, payload := s.again(m)
	if d == nil {
		if d, payload = s.a.take(m); d == nil {
			return
		}
		s.from, s.header, s.last = m.Addr.Peer, m.Buf[:m.N-len(payload)], d
	}
	if s.n == outSize {
		s.flush()
	}
	d.last.Store(s.now)
	s.b.out[s.n] = pktinfo.Message{Buf: payload, N: len(payload), Addr: d.addr}
	s.of[s.n] = d
	s.n++
}

// again is take for a datagram with the header of the last one; else nil.
func (s *requests) again(m *pktinfo.Message) (*destination, []byte) {
	if s.last == nil || m.Truncated || m.Addr.Peer != s.from || !bytes.HasPrefix(m.Buf[:m.N], s.header) {
		return nil, nil
	}
	return s.last, m.Buf[len(s.header):m.N]
}

func (s *requests) flush() {
	s.a.send(s.b.out[:s.n], s.of[:s.n])
	s.n = 0
}

// take returns where the payload of m goes, or nil where it goes nowhere now.
func (a *Association) take(m *pktinfo.Message) (*destination, []byte) {
	drop := a.counts.drop
	if !a.isClient(&m.Addr) {
		drop(NotClient, 1)
		return nil, nil
	}
	if m.Truncated {
		drop(Truncated, 1)
		return nil, nil
	}
	b := m.Buf[:m.N]
	if d, payload := a.byHeader(b); d != nil {
		return d, payload
	}
	g, err := socks.ParseDatagram(b)
	if err != nil {
		drop(dropOf(err), 1)
		return nil, nil
	}
	if a.peer.Load() == nil {
		peer := m.Addr
		a.peer.Store(&peer)
	}
	if g.Dst.Name != "" {
		d := a.byName(&g)
		if d != nil {
			a.keepHeader(d.name, b[:len(b)-len(g.Payload)])
		}
		return d, g.Payload
	}
	return a.byAddress(g.Dst.Addr), g.Payload
}

// isClient tells whether a datagram came from the client: from the address of its TCP
// connection, and from its port once that is known (RFC 1928 section 7).
func (a *Association) isClient(from *pktinfo.Addr) bool {
	if peer := a.peer.Load(); peer != nil {
		return from.Peer == peer.Peer
	}
	port := a.settings.Port
	return from.Peer.Addr().WithZone("") == a.client && (port == 0 || from.Peer.Port() == port)
}

// byAddress returns the destination dst, or nil where the rules refuse it.
func (a *Association) byAddress(dst netip.AddrPort) *destination {
	a.mu.RLock()
	d := a.destinations[dst]
	a.mu.RUnlock()
	if d != nil {
		return d
	}
	q := a.settings.Flow
	q.Dst = dst
	return a.start(&q, nil)
}

// start decides on the address in q.
func (a *Association) start(q *dialer.Flow, name *associateName) *destination {
	began := time.Now()
	decider := a.settings.Dialer()
	dec := decider.Decide(*q)
	if dec.Err != nil {
		a.refuse(q, &dec, began, &dialer.RefusedError{Flow: *q, Decision: dec}, 1)
		return nil
	}
	d, err := retry(decider, q, &dec, func() (*destination, error) { return a.keep(a.admit(q, &dec, name)) })
	if err != nil {
		a.refuse(q, &dec, began, err, 1)
		return nil
	}
	return d
}

// send sends ms to the destinations of, with one call for each run that leaves by one
// socket. The order stays.
func (a *Association) send(ms []pktinfo.Message, of []*destination) {
	for len(ms) > 0 {
		k := 1
		for k < len(ms) && of[k].exit == of[0].exit {
			k++
		}
		a.deliver(of[0].exit.conn, ms[:k], of[:k], nil, up)
		ms, of = ms[k:], of[k:]
	}
}

// deliver writes ms to c; of are their destinations on the way up, and by the holes by
// which they came on the way down. One that cannot be sent does not stop those behind it.
func (a *Association) deliver(c *pktinfo.Conn, ms []pktinfo.Message, of []*destination, by []*hole, w way) {
	for i := range ms {
		ms[i].TrafficClass = a.settings.DSCP << 2
	}
	for len(ms) > 0 {
		n, err := c.WriteBatch(ms)
		n = min(n, len(ms))
		for i := range n {
			if w == up {
				of[i].traffic.relayed[up].Add(1)
				a.entry.Up.Add(int64(ms[i].N))
			} else {
				n := datagrams(&ms[i])
				by[i].traffic.relayed[down].Add(uint64(n))
				a.entry.Down.Add(int64(ms[i].N - n*headerOf(&ms[i])))
			}
		}
		if err == nil || n == len(ms) {
			return
		}
		a.counts.drop(Unsent, datagrams(&ms[n]))
		if w == up {
			a.unsent(of[n], err)
			of = of[n+1:]
		} else {
			by = by[n+1:]
		}
		ms = ms[n+1:]
	}
}

// headerOf is how long the header is with which m begins.
func headerOf(m *pktinfo.Message) int {
	if m.Buf[3] == 1 { // ATYP
		return headerIPv4
	}
	return headerIPv6
}

// drops are the reasons for which a client's datagram is malformed.
var drops = [...]struct {
	is     error
	reason Drop
}{
	{socks.ErrFragment, Fragment},
	{socks.ErrShort, Short},
	{socks.ErrAddressType, AddressType},
	{socks.ErrPort, PortZero},
	{socks.ErrUnspecified, Unspecified},
}

// dropOf returns the reason for an error of socks.ParseDatagram.
func dropOf(err error) Drop {
	for _, d := range drops {
		if errors.Is(err, d.is) {
			return d.reason
		}
	}
	return BadName
}
