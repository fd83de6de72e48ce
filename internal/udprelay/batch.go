package udprelay

import (
	"runtime"

	"github.com/srcproxy/srcproxy/pktinfo"
)

const (
	// batchSize is how many datagrams are read and written at once; more did not pay
	// (Linux 6.18, 200 bytes).
	batchSize = 32
	// outSize is how many leave at once: as many as UDP_SEGMENT joins.
	outSize = 64
	// bufferSize is more than any datagram has, 65 507 bytes over IPv4 and 65 527 over
	// IPv6, and than several have that came as one, with room for a header before it.
	bufferSize = 1<<16 + 1<<12
)

// maxBatches bounds the batches in use. Hundreds of owners may have answers for one
// forward at once, and its socket takes one write after the other.
func maxBatches() int { return max(16, 2*runtime.GOMAXPROCS(0)) }

// batch is the room for one read and for the writes that it leads to. Readers take
// one when there is something to read; of its 2 MiB only the touched pages are used.
// Where senders use UDP_SEGMENT a message may be several datagrams (UDP_GRO), and is
// relayed as it is.
type batch struct {
	ms    [batchSize]pktinfo.Message
	flows [batchSize]*flow // to which ms belong; nil: not to be sent
	legs  [batchSize]leg   // by which ms go, if it is set before send: not by the flow's own
	out   [outSize]pktinfo.Message
	of    [batchSize]*flow // to which out belong
	room  []byte           // for headers between datagrams that came as one; nil: not needed yet
	used  int              // so many of each are to be cleared
}

// takeBatch waits while too many are in use.
func (e *Engine) takeBatch() *batch {
	e.inUse <- struct{}{}
	if b, ok := e.batches.Get().(*batch); ok {
		return b
	}
	b := new(batch)
	room := make([]byte, batchSize*bufferSize)
	for i := range b.ms {
		b.ms[i].Buf = room[i*bufferSize : (i+1)*bufferSize : (i+1)*bufferSize]
	}
	return b
}

// clear makes b ready for another read.
func (b *batch) clear() {
	clear(b.flows[:b.used])
	clear(b.legs[:b.used])
	clear(b.of[:b.used])
	b.used = 0
}

func (e *Engine) putBatch(b *batch) {
	b.clear()
	e.batches.Put(b)
	<-e.inUse
}

// receive gives what comes in on c to relay, until c is closed.
func (e *Engine) receive(c *pktinfo.Conn, relay func(b *batch, n int)) {
	for {
		err := c.WaitRead()
		if err == nil {
			err = e.receiveBatch(c, relay)
		}
		if err != nil && !e.survives(c, err) {
			return
		}
	}
}

func (e *Engine) receiveBatch(c *pktinfo.Conn, relay func(b *batch, n int)) error {
	b := e.takeBatch()
	defer e.putBatch(b)
	n, err := c.ReadBatch(b.ms[:])
	if err != nil {
		return err
	}
	b.used = n
	relay(b, n)
	return nil
}

// datagrams is how many m is.
func datagrams(m *pktinfo.Message) int {
	if !isJoined(m) {
		return 1
	}
	return (m.N + m.Segment - 1) / m.Segment
}

// isJoined tells whether m is several datagrams.
func isJoined(m *pktinfo.Message) bool { return m.Segment > 0 && m.N > m.Segment }

// apart calls relay for each datagram of m, which came as one. It is for the few that
// look into them: SIP phones do not send so.
func apart(m *pktinfo.Message, relay func(b *batch, n int)) {
	b := new(batch)
	for p := range m.Segments() {
		b.ms[0] = *m
		b.ms[0].Buf, b.ms[0].N, b.ms[0].Segment = p, len(p), 0
		b.used = 1
		relay(b, 1)
		b.clear()
	}
}

// way is a direction.
type way int

const (
	up   way = iota // from the client to its peer
	down            // from the peer to the client
)

// send sends those of ms[:n] that have a flow, with one call for each socket. The
// order within a flow stays.
func (b *batch) send(e *Engine, n int, w way) {
	for i := range n {
		if fl := b.flows[i]; fl != nil && b.legs[i].conn == nil {
			b.legs[i] = fl.leg(w)
		}
	}
	for i := range n {
		if b.flows[i] == nil {
			continue
		}
		c := b.legs[i].conn
		k := 0
		for j := i; j < n; j++ {
			fl := b.flows[j]
			if fl == nil {
				continue
			}
			l := &b.legs[j]
			if l.conn != c {
				continue
			}
			b.flows[j] = nil
			b.out[k], b.of[k] = b.ms[j], fl
			b.out[k].Addr, b.out[k].TrafficClass = l.addr, l.class
			k++
		}
		e.deliver(c, b.out[:k], b.of[:k], w)
	}
}

// deliver sends ms, which belong to the flows of. One that cannot be sent does not
// stop those behind it.
func (e *Engine) deliver(c *pktinfo.Conn, ms []pktinfo.Message, of []*flow, w way) {
	for len(ms) > 0 {
		n, err := c.WriteBatch(ms)
		n = min(n, len(ms))
		for i := range n {
			of[i].sent(w, &ms[i])
		}
		if err == nil || n == len(ms) {
			return
		}
		of[n].unsent(w, err, datagrams(&ms[n]))
		ms, of = ms[n+1:], of[n+1:]
	}
}
