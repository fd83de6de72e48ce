package udprelay

import (
	"github.com/srcproxy/srcproxy/internal/socks"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// The lengths of a header with an address (RFC 1928 section 7).
const (
	headerIPv4 = 4 + 4 + 2
	headerIPv6 = 4 + 16 + 2
)

// serve brings answers to the client until the socket is closed.
func (x *exit) serve() {
	e := x.association.engine
	for {
		err := x.conn.WaitRead()
		if err == nil {
			err = x.receive()
		}
		if err != nil && !e.survives(x.conn, err) {
			return
		}
	}
}

// receive relays what is there now. The headers are written in front of the datagrams,
// where room is left for them: what does not fit into a buffer then would not fit into
// a datagram with its header either.
func (x *exit) receive() error {
	a := x.association
	b := a.engine.takeBatch()
	defer a.engine.putBatch(b)
	for i := range b.ms {
		b.out[i].Buf = b.ms[i].Buf
		b.ms[i].Buf = b.ms[i].Buf[headerIPv6:]
	}
	n, err := x.conn.ReadBatch(b.ms[:])
	for i := range b.ms {
		b.ms[i].Buf = b.out[i].Buf
	}
	if err != nil {
		return err
	}
	var by [batchSize]*hole
	x.admit(b, n, &by)
	if peer := a.peer.Load(); peer != nil {
		x.relay(b, n, &by, peer)
	}
	return nil
}

// admit finds the holes by which ms[:n] come in. It counts those that the filter does
// not let in.
func (x *exit) admit(b *batch, n int, by *[batchSize]*hole) {
	a := x.association
	now := int64(a.engine.now())
	a.mu.RLock()
	defer a.mu.RUnlock()
	for i := range n {
		m := &b.ms[i]
		h := x.holeFor(&m.Addr)
		switch {
		case h == nil:
			a.counts.drop(Stranger, datagrams(m))
			continue
		case m.Truncated:
			a.counts.drop(Truncated, datagrams(m))
			continue
		}
		h.last.Store(now)
		by[i] = h
	}
}

// answers are on their way to the client.
type answers struct {
	a    *Association
	b    *batch
	to   *pktinfo.Addr
	by   [outSize]*hole
	n    int // of b.out
	used int // of b.room
}

// relay sends those of ms[:n] to the client that have a hole.
func (x *exit) relay(b *batch, n int, by *[batchSize]*hole, client *pktinfo.Addr) {
	s := answers{a: x.association, b: b, to: client}
	for i := range n {
		switch {
		case by[i] == nil:
		case isJoined(&b.ms[i]):
			m := &b.ms[i]
			s.copy(m, m.Buf[headerIPv6:headerIPv6+m.N], by[i])
		default:
			m := b.ms[i]
			wrap(&m)
			s.add(&m, by[i])
		}
	}
	s.flush()
}

func (s *answers) add(m *pktinfo.Message, h *hole) {
	if s.n == outSize {
		s.flush()
	}
	m.Addr = *s.to
	s.b.out[s.n], s.by[s.n] = *m, h
	s.n++
}

func (s *answers) flush() {
	s.a.deliver(s.a.relay, s.b.out[:s.n], nil, s.by[:s.n], down)
	s.n, s.used = 0, 0
}

// roomSize is for four writes with UDP_SEGMENT.
const roomSize = 4 * maxJoined

// maxJoined is the payload of the longest write over IPv4, and maxJoinedSegments how
// many datagrams pktinfo joins.
const (
	maxJoined         = 65507
	maxJoinedSegments = 64
)

// copy copies the datagrams of m, whose payload is b, each behind its header, and adds
// them as they came: joined. It is for those before which there is no room.
func (s *answers) copy(m *pktinfo.Message, b []byte, h *hole) {
	if s.b.room == nil {
		s.b.room = make([]byte, roomSize)
	}
	size := m.Segment
	if !isJoined(m) {
		size = m.N
	}
	each := lengthFor(m) + size
	most := max(1, min(maxJoinedSegments, maxJoined/each)) * size
	for {
		part := b[:min(most, len(b))]
		b = b[len(part):]
		if s.used+maxJoined > roomSize || s.n == outSize {
			s.flush()
		}
		out := s.b.room[s.used:s.used]
		for {
			n := min(size, len(part))
			out = append(socks.AppendDatagram(out, socks.Addr{Addr: m.Addr.Peer}, nil), part[:n]...)
			if part = part[n:]; len(part) == 0 {
				break
			}
		}
		s.used += len(out)
		s.add(&pktinfo.Message{Buf: out, N: len(out), Segment: each}, h)
		if len(b) == 0 {
			return
		}
	}
}

// lengthFor is how long the header is that m gets.
func lengthFor(m *pktinfo.Message) int {
	if m.Addr.Peer.Addr().Is6() {
		return headerIPv6
	}
	return headerIPv4
}

// wrap puts the header with m's true source before its payload, which begins where the
// longest header would end.
func wrap(m *pktinfo.Message) {
	header := lengthFor(m)
	m.Buf = m.Buf[headerIPv6-header:]
	socks.AppendDatagram(m.Buf[:0], socks.Addr{Addr: m.Addr.Peer}, nil)
	m.N += header
	m.Segment = 0 // it is one
}
