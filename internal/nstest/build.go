//go:build linux

package nstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Binary says how the program is built. The zero value is the plain build, and
// where Race is true that with the race detector.
type Binary struct {
	// Leak takes the bind of the source out of the dialer: the negative control
	// of the leak harness.
	Leak bool
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
	if b.Leak {
		overlay, err := withoutBind(root, path+".overlay")
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

// The file and the one line of it that says where a flow leaves from, and what
// stands there in the build that leaks: nothing, so that the kernel chooses.
const (
	bindFile = "dialer/dial.go"
	bindLine = "local := netip.AddrPortFrom(dec.Addr, dec.Port)"
	leakLine = "local := netip.AddrPort{}"
)

// withoutBind writes the leaking variant of the dialer into the directory dir,
// and the file for go build -overlay that puts it in place. The sources are not
// touched, and hold no switch that could be left on.
func withoutBind(root, dir string) (overlay string, err error) {
	original := filepath.Join(root, bindFile)
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), bindLine); n != 1 {
		return "", fmt.Errorf("%s has %q %d times, want it once: tell package nstest what takes the bind out now", bindFile, bindLine, n)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	variant, overlay := filepath.Join(dir, "dial.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(variant, []byte(strings.Replace(string(text), bindLine, leakLine, 1)), 0o644); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: variant}})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, replace, 0o644)
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
