package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
)

// Where hooks are pinned: in the BPF file system that systemd mounts for root, or in
// one that was mounted for the user of srcproxy.
const (
	rootPins = "/sys/fs/bpf/srcproxy"
	userPins = "/run/srcproxy/bpf"
)

// Pins returns the directory for Set.Pins on this host.
func Pins() string {
	var s unix.Statfs_t
	if unix.Statfs(userPins, &s) == nil && s.Type == unix.BPF_FS_MAGIC {
		return userPins
	}
	return rootPins
}

// ErrNotBPF says that a directory is on no BPF file system.
var ErrNotBPF = errors.New("is on no BPF file system")

// OnBPF reports that dir, or where it would be made, is on no BPF file system.
func OnBPF(dir string) error {
	at := dir
	var s unix.Statfs_t
	err := unix.Statfs(at, &s)
	for errors.Is(err, fs.ErrNotExist) {
		at = filepath.Dir(at)
		err = unix.Statfs(at, &s)
	}
	switch {
	case err != nil:
		return &fs.PathError{Op: "statfs", Path: at, Err: err}
	case s.Type != unix.BPF_FS_MAGIC:
		return fmt.Errorf("%s %w; as root: mount -t bpf bpf %s", dir, ErrNotBPF, filepath.Dir(dir))
	}
	return nil
}

// pin returns where the hooks of a are pinned.
func (a *attachment) pin() string { return filepath.Join(a.set.Pins, escape(a.entry.Name)) }

// exchanging is what is added to the name of a pin while the hooks of an earlier process
// are exchanged.
const exchanging = "-exchange"

// openPinned opens hooks; nil are those that are not there.
func openPinned(dir string) (*cgroupbpf.Plane, error) {
	p, err := cgroupbpf.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return p, err
}

// unpin removes the pins of a, unless another process has taken over.
func (a *attachment) unpin() error {
	for _, dir := range []string{a.pin() + exchanging, a.pin()} {
		ours, err := a.plane.Pinned(dir)
		if err == nil && ours {
			err = cgroupbpf.Unpin(dir)
		}
		if err != nil {
			return err
		}
	}
	if a.old != nil {
		return nil // which is back in the slice
	}
	return removeSlice(a.set.Tree, a.entry.Service)
}

// removeSlice removes the slice of a service where nothing is in it.
func removeSlice(t *cgroup.Tree, service string) error {
	if service == "" {
		return nil
	}
	slice := filepath.Join(t.Dir, cgroup.SlicePath(service))
	for _, dir := range []string{slice, filepath.Dir(slice)} {
		err := unix.Rmdir(dir)
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
	return nil
}

// escape returns a name of a file in a BPF file system, which may have no dot. Dashes are
// kept for what cgroupbpf adds to it.
func escape(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// unescape is the reverse of escape; ok is false for what is no name.
func unescape(s string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '-':
			return "", false
		case s[i] != '%':
			b.WriteByte(s[i])
			continue
		case i+3 > len(s):
			return "", false
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), true
}

// Names returns the names of the entries whose hooks are pinned under pins, in this
// process or by others.
func Names(pins string) ([]string, error) {
	entries, err := os.ReadDir(pins)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if name, ok := unescape(e.Name()); ok {
			names = append(names, name)
		}
	}
	return names, err
}

// Detach takes the hooks that are pinned under a name off all cgroups, and forgets them.
// Where there are none the error is fs.ErrNotExist.
func Detach(t *cgroup.Tree, pins, name string) error {
	dir := filepath.Join(pins, escape(name))
	for _, dir := range []string{dir + exchanging, dir} {
		p, err := cgroupbpf.Open(dir)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(dir, exchanging) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(detach(t, p), p.Close()); err != nil {
			return err
		}
	}
	service := ""
	if !strings.HasPrefix(name, "/") {
		service = name
	}
	return errors.Join(cgroupbpf.Unpin(dir+exchanging), cgroupbpf.Unpin(dir), removeSlice(t, service))
}

// detach takes the hooks of p off all cgroups.
func detach(t *cgroup.Tree, p *cgroupbpf.Plane) error {
	var errs []error
	for path := range t.All() {
		g, err := cgroup.Open(path)
		if cgroup.Gone(err) || errors.Is(err, fs.ErrPermission) {
			continue // it went away meanwhile, or this user has attached nothing there
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, p.Detach(g), g.Close())
	}
	return errors.Join(errs...)
}
