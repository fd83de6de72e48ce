package pktinfo

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reader is one call that reads. It is pooled together with the func values
// for RawConn.Read, which would else be allocated for each call.
type reader struct {
	c       *Conn
	ms      []Message
	n       int
	err     error
	again   bool // go on after reporting what was drained
	ready   bool // do not wait
	retries int  // errors of others, one after another
	one     [1]Message
	drained []SocketError
	read    func(fd uintptr) bool
	wait    func(fd uintptr) bool
}

var readers = sync.Pool{New: func() any {
	r := new(reader)
	r.read, r.wait = r.tryRead, r.tryWait
	return r
}}

func takeReader(c *Conn) *reader {
	r := readers.Get().(*reader)
	r.c = c
	return r
}

func (r *reader) put() {
	*r = reader{drained: r.drained[:0], read: r.read, wait: r.wait}
	readers.Put(r)
}

func (c *Conn) readBatch(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	r := takeReader(c)
	defer r.put()
	r.ms = ms
	err := r.run(r.read)
	return r.n, err
}

func (c *Conn) readReady(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	r := takeReader(c)
	defer r.put()
	r.ms, r.ready = ms, true
	err := r.run(r.read)
	return r.n, err
}

func (c *Conn) waitRead() error {
	r := takeReader(c)
	defer r.put()
	return r.run(r.wait)
}

func (c *Conn) readMsg(m *Message) error {
	_, err := c.readBatch(unsafe.Slice(m, 1))
	return err
}

// readOne is readMsg for callers without a Message.
func (c *Conn) readOne(p []byte) (int, Addr, error) {
	r := takeReader(c)
	defer r.put()
	r.one[0].Buf = p
	r.ms = r.one[:]
	err := r.run(r.read)
	return r.one[0].N, r.one[0].Addr, err
}

// run calls f in RawConn.Read until it has a result. It comes out to report
// what was drained, so that no lock is held meanwhile.
func (r *reader) run(f func(fd uintptr) bool) error {
	for {
		r.again = false
		err := r.c.raw.Read(f)
		if len(r.drained) > 0 {
			r.c.report(r.drained)
			r.drained = r.drained[:0]
		}
		switch {
		case err != nil:
			return r.c.readError(err)
		case r.err != nil:
			return r.c.readError(r.err)
		case !r.again:
			return nil
		}
	}
}

// tryRead reads what is there; it is false when there is nothing.
func (r *reader) tryRead(fd uintptr) bool {
	b := takeBatch()
	k := min(len(r.ms), batchSize)
	defer b.put()
	for i := range k {
		b.vector(i, r.ms[i].Buf)
		b.room(i)
	}
	n, errno := recvmmsg(fd, b.headers[:k], 0)
	switch {
	case errno == 0:
		for i := range n {
			b.message(i, &r.ms[i])
		}
		r.n = n
		return true
	case errno == unix.EAGAIN && r.ready:
		if r.c.errors {
			r.drained = r.c.drain(fd, r.drained) // they, too, keep the socket from resting
		}
		return true
	case errno == unix.EAGAIN:
		return false
	case r.c.errors && r.retries < maxRetries:
		r.retries++
		r.drain(fd)
		r.again = true
		return true
	}
	r.err = os.NewSyscallError("recvmmsg", errno)
	return true
}

// tryWait is tryRead without the reading.
func (r *reader) tryWait(fd uintptr) bool {
	data, failed, err := readable(fd)
	switch {
	case err != nil:
		r.err = os.NewSyscallError("ppoll", err)
		return true
	case failed && r.c.errors && r.drain(fd):
		return true
	}
	return data || failed
}

// drain takes entries off the error queue, and tells whether there were any.
func (r *reader) drain(fd uintptr) bool {
	if r.drained = r.c.drain(fd, r.drained); len(r.drained) == 0 {
		return false
	}
	r.retries = 0
	r.again = true
	return true
}

// message sets m from header i. The control messages are the kernel's own, so
// that an error cannot be; were there one, Local would be unknown.
func (b *batch) message(i int, m *Message) {
	h := &b.headers[i]
	m.N = int(h.Len)
	m.Addr = Addr{Peer: sockaddr(b.names[i][:min(int(h.Hdr.Namelen), len(b.names[i]))])}
	m.OrigDst, m.Segment, m.TrafficClass = unset, 0, 0
	m.Truncated = h.Hdr.Flags&unix.MSG_TRUNC != 0
	if err := parseControl(b.controls[i][:h.Hdr.Controllen], m, nil); err != nil {
		m.Addr.Local = unset.Addr()
	}
}
