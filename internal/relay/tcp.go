package relay

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAliveProbes go out keepAlive/3 apart, so that a dead idle peer is found
// after twice the keepAlive time.
const keepAliveProbes = 3

// TuneTCP sets when a peer that does not answer is given up: an idle one is
// probed after keepAlive and lost after twice that (rounded up to seconds; 0
// turns keepalive off), one that owes an acknowledgement is lost after
// userTimeout (TCP_USER_TIMEOUT, RFC 5482, milliseconds; 0: the kernel's
// tcp_retries2, a quarter of an hour). Both are needed: keepalive sends nothing
// while data is unacknowledged. The reads and writes of c then fail with
// ETIMEDOUT.
//
// userTimeout counts against a peer that keeps its window closed, too, though
// it answers every probe (Linux 5.11): it bounds how long a reader may pause.
//
// c is a *net.TCPConn, or a *net.TCPListener, whose connections inherit the options.
func TuneTCP(c syscall.Conn, keepAlive, userTimeout time.Duration) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("tcp options: %w", err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = tune(int(fd), keepAlive, userTimeout) }); err != nil {
		return fmt.Errorf("tcp options: %w", err)
	}
	return inner
}

func tune(fd int, keepAlive, userTimeout time.Duration) error {
	options := []option{
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ceil(userTimeout, time.Millisecond)},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, ceil(keepAlive, time.Second)},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, ceil(keepAlive/keepAliveProbes, time.Second)},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveProbes},
	}
	if keepAlive == 0 {
		options = options[:2]
		options[1].value = 0
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("setsockopt %s=%d: %w", o.text, o.value, err)
		}
	}
	return nil
}

// option is one setsockopt(2).
type option struct {
	text               string
	level, name, value int
}

// ceil returns d in units, rounded up, so that no limit becomes 0, which
// would mean none.
func ceil(d, unit time.Duration) int { return int((d + unit - 1) / unit) }
