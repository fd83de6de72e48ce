package inbound

import (
	"context"
	"syscall"
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

// left waits until the client has gone, and is false when it was woken or when the
// client has sent something, which hides what comes after.
func (c *client) left(halfClose bool) (gone bool) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	var one [1]byte
	_ = raw.Read(func(fd uintptr) bool { // its error is the deadline that ends the watch
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err == syscall.EINTR:
			return false
		case err != nil:
			gone = true
		case n == 0:
			gone = !halfClose
			return true
		}
		return true
	})
	return gone
}
