package dialer

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// localReason says why the source itself could not be used, or returns nil when the
// failure came from somewhere else.
func localReason(f *Flow, dec *Decision, err error) error {
	switch {
	case dec.Source == nil:
		return nil
	case errors.Is(err, ErrPorts), errors.Is(err, ErrSourceDown):
		return err
	case inBind(err) && errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: source %q: %v is not on this host: %w", ErrSourceDown, dec.Source.Name, dec.Addr, syscall.EADDRNOTAVAIL)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("%w: source %q has none left from %v to %v%s: %w", ErrPorts, dec.Source.Name, dec.Addr, f.Dst, portsHint(dec), errno(err))
	}
	return nil
}

// inBind reports whether it was bind(2) that failed.
func inBind(err error) bool {
	var se *os.SyscallError
	return errors.As(err, &se) && se.Syscall == "bind"
}

// portsHint names the ports that were there to choose from, which are as many as one
// address can have connections to one destination, and how there can be more.
func portsHint(dec *Decision) string {
	switch {
	case dec.Port != 0:
		return fmt.Sprintf(", as port %d is in use", dec.Port)
	case !dec.Ports.IsZero():
		return fmt.Sprintf(": all %d of its ports %v are in use; widen them, or add addresses (a range, or a pool)", dec.Ports.Len(), dec.Ports)
	}
	all, err := systemPorts()
	if err != nil {
		return ""
	}
	return fmt.Sprintf(`: all %d ports of net.ipv4.ip_local_port_range, %v, are in use; add addresses (a range, or a pool), or widen it: sysctl -w net.ipv4.ip_local_port_range="1024 65535"`, all.Len(), all)
}

// errno returns the system call's error in err, without the operations around it.
func errno(err error) error {
	if n := syscall.Errno(0); errors.As(err, &n) {
		return n
	}
	return err
}
