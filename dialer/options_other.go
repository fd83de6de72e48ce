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
