package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pty returns the two sides of a new terminal (pty(7)).
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestColor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("default = \"deny\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		env   map[string]string
		pipe  bool
		color bool
	}{
		{"terminal", map[string]string{"TERM": "xterm"}, false, true},
		{"NO_COLOR", map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false, false},
		{"NO_COLOR empty", map[string]string{"TERM": "xterm", "NO_COLOR": ""}, false, true},
		{"dumb", map[string]string{"TERM": "dumb"}, false, false},
		{"pipe", map[string]string{"TERM": "xterm"}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			master, out := pty(t)
			if tt.pipe {
				var err error
				if master, out, err = os.Pipe(); err != nil {
					t.Fatal(err)
				}
				defer master.Close()
				defer out.Close()
			}
			e := env{strings.NewReader(""), out, os.Stderr, func(k string) string { return tt.env[k] }}
			if code := run(t.Context(), e, []string{"explain", "192.0.2.1:80", "-c", file}); code != exitFound {
				t.Errorf("exit code %d, want %d", code, exitFound)
			}
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(master) // a terminal ends with EIO, and with what was written before it
			if got := strings.Contains(string(b), "\x1b["); got != tt.color || len(b) == 0 {
				t.Errorf("coloured: got %v, want %v: %q", got, tt.color, b)
			}
		})
	}
}
