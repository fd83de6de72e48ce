package pktinfo

import "golang.org/x/sys/unix"

// The error queue (IP_RECVERR). An ICMP error makes the next system call on
// the socket fail with its errno, whichever peer that call is about; a send
// that fails so has sent nothing. The call that fails takes the errno away, the
// entry in the queue stays and counts against the receive buffer. Hence the
// rules here: whoever sees an errno drains the queue and tries again; so does a
// writer whose sendmmsg(2) stopped half way, since the errno that stopped it was
// taken away and is not told.

// maxRetries bounds how often one call is tried again on account of errors
// that others caused. Each takes an ICMP error that came in between.
const maxRetries = 8

// drain takes entries off the queue and appends those that came by ICMP to
// es. Errors of this host, such as EMSGSIZE, are dropped: the call that they are
// about returned them.
func (c *Conn) drain(fd uintptr, es []SocketError) []SocketError {
	b := takeBatch()
	defer b.put()
	for i := range b.headers {
		b.vector(i, nil) // the payload is of no interest
		b.room(i)
	}
	n, errno := recvmmsg(fd, b.headers[:], unix.MSG_ERRQUEUE)
	if errno != 0 {
		return es
	}
	for i := range n {
		if e, ok := b.socketError(i); ok {
			if !e.Local.IsValid() {
				e.Local = c.source
			}
			es = append(es, e)
		}
	}
	return es
}

// socketError reads entry i; it is false for one that no ICMP error caused.
func (b *batch) socketError(i int) (SocketError, bool) {
	h := &b.headers[i].Hdr
	var m Message
	var e SocketError
	if err := parseControl(b.controls[i][:h.Controllen], &m, &e); err != nil || e.Err == nil {
		return SocketError{}, false
	}
	e.Peer = sockaddr(b.names[i][:min(int(h.Namelen), len(b.names[i]))])
	e.Local = m.Addr.Local
	return e, true
}

// report hands es to the callback. It is called with no lock held.
func (c *Conn) report(es []SocketError) {
	if c.onError == nil {
		return
	}
	for _, e := range es {
		c.onError(e)
	}
}
