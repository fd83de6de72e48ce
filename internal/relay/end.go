package relay

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// aLongTimeAgo is a deadline that unblocks at once.
var aLongTimeAgo = time.Unix(1, 0)

// end is one of the two connections.
type end struct {
	side Side
	conn net.Conn
	raw  syscall.RawConn // nil: only Read and Write of conn may be used
	tcp  bool
}

func newEnd(side Side, c net.Conn) end {
	_ = c.SetDeadline(time.Time{}) // a closed one fails at the first read
	e := end{side: side, conn: c}
	// The exact types only: a struct that embeds a *net.TCPConn may hold bytes
	// of the stream that its descriptor no longer has.
	switch c := c.(type) {
	case *net.TCPConn:
		e.raw, e.tcp = rawConn(c), true
	case *net.UnixConn:
		if c.LocalAddr().Network() == "unix" {
			e.raw = rawConn(c)
		}
	}
	return e
}

func rawConn(c syscall.Conn) syscall.RawConn {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // the plain path meets and reports the same fault
	}
	return raw
}

// socketError returns and clears the pending error of a socket, nil if none.
// A reset that arrives after an end of file stands there as EPIPE
// (net/ipv4/tcp_input.c, tcp_reset): it is called by its name here.
func socketError(fd int) error {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case v == 0:
		return nil
	case unix.Errno(v) == unix.EPIPE:
		return unix.ECONNRESET
	}
	return unix.Errno(v)
}

// acknowledged returns how many payload bytes the peer acknowledged and sent,
// as the kernel counts them (TCP_INFO, Linux 4.1), and 0 for what is not TCP.
// It moves while a slow reader empties a large send buffer, when no write can.
func (e *end) acknowledged() (n uint64) {
	if !e.tcp || e.raw == nil {
		return 0
	}
	// Both errors mean a closed socket, whose direction ends by itself.
	_ = e.raw.Control(func(fd uintptr) {
		if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = i.Bytes_acked + i.Bytes_received
		}
	})
	return n
}

// cause takes the *net.OpError off: Error says side and operation, and the
// addresses in its text must not reach a log that is to hold none.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
