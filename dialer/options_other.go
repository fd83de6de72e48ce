//go:build !linux

package dialer

import (
	"errors"
	"fmt"
	"syscall"
)

// prepare refuses every source: this system cannot bind one as the package promises.
func prepare(_ syscall.RawConn, dec *Decision) error {
	if !dec.Addr.IsValid() {
		return nil
	}
	return fmt.Errorf("source %v: %w", dec.Addr, errors.ErrUnsupported)
}

func prepareListen(c syscall.RawConn, dec *Decision) error { return prepare(c, dec) }

// Control refuses a Device and a Mark: this system knows neither.
func (s *Source) Control(_, _ string, _ syscall.RawConn) error {
	if s.Device == "" && s.Mark == 0 {
		return nil
	}
	return fmt.Errorf("source %q: device and mark: %w", s.Name, errors.ErrUnsupported)
}

func systemPorts() (PortRange, error) { return PortRange{}, errors.ErrUnsupported }
