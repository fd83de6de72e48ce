package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Place is where a cgroup is to be found, now or once it is made. Exactly one field
// is set.
type Place struct {
	Path string // the directory
	Unit string // the name of a service of systemd's system manager, in whatever slice
}

// Find returns the directory that is at p now, or nothing.
func (t *Tree) Find(p Place) (string, error) {
	path, _, err := t.look(p)
	return path, err
}

// All yields the directory of every cgroup, those above before those below.
func (t *Tree) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		_ = filepath.WalkDir(t.Dir, func(path string, e fs.DirEntry, err error) error { // what cannot be read is passed over
			switch {
			case err != nil || !e.IsDir():
				return nil
			case !yield(path):
				return fs.SkipAll
			}
			return nil
		})
	}
}

// look returns the directory at p, or nothing, and the directories in which p, or what is
// above it, can appear.
func (t *Tree) look(p Place) (found string, around []string, err error) {
	if p.Path != "" {
		return t.lookAt(p.Path)
	}
	return t.lookFor(p.Unit)
}

func (t *Tree) lookAt(path string) (found string, around []string, err error) {
	for up := filepath.Dir(path); strings.HasPrefix(up, t.Dir); up = filepath.Dir(up) {
		if isDir(up) {
			around = append(around, up)
		}
	}
	if isDir(path) {
		found = path
	}
	return found, around, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// lookFor looks for a unit among the slices: services are in slices, and slices are in
// slices (systemd.slice(5)).
func (t *Tree) lookFor(unit string) (found string, around []string, err error) {
	err = filepath.WalkDir(t.Dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && path != t.Dir:
			return nil // it went away meanwhile
		case err != nil:
			return err
		case !e.IsDir():
			return nil
		case e.Name() == unit && path != t.Dir:
			found = path
			return fs.SkipDir
		case path == t.Dir || strings.HasSuffix(e.Name(), sliceSuffix):
			around = append(around, path)
			return nil
		}
		return fs.SkipDir
	})
	return found, around, err
}

const sliceSuffix = ".slice"

// Follow calls changed with each cgroup that comes to be at p, opened, and with nil when
// it is gone and no other is there; first with what is there now. What it has opened
// it closes when the next call has returned, or when it returns itself. It returns when
// ctx is done, or with what keeps it from going on.
func (t *Tree) Follow(ctx context.Context, p Place, changed func(*Group)) error {
	n, err := newNotifier(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	var now *Group
	defer func() {
		if now != nil {
			_ = now.Close() // a directory that was only read
		}
	}()
	for first := true; ; first = false {
		next, err := t.watch(n, p)
		if err != nil {
			return err
		}
		switch {
		case same(now, next) && !first:
			if next != nil {
				_ = next.Close() // as above
			}
		default:
			changed(next)
			if now != nil {
				_ = now.Close() // as above
			}
			now = next
		}
		if err := n.wait(); err != nil {
			return err
		}
	}
}

func same(a, b *Group) bool {
	return a == nil && b == nil || a != nil && b != nil && a.ID() == b.ID()
}

// watch asks for events around p, and then opens what is there, or returns nil. In
// that order nothing falls between: what appears in a directory before it is watched
// is found by looking once more.
func (t *Tree) watch(n *notifier, p Place) (*Group, error) {
	watched := make(map[string]bool)
	for {
		path, around, err := t.look(p)
		if err != nil {
			return nil, err
		}
		again := false
		for _, dir := range around {
			if watched[dir] {
				continue
			}
			if err := n.add(dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR); gone(err) != nil {
				return nil, err
			}
			watched[dir], again = true, true
		}
		if again {
			continue
		}
		if path == "" {
			return nil, nil
		}
		g, err := Open(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return g, err
		}
	}
}
