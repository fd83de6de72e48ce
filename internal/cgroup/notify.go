package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// notifier is an inotify(7) instance. One goroutine uses it.
type notifier struct {
	ctx  context.Context
	file *os.File
	stop func() bool
	buf  []byte
}

// newNotifier returns a notifier whose waits end with ctx.
func newNotifier(ctx context.Context) (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	n := &notifier{ctx: ctx, file: os.NewFile(uintptr(fd), "inotify"), buf: make([]byte, 16<<10)}
	n.stop = context.AfterFunc(ctx, func() { _ = n.file.Close() }) // which ends the read
	return n, nil
}

// add asks for events of a path. One that is watched already is not watched twice.
func (n *notifier) add(path string, events uint32) error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		_, inner = unix.InotifyAddWatch(int(fd), path, events)
	})
	if errors.Is(inner, unix.ENOSPC) {
		inner = fmt.Errorf("%w: the user watches too many files; as root: sysctl -w fs.inotify.max_user_watches=524288", inner)
	}
	if inner != nil {
		inner = &os.PathError{Op: "inotify_add_watch", Path: path, Err: inner}
	}
	return errors.Join(err, inner)
}

// wait returns when something has happened since it last returned, or with the reason
// why ctx is done. What has happened the caller finds out by looking: events that
// were lost (IN_Q_OVERFLOW) are then no loss.
func (n *notifier) wait() error {
	_, err := n.file.Read(n.buf)
	if n.ctx.Err() != nil {
		return context.Cause(n.ctx)
	}
	return err
}

func (n *notifier) close() {
	n.stop()
	_ = n.file.Close() // closed already when ctx is done
}
