//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Pin makes the hooks reachable for Open under dir, in a BPF file system, also after the end of this process. The name may
// have no dot, since the kernel keeps those. What is pinned there is exchanged in one step.
func (p *Plane) Pin(dir string) error {
	err := p.pin(dir)
	if err != nil {
		return fmt.Errorf("pin the kernel plane: %w", err)
	}
	return nil
}

func (p *Plane) pin(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := onBPF(filepath.Dir(dir)); err != nil {
		return err
	}
	next := dir + "-next"
	if err := errors.Join(os.RemoveAll(next), os.Mkdir(next, 0o700)); err != nil {
		return err
	}
	if err := p.pinInto(next); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	err := os.Rename(next, dir)
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: next, New: dir, Err: err}
	}
	return os.RemoveAll(next)
}

// onBPF reports that dir is on no BPF file system.
func onBPF(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if s.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is on no BPF file system; as root: mount -t bpf bpf /sys/fs/bpf", dir)
	}
	return nil
}

// pinInto pins copies, so that the objects themselves do not know where they are pinned.
func (p *Plane) pinInto(dir string) error {
	m, err := p.memories.Clone()
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // the pin stays
	if err := m.Pin(filepath.Join(dir, hooksMapMemories)); err != nil {
		return err
	}
	for i, h := range p.hooks {
		c, err := h.Clone()
		if err != nil {
			return err
		}
		err = c.Pin(filepath.Join(dir, hookNames[i]))
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Unpin removes what Pin made under dir. Hooks stay where they are attached. That nothing is there is no error.
func Unpin(dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+"-next")); err != nil {
		return fmt.Errorf("unpin the kernel plane: %w", err)
	}
	return nil
}

// Pinned reports whether the hooks that are pinned under dir are those of p. A later process may have pinned its own.
func (p *Plane) Pinned(dir string) (bool, error) {
	q, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = q.Close() }() // it was only looked at
	info, err := q.hooks[0].Info()
	if err != nil {
		return false, err
	}
	id, ok := info.ID()
	if !ok {
		return false, nil
	}
	return isAttached(p.hooks[0], []ebpf.ProgramID{id})
}

// Open returns the hooks that an earlier process has pinned under dir: to be taken over by Load and Attach, or to be detached.
// Its rules stay as they are, Set and SetState return an error. Where nothing is pinned the error is fs.ErrNotExist.
func Open(dir string) (*Plane, error) {
	p := &Plane{past: make(map[string]Counter)}
	var err error
	if p.memories, err = ebpf.LoadPinnedMap(filepath.Join(dir, hooksMapMemories), nil); err != nil {
		return nil, diagnose(fmt.Errorf("open the kernel plane pinned in %s: %w", dir, err))
	}
	for i, name := range hookNames {
		if p.hooks[i], err = ebpf.LoadPinnedProgram(filepath.Join(dir, name), nil); err != nil {
			return nil, errors.Join(diagnose(fmt.Errorf("open the kernel plane pinned in %s: %w", dir, err)), p.Close())
		}
	}
	return p, nil
}
