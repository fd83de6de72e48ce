package cgroup_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

const patience = 10 * time.Second

// scratch returns the tree, and a directory in it that goes away with the test.
func scratch(t *testing.T) (*cgroup.Tree, string) {
	t.Helper()
	tree, err := cgroup.Mounted()
	if err != nil {
		nstest.Skip(t, err.Error())
	}
	dir, err := os.MkdirTemp(tree.Dir, "srcproxy-test-")
	if err != nil {
		nstest.Skip(t, err.Error())
	}
	t.Cleanup(func() { clear(t, dir) })
	return tree, dir
}

// clear removes a directory with all cgroups below it.
func clear(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			clear(t, filepath.Join(dir, e.Name()))
		}
	}
	if err := unix.Rmdir(dir); err != nil {
		t.Errorf("%s: %v", dir, err)
	}
}

// sleeper starts a process in g that ends when the test, or the caller, kills it.
func sleeper(t *testing.T, g *cgroup.Group) (kill func()) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD(), Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill() // it may have been killed
		_ = cmd.Wait()         // which says so
	}
	t.Cleanup(kill)
	return kill
}

func TestWaitEmpty(t *testing.T) {
	_, dir := scratch(t)
	g, err := cgroup.Create(dir, "run-")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	kill := sleeper(t, g)
	if err := g.Remove(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("remove with a process in it: got %v, want EBUSY", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	woken := make(chan error)
	go func() { woken <- g.WaitEmpty(ctx) }()
	select {
	case err := <-woken:
		t.Fatalf("empty with a process in it: %v", err)
	case <-time.After(50 * time.Millisecond): // that nothing happens
	}
	kill()
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if g.Exists() {
		t.Error("it exists after it was removed")
	}
	if err := g.WaitEmpty(ctx); err != nil {
		t.Errorf("a cgroup that is gone is not empty: %v", err)
	}
	if err := g.Remove(); err != nil {
		t.Errorf("remove again: %v", err)
	}
}

func TestWaitEmptyEndsWithContext(t *testing.T) {
	_, dir := scratch(t)
	g, err := cgroup.Create(dir, "run-")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	kill := sleeper(t, g)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.WaitEmpty(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	kill()
}

// TestSweep leaves alone what has an owner, and what has a process.
func TestSweep(t *testing.T) {
	_, dir := scratch(t)
	var groups []*cgroup.Group
	for range 3 {
		g, err := cgroup.Create(dir, "run-")
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	owned, populated, left := groups[0], groups[1], groups[2]
	kill := sleeper(t, populated)
	populated.Close()
	left.Close()
	defer owned.Close()
	if err := os.Mkdir(filepath.Join(dir, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cgroup.Sweep(dir, "run-"); err != nil {
		t.Fatal(err)
	}
	if !owned.Exists() || !populated.Exists() || left.Exists() {
		t.Errorf("owned %v, populated %v, left %v; want only the last gone", owned.Exists(), populated.Exists(), left.Exists())
	}
	kill()
	if err := cgroup.Sweep(dir, "run-"); err != nil {
		t.Fatal(err)
	}
	if populated.Exists() {
		t.Error("it was not swept when its process had ended")
	}
}

func TestOpenOther(t *testing.T) {
	if _, err := cgroup.Open(t.TempDir()); err == nil {
		t.Error("a directory elsewhere was taken for a cgroup")
	}
}

// follow returns the places at which Follow finds p, "" for nowhere.
func follow(t *testing.T, tree *cgroup.Tree, p cgroup.Place) <-chan uint64 {
	t.Helper()
	ids := make(chan uint64, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- tree.Follow(ctx, p, func(g *cgroup.Group) {
			if g == nil {
				ids <- 0
				return
			}
			ids <- g.ID()
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow: %v", err)
		}
	})
	return ids
}

func next(t *testing.T, ids <-chan uint64) uint64 {
	t.Helper()
	select {
	case id := <-ids:
		return id
	case <-time.After(patience):
		t.Fatal("nothing was told")
		return 0
	}
}

// TestFollowPath makes and removes a cgroup, and one above it.
func TestFollowPath(t *testing.T) {
	tree, dir := scratch(t)
	up := filepath.Join(dir, "up")
	path := filepath.Join(up, "down")
	ids := follow(t, tree, cgroup.Place{Path: path})
	if id := next(t, ids); id != 0 {
		t.Errorf("got %d before it is made", id)
	}
	seen := map[uint64]bool{0: true}
	for range 20 {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		id := next(t, ids)
		if seen[id] {
			t.Fatalf("got %d, want a new number", id)
		}
		seen[id] = true
		for _, p := range []string{path, up} {
			if err := unix.Rmdir(p); err != nil {
				t.Fatal(err)
			}
		}
		if id := next(t, ids); id != 0 {
			t.Errorf("got %d after it was removed", id)
		}
	}
}

// TestFollowUnit moves a service between slices, as when its drop-in has changed.
func TestFollowUnit(t *testing.T) {
	tree, dir := scratch(t)
	unit := filepath.Base(dir) + ".service"
	slice := dir + ".slice"
	if err := os.Mkdir(slice, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clear(t, slice) })
	ids := follow(t, tree, cgroup.Place{Unit: unit})
	if id := next(t, ids); id != 0 {
		t.Errorf("got %d before it is started", id)
	}
	for _, in := range []string{slice, filepath.Join(slice, "a.slice"), filepath.Join(slice, "b.slice", "c.slice")} {
		path := filepath.Join(in, unit)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		g, err := cgroup.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if id := next(t, ids); id != g.ID() {
			t.Errorf("in %s: got %d, want %d", in, id, g.ID())
		}
		if found, err := tree.Find(cgroup.Place{Unit: unit}); found != path || err != nil {
			t.Errorf("got %s, %v, want %s", found, err, path)
		}
		if err := errors.Join(g.Remove(), g.Close()); err != nil {
			t.Fatal(err)
		}
		if id := next(t, ids); id != 0 {
			t.Errorf("in %s: got %d after it was stopped", in, id)
		}
	}
}
