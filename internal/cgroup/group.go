package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Group is one cgroup, held open. It stays the same cgroup when another is made with
// its name. Its methods are safe for concurrent use, but for Close.
type Group struct {
	path string
	dir  *os.File
	id   uint64
}

// Open opens the cgroup of a directory.
func Open(path string) (*Group, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	g := &Group{path: path, dir: dir}
	var kind unix.Statfs_t
	if err := unix.Fstatfs(g.FD(), &kind); err != nil {
		return nil, errors.Join(&os.PathError{Op: "statfs", Path: path, Err: err}, dir.Close())
	}
	if kind.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, errors.Join(fmt.Errorf("%s is no cgroup v2", path), dir.Close())
	}
	info, err := dir.Stat()
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	g.id = inode(info)
	return g, nil
}

// Create makes a cgroup below parent, whose name begins with prefix and ends with
// what makes it unique, and locks it (flock(2)) for as long as it is open. The lock is
// how Sweep tells which have an owner.
func Create(parent, prefix string) (*Group, error) {
	path, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	g, err := Open(path)
	if err == nil {
		err = g.dir.Chmod(0o755) // as the kernel's other cgroups
	}
	if err != nil {
		return nil, errors.Join(err, unix.Rmdir(path))
	}
	if err := unix.Flock(g.FD(), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), g.Remove(), g.Close())
	}
	return g, nil
}

// Sweep removes the empty cgroups below parent that Create made with this prefix and
// whose owner has ended without doing so, as far as this user may.
func Sweep(parent, prefix string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			errs = append(errs, sweep(filepath.Join(parent, e.Name())))
		}
	}
	return errors.Join(errs...)
}

func sweep(path string) error {
	g, err := Open(path)
	if err != nil {
		return gone(err)
	}
	defer func() { _ = g.Close() }() // a directory that was only read
	if populated, err := g.Populated(); err != nil || populated {
		return gone(err)
	}
	if unix.Flock(g.FD(), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // it has an owner
	}
	err = g.Remove()
	if errors.Is(err, unix.EBUSY) || errors.Is(err, fs.ErrPermission) {
		return nil // somebody went in, or it is another user's
	}
	return err
}

// gone returns err unless it says that the cgroup is not there any more.
func gone(err error) error {
	if Gone(err) {
		return nil
	}
	return err
}

// Gone reports whether an error says that a cgroup is not there any more.
func Gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// Path returns the directory.
func (g *Group) Path() string { return g.path }

// FD returns the descriptor of the directory, for clone3(2) and bpf(2). It is valid
// until Close.
func (g *Group) FD() int { return int(g.dir.Fd()) }

// ID returns the kernel's number of the cgroup. No other has it, also later.
func (g *Group) ID() uint64 { return g.id }

// Exists reports whether the directory still is this cgroup.
func (g *Group) Exists() bool {
	info, err := os.Stat(g.path)
	return err == nil && inode(info) == g.id
}

// inode returns the number of a directory's inode, which on cgroup v2 is the id of the
// cgroup (Linux 5.5, 64-bit).
func inode(info os.FileInfo) uint64 {
	return info.Sys().(*syscall.Stat_t).Ino
}

// Populated reports whether a process lives in the cgroup or below it.
func (g *Group) Populated() (bool, error) {
	events, err := os.ReadFile(filepath.Join(g.path, eventsFile))
	if err != nil {
		return false, err
	}
	return bytes.Contains(events, []byte("populated 1")), nil
}

const eventsFile = "cgroup.events"

// WaitEmpty returns nil when no process lives in the cgroup and below it, and else
// when ctx is done. The kernel wakes it; it does not poll.
func (g *Group) WaitEmpty(ctx context.Context) error {
	n, err := newNotifier(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.add(filepath.Join(g.path, eventsFile), unix.IN_MODIFY); err != nil {
		return gone(err)
	}
	for {
		populated, err := g.Populated()
		if err != nil || !populated {
			return gone(err)
		}
		if err := n.wait(); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// Remove removes the cgroup. One with processes or cgroups in it stays, with EBUSY; one
// that is not there any more is no error.
func (g *Group) Remove() error {
	if !g.Exists() {
		return nil
	}
	if err := unix.Rmdir(g.path); gone(err) != nil {
		return &os.PathError{Op: "rmdir", Path: g.path, Err: err}
	}
	return nil
}

// Close lets go of the cgroup, which stays.
func (g *Group) Close() error { return g.dir.Close() }
