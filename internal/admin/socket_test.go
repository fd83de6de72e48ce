package admin

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// mustListen returns a socket that is closed at the end.
func mustListen(t *testing.T, path string) *Socket {
	t.Helper()
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != want {
		t.Errorf("%s: got %v, want %v", path, got, want)
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want that it is gone", path, err)
	}
}

func TestSocketIsForItsOwner(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := filepath.Join(t.TempDir(), "srcproxy")
	path := filepath.Join(dir, "admin.sock")
	s := mustListen(t, path)
	wantMode(t, dir, fs.ModeDir|0o700)
	wantMode(t, path, fs.ModeSocket|0o600)
	wantMode(t, path+".lock", 0o600)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantGone(t, path)
	wantGone(t, path+".lock")
	next := mustListen(t, path)
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	wantMode(t, path+".lock", 0o600)
	if next.Path() != path {
		t.Errorf("Path: got %q", next.Path())
	}
}

func TestSocketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	mustListen(t, path)
	_, err := Listen(path)
	inUse := (*InUseError)(nil)
	if !errors.As(err, &inUse) || inUse.PID != strconv.Itoa(os.Getpid()) {
		t.Fatalf("got %v, want an InUseError of this process", err)
	}
	for _, part := range []string{path, "pid " + inUse.PID, `[admin] socket = "` + strings.TrimSuffix(path, ".sock") + `2.sock"`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %s: %v", part, err)
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the socket is not as before: %v", err)
	}
	c.Close()
}

// TestStaleSocket takes the place of a program that was killed: its socket and its lock
// file are there, and nobody holds the lock.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(path+".lock", []byte("4194304\n12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if pid, err := os.ReadFile(path + ".lock"); string(pid) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the lock says %q, %v", pid, err)
	}
}

func TestNoSocket(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("on a file: got %v", err)
	}
	if text, err := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	wantGone(t, file+".lock")
	if _, err := Listen(filepath.Join(dir, "no", "such", "admin.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: got %v", err)
	}
	if err := os.Symlink(file, filepath.Join(dir, "a.sock.lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(dir, "a.sock")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("with a link as the lock: got %v", err)
	}
}

// TestOneWins: of many that start at once, over a stale socket, one has it.
func TestOneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	for range 50 {
		var mu sync.Mutex
		var have []*Socket
		var starting sync.WaitGroup
		for range 8 {
			starting.Go(func() {
				s, err := Listen(path)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					have = append(have, s)
				} else if !errors.As(err, new(*InUseError)) {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		if len(have) != 1 {
			t.Fatalf("%d have the socket, want 1", len(have))
		}
		have[0].SetUnlinkOnClose(false)
		if err := have[0].Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTakeOver: while owners come and go there is never more than one.
func TestTakeOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	var owners, taken atomic.Int32
	var trying sync.WaitGroup
	for range 8 {
		trying.Go(func() {
			for range 500 {
				s, err := Listen(path)
				if err != nil {
					if !errors.As(err, new(*InUseError)) {
						t.Error(err)
					}
					continue
				}
				taken.Add(1)
				if n := owners.Add(1); n != 1 {
					t.Errorf("%d have the socket", n)
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("the owner's socket: %v", err)
				}
				owners.Add(-1)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	trying.Wait()
	if taken.Load() < 8 {
		t.Errorf("it was taken %d times only", taken.Load())
	}
}

func TestListenFirst(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "no", "such", "admin.sock"), filepath.Join(dir, "run", "admin.sock")
	s, err := ListenFirst([]string{first, second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Path() != second {
		t.Errorf("got %s, want %s", s.Path(), second)
	}
	third := filepath.Join(dir, "third", "admin.sock")
	if _, err := ListenFirst([]string{second, third}); !errors.As(err, new(*InUseError)) {
		t.Errorf("got %v, want that the first is in use", err)
	}
	wantGone(t, filepath.Dir(third))
	if _, err := ListenFirst([]string{first, first}); strings.Count(err.Error(), "no such file") != 2 {
		t.Errorf("got %v, want both errors", err)
	}
}

func TestPaths(t *testing.T) {
	for dir, want := range map[string]string{
		"":               "/run/srcproxy/admin.sock",
		"relative":       "/run/srcproxy/admin.sock",
		"/run/user/1000": "/run/srcproxy/admin.sock /run/user/1000/srcproxy/admin.sock",
	} {
		getenv := func(name string) string {
			if name == "XDG_RUNTIME_DIR" {
				return dir
			}
			return ""
		}
		if got := strings.Join(Paths(getenv), " "); got != want {
			t.Errorf("%q: got %s, want %s", dir, got, want)
		}
	}
}
