package dialer

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket options that x/sys does not name.
const ipLocalPortRange = 51 // IP_LOCAL_PORT_RANGE, Linux 6.3: low port in the low half, high port in the high half

// prepare sets the options that decide which address and port the socket may be bound
// to. It runs before the bind.
func prepare(c syscall.RawConn, dec *Decision) error {
	return control(c, func(fd int) error {
		if err := prepareAddr(fd, dec); err != nil {
			return err
		}
		return preparePort(fd, dec)
	})
}

// prepareListen is prepare for a socket that listens, whose port the bind takes.
func prepareListen(c syscall.RawConn, dec *Decision) error {
	return control(c, func(fd int) error { return prepareAddr(fd, dec) })
}

func prepareAddr(fd int, dec *Decision) error {
	if dec.Source == nil || !dec.Source.freeBind() {
		return nil
	}
	return setInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1) // works on IPv6 sockets too
}

func preparePort(fd int, dec *Decision) error {
	if dec.Port != 0 {
		// A port that is still in TIME_WAIT towards this very destination may be bound again.
		return setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if !dec.Ports.IsZero() {
		if err := withinSysctl(dec.Ports); err != nil {
			return err
		}
		if err := setInt(fd, unix.IPPROTO_IP, ipLocalPortRange, int(dec.Ports.Hi)<<16|int(dec.Ports.Lo)); err != nil {
			return err
		}
	}
	// Linux 4.2. Without it bind(2) takes a port for all destinations together, and a
	// source has 28 000 connections in all instead of 28 000 for each destination.
	return setInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}

// withinSysctl refuses ports that the kernel would silently ignore.
func withinSysctl(r PortRange) error {
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var lo, hi uint16
	if _, err := fmt.Sscan(string(text), &lo, &hi); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if r.Lo < lo || r.Hi > hi {
		return fmt.Errorf("%w: ports %v are outside net.ipv4.ip_local_port_range %s; widen it: sysctl -w net.ipv4.ip_local_port_range=%q",
			ErrPorts, r, strings.Join(strings.Fields(string(text)), "-"), fmt.Sprintf("%d %d", min(lo, r.Lo), max(hi, r.Hi)))
	}
	return nil
}

func setInt(fd, level, option, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
}

// control runs f on the descriptor of c and returns whichever error there was.
func control(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
