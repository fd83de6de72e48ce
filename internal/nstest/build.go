//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Binary says how the program is built. The zero value is the plain build, and
// where Race is true that with the race detector.
type Binary struct {
	// Leak takes the bind of the source out of the dialer: the negative control
	// of the leak harness.
	Leak bool
	// Figures has the program log its goroutines and live heap with each SIGUSR1:
	// what an operator sees of them, resident memory, is what it was at its most.
	Figures bool

	// Old makes the hooks of the kernel plane call a function that this kernel does
	// not know, in place of the youngest that they need.
	Old bool
}

// Build builds cmd/srcproxy and returns its path. Each kind is built once in a
// run; Build is safe for concurrent use.
func (b Binary) Build(t testing.TB) string {
	t.Helper()
	path, err := b.BuildIn(Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// BuildIn is Build into a directory, for Setup.Prepare.
func (b Binary) BuildIn(dir string) (path string, err error) {
	lock, err := os.Create(filepath.Join(dir, "build.lock"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	path = filepath.Join(dir, b.name())
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, b.compile(path)
}

func (b Binary) name() string {
	name := "srcproxy"
	if Race() {
		name += "-race"
	}
	if b.Leak {
		name += "-leak"
	}
	if b.Figures {
		name += "-figures"
	}
	if b.Old {
		name += "-old"
	}
	return name
}

func (b Binary) compile(path string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	args := []string{"build", "-buildvcs=false", "-o", path}
	if Race() {
		args = append(args, "-race")
	}
	if b.Leak || b.Figures || b.Old {
		overlay, err := b.overlay(root, path+".overlay")
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, "./cmd/srcproxy")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// Root is the directory of the module that the test belongs to.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}
