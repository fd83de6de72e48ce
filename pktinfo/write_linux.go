package pktinfo

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxJoined is the largest payload that one write may have: an IPv4 packet
	// less its headers. IPv6 would allow 20 bytes more.
	maxJoined = 65535 - 20 - 8
	// maxSegments is UDP_MAX_SEGMENTS of kernels before 6.9 (then 128).
	maxSegments = 64
)

// unset is what is not known.
var unset netip.AddrPort

// writer is one call that writes, pooled as reader is.
type writer struct {
	c       *Conn
	ms      []Message
	n       int // ms[:n] are sent
	off     int // and so much of ms[n], when it is sent in parts
	apart   int // so many from ms[n] on are not to be joined, nor left to UDP_SEGMENT
	joined  int // size of the datagrams that the kernel would not cut; 0 when it did
	retries int
	err     error
	one     [1]Message
	drained []SocketError
	write   func(fd uintptr) bool
}

var writers = sync.Pool{New: func() any {
	w := new(writer)
	w.write = w.tryWrite
	return w
}}

func takeWriter(c *Conn) *writer {
	w := writers.Get().(*writer)
	w.c = c
	return w
}

func (w *writer) put() {
	*w = writer{drained: w.drained[:0], write: w.write}
	writers.Put(w)
}

func (c *Conn) writeBatch(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	w := takeWriter(c)
	defer w.put()
	w.ms = ms
	err := w.run()
	return w.n, err
}

func (c *Conn) writeMsg(m *Message) error {
	_, err := c.writeBatch(unsafe.Slice(m, 1))
	return err
}

// writeOne is writeMsg for callers without a Message.
func (c *Conn) writeOne(p []byte, a Addr) (int, error) {
	w := takeWriter(c)
	defer w.put()
	w.one[0] = Message{Buf: p, N: len(p), Addr: a}
	w.ms = w.one[:]
	if err := w.run(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// run writes, and reports what was drained when no lock is held any more.
func (w *writer) run() error {
	err := w.c.raw.Write(w.write)
	if err == nil {
		err = w.err
	}
	if len(w.drained) > 0 {
		w.c.report(w.drained)
	}
	if err != nil {
		return w.c.writeError(w.ms[min(w.n, len(w.ms)-1)].Addr, err)
	}
	return nil
}

// tryWrite sends until all is sent or an error is final; it is false when the
// socket's buffer is full.
func (w *writer) tryWrite(fd uintptr) bool {
	b := takeBatch()
	defer b.put()
	for w.n < len(w.ms) {
		k, err := w.prepare(b)
		if k == 0 {
			w.err = err
			return true
		}
		sent, errno := sendmmsg(fd, b.headers[:k])
		w.advance(b, sent)
		switch {
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			if !w.again(fd, b, errno) {
				w.err = os.NewSyscallError("sendmmsg", errno)
				return true
			}
		case sent < k && w.c.errors:
			w.drain(fd)
		}
	}
	return true
}

// prepare fills headers from where w stands and returns how many. An error is
// about the message behind them.
func (w *writer) prepare(b *batch) (int, error) {
	if w.apart > 0 {
		return w.prepareApart(b)
	}
	return w.prepareJoined(b)
}

// advance counts what the first sent headers have brought.
func (w *writer) advance(b *batch, sent int) {
	if sent == 0 {
		return
	}
	w.retries = 0
	apart := w.apart > 0
	for i := range sent {
		switch d := int(b.done[i]); {
		case d == 0:
			w.off += w.ms[w.n].Segment
		default:
			w.n += d
			w.off = 0
			if apart {
				w.apart -= d
			}
		}
	}
	if w.joined > 0 {
		// What was refused as a whole went singly: it was too large to be cut.
		w.c.lowerJoinable(w.joined - 1)
		w.joined = 0
	}
}

// again tells whether the header that failed is worth another try, and
// prepares that.
func (w *writer) again(fd uintptr, b *batch, errno unix.Errno) bool {
	if w.c.errors && w.retries < maxRetries {
		w.retries++
		if w.drain(fd) || w.retries == 1 {
			return true
		}
	}
	if w.apart > 0 || !b.cut[0] {
		return false
	}
	switch errno {
	case unix.EINVAL, unix.EMSGSIZE: // larger than the MTU of this path
		w.joined = w.segment()
	case unix.EIO: // this path cannot (IPsec)
	default:
		return false
	}
	w.apart = int(b.done[0])
	return true
}

// segment is the size of the datagrams at which w stands.
func (w *writer) segment() int {
	if m := &w.ms[w.n]; m.Segment > 0 {
		return m.Segment
	}
	return w.ms[w.n].N
}

// drain takes entries off the error queue, and tells whether there were any.
func (w *writer) drain(fd uintptr) bool {
	n := len(w.drained)
	w.drained = w.c.drain(fd, w.drained)
	return len(w.drained) > n
}

// lowerJoinable notes that datagrams above n bytes are not to be joined.
func (c *Conn) lowerJoinable(n int) {
	for {
		old := c.joinable.Load()
		if int(old) <= n || c.joinable.CompareAndSwap(old, int32(n)) {
			return
		}
	}
}

var errLength = errors.New("length is not within the buffer")

// check returns what is wrong with m, if anything, and its source.
func (c *Conn) check(m *Message) (netip.Addr, error) {
	if m.N < 0 || m.N > len(m.Buf) || m.Segment < 0 {
		return netip.Addr{}, errLength
	}
	local, peer := m.Addr.Local, m.Addr.Peer.Addr().Unmap()
	if !peer.IsValid() {
		peer = c.peer.Addr()
	}
	switch {
	case !peer.IsValid():
		return netip.Addr{}, unix.EDESTADDRREQ
	case c.domain == unix.AF_INET && !peer.Is4():
		return netip.Addr{}, unix.EAFNOSUPPORT
	}
	if !local.IsValid() {
		if local = c.source; !local.IsValid() {
			return local, nil
		}
	}
	// The kernel would take the source of another family for none at all.
	if local = local.Unmap(); local.Is4() != peer.Is4() {
		return local, unix.EINVAL
	}
	return local, nil
}

// sendsIPv4 tells whether m is to leave as IPv4, on a socket of whichever family.
func (c *Conn) sendsIPv4(m *Message) bool {
	peer := m.Addr.Peer.Addr()
	if !peer.IsValid() {
		peer = c.peer.Addr()
	}
	return peer.Unmap().Is4()
}

// head fills header i for m, to be sent from iovec i on.
func (c *Conn) head(b *batch, i int, m *Message, local netip.Addr, segment int) error {
	h := &b.headers[i].Hdr
	*h = unix.Msghdr{Iov: &b.vectors[i]}
	if m.Addr.Peer.IsValid() {
		n, err := b.names[i].set(m.Addr.Peer, c.domain)
		if err != nil {
			return err
		}
		h.Name, h.Namelen = &b.names[i][0], n
	}
	ifIndex := 0
	if local.IsLinkLocalUnicast() && local.Is6() {
		ifIndex = m.Addr.IfIndex
	}
	p := AppendControl(b.controls[i][:0], local, ifIndex, segment)
	if p = appendClass(p, c.sendsIPv4(m), m.TrafficClass); len(p) > 0 {
		h.Control = &p[0]
		h.SetControllen(len(p))
	}
	h.SetIovlen(1)
	b.cut[i] = segment > 0
	return nil
}
