package inbound

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// A dial that takes longer than this is worth a look at whether the client still waits.
const patience = 200 * time.Millisecond

// watch cancels the dial when the client goes away meanwhile; the function it returns
// ends the watch. A client that has sent its payload ahead may shut down its side and
// still wait for the answer, and so may every client of a forward, which needs to say
// nothing (halfClose); for them only a reset counts.
func (c *client) watch(cancel context.CancelCauseFunc, halfClose bool) (stop func()) {
	done := make(chan struct{})
	timer := time.AfterFunc(patience, func() {
		defer close(done)
		if c.left(halfClose || len(c.buf) > 0) {
			cancel(errGone)
		}
	})
	return func() {
		if timer.Stop() {
			return
		}
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // wakes left
		<-done
		_ = c.conn.SetReadDeadline(time.Time{})
	}
}

// left waits until the client has gone, and is false when it was woken.
func (c *client) left(halfClose bool) (gone bool) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Read(func(fd uintptr) bool { // its error is the deadline that ends the watch
		gone = isGone(int(fd), halfClose)
		return gone
	})
	return gone
}

// isGone looks at the state of the connection: a read would not see a reset behind
// bytes that nobody has taken yet.
func isGone(fd int, halfClose bool) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	switch {
	case err != nil:
		return false
	case info.State == unix.BPF_TCP_CLOSE: // reset, or given up
		return true
	case info.State != unix.BPF_TCP_CLOSE_WAIT || halfClose:
		return false
	}
	var one [1]byte
	n, _, err := unix.Recvfrom(fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil // a FIN, and nothing before it
}
