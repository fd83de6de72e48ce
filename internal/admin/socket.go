package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Paths returns where the socket is when the configuration does not say, the best place
// first.
func Paths(getenv func(string) string) []string {
	paths := []string{"/run/srcproxy/admin.sock"}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		paths = append(paths, filepath.Join(dir, "srcproxy", "admin.sock"))
	}
	return paths
}

// An InUseError says that a program that lives has the socket.
type InUseError struct {
	Path string
	PID  string // of that program; empty where it is not known
}

// Error names the program and the cure.
func (e *InUseError) Error() string {
	who := "another srcproxy"
	if e.PID != "" {
		who += " (pid " + e.PID + ")"
	}
	return fmt.Sprintf("admin socket %s: %s has it: stop that one, or give this one its own: [admin] socket = %q",
		e.Path, who, strings.TrimSuffix(e.Path, ".sock")+"2.sock")
}

// A Socket is a unix socket that only its owner and root can reach. Close removes it.
type Socket struct {
	*net.UnixListener
	path string
	lock *os.File
	once sync.Once // more than one owner may close it, and then it may be somebody else's
}

// Listen makes the socket path, and its directory, for the owner alone. A socket that a
// dead program has left is replaced; that of a live one is an *InUseError. A lock on a
// file beside the socket, which the kernel drops with the process, tells the two apart.
func Listen(path string) (*Socket, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	lock, err := lockFor(path)
	if err != nil {
		return nil, err
	}
	l, err := listen(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("admin socket: %w", err), unlock(lock))
	}
	return &Socket{UnixListener: l, path: path, lock: lock}, nil
}

// ListenFirst makes the first of several sockets that this user may make. The error says
// why there is none.
func ListenFirst(paths []string) (*Socket, error) {
	var errs []error
	for _, path := range paths {
		s, err := Listen(path)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
		if inUse := (*InUseError)(nil); errors.As(err, &inUse) {
			break // this user's program would be asked for at the next place in vain
		}
	}
	return nil, errors.Join(errs...)
}

// listen replaces what is left of a socket.
func listen(path string) (*net.UnixListener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there already, and is no socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Linux gives the file of a socket the mode that its descriptor has before bind(2):
	// there is no moment at which others could connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, inner)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// lockFor takes the lock of the socket path.
func lockFor(path string) (*os.File, error) {
	name := path + ".lock"
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("admin socket: %w", err)
		}
		held, err := take(f, path)
		if held && err == nil {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// take locks f and writes into it who we are. It is false for a file that its last owner
// has removed meanwhile: another one is to be made.
func take(f *os.File, path string) (held bool, err error) {
	if err := flock(f); errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := io.ReadAll(io.LimitReader(f, 20)) // it is for the message only
		return false, &InUseError{path, strings.TrimSpace(string(pid))}
	} else if err != nil {
		return false, fmt.Errorf("admin socket: lock %s: %w", f.Name(), err)
	}
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	if there, err := os.Lstat(f.Name()); err != nil || !os.SameFile(mine, there) {
		return false, nil
	}
	if err := f.Truncate(0); err != nil {
		return false, err
	}
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	return true, err
}

func flock(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) { inner = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	return errors.Join(err, inner)
}

// unlock removes the file of a lock, and with the descriptor goes the lock.
func unlock(f *os.File) error { return errors.Join(os.Remove(f.Name()), f.Close()) }

// Path returns where the socket is.
func (s *Socket) Path() string { return s.path }

// Close removes the socket; a second one does nothing. Connections that were accepted go
// on.
func (s *Socket) Close() (err error) {
	s.once.Do(func() { err = errors.Join(s.UnixListener.Close(), unlock(s.lock)) })
	return err
}
