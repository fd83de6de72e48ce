//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// kernelTree returns the tree of cgroups, or skips the test where this user may not
// attach programs to one.
func kernelTree(t *testing.T) *cgroup.Tree {
	t.Helper()
	nstest.Dir(t)
	tree, err := cgroup.Mounted()
	if err != nil {
		nstest.Skip(t, err.Error())
	}
	if err := unix.Access(tree.Dir, unix.W_OK); err != nil {
		nstest.Skip(t, "no right to make cgroups in "+tree.Dir)
	}
	return tree
}

// bpffs mounts a BPF file system where systemd does, until the end of the test.
func bpffs(t *testing.T) {
	t.Helper()
	const dir = "/sys/fs/bpf"
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=700"); err != nil {
		nstest.Skip(t, "mount a BPF file system: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// scratchGroup returns the name and the directory of a cgroup that is not there yet.
// What is there at the end of the test is removed, with what is below.
func scratchGroup(t *testing.T, tree *cgroup.Tree, suffix string) (name, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp(tree.Dir, "srcproxy-test-*"+suffix)
	if err != nil {
		t.Fatal(err)
	}
	removeGroups(t, dir)
	t.Cleanup(func() { removeGroups(t, dir) })
	return tree.Name(dir), dir
}

// removeGroups removes a cgroup and those below, as soon as they are empty.
func removeGroups(t *testing.T, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(dir) // none where it is gone
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(t, filepath.Join(dir, e.Name()))
		}
	}
	eventually(t, dir+" is removed", func() bool {
		err := unix.Rmdir(dir)
		return err == nil || errors.Is(err, unix.ENOENT)
	})
}

// inGroup has a command start in the cgroup of a directory.
func inGroup(t *testing.T, dir string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // a directory
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	return cmd
}

// leftovers returns the cgroups that run has left below dir.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "srcproxy-run-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// ownGroup returns the directory of a new cgroup, for a test that looks at what run makes
// below: others use srcproxy on this host, too.
func ownGroup(t *testing.T) string {
	t.Helper()
	_, dir := scratchGroup(t, kernelTree(t), "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runIn runs srcproxy run in the cgroup of a directory, and so with its own below.
func (r *rig) runIn(t *testing.T, dir string, args ...string) nstest.Result {
	t.Helper()
	return r.Proxy.Run(t, inGroup(t, dir, exec.Command(r.binary.Build(t), append([]string{"run"}, args...)...)))
}

// asker is a Python program that knows nothing of srcproxy: for each line "tcp
// ADDRESS PORT" or "udp ADDRESS PORT" it opens a socket, sends a line and prints what
// comes back, or the name of the error. "held-tcp" and "held-udp" bind the socket to a port
// and connect it.
const asker = `
import errno, socket, sys
print("ready", flush=True)
for line in sys.stdin:
    kind, address, port = line.split()
    held = kind.startswith("held-")
    kind = kind.removeprefix("held-")
    try:
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        s.settimeout(5)
        if held:
            s.bind(("", 0))
        if held or kind == "tcp":
            s.connect((address, int(port)))
            s.sendall(b"x")
        else:
            s.sendto(b"x", (address, int(port)))
        s.recv(1)
        print("answered", flush=True)
    except OSError as e:
        print(errno.errorcode.get(e.errno, e), flush=True)
`

// ask is a running asker.
type ask struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

// to has the program open a socket, and returns "answered" or the name of an error.
func (a *ask) to(kind string, dst netip.AddrPort) string {
	a.t.Helper()
	if _, err := fmt.Fprintln(a.in, kind, dst.Addr(), dst.Port()); err != nil {
		a.t.Fatal(err)
	}
	return a.line()
}

func (a *ask) line() string {
	a.t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close() // the test may have closed it
		_ = w.Close()
	})
	return r, w
}

// ask starts the asker by a command such as "srcproxy run --".
func (r *rig) ask(t *testing.T, by ...string) (*nstest.Process, *ask) {
	t.Helper()
	args := slices.Concat(by, []string{"python3", "-c", asker})
	return r.startAsk(t, exec.Command(args[0], args[1:]...))
}

// askIn starts the asker in a cgroup.
func (r *rig) askIn(t *testing.T, dir string) (*nstest.Process, *ask) {
	t.Helper()
	return r.startAsk(t, inGroup(t, dir, exec.Command("python3", "-c", asker)))
}

// askRun starts the asker by run, with kernelConfig, in a cgroup.
func (r *rig) askRun(t *testing.T, dir string) (*nstest.Process, *ask) {
	t.Helper()
	config := r.write("config.toml", kernelConfig)
	return r.startAsk(t, inGroup(t, dir, exec.Command(r.binary.Build(t), "run", "-c", config, "--", "python3", "-c", asker)))
}

func (r *rig) startAsk(t *testing.T, cmd *exec.Cmd) (*nstest.Process, *ask) {
	t.Helper()
	nstest.Need(t, "python3")
	cmd.Dir = r.dir
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	// Not exec's pipes, which end with the command: the asker may live on.
	a := &ask{t: t}
	cmd.Stdin, a.in = pipe(t)
	out, stdout := pipe(t)
	cmd.Stdout, a.out = stdout, bufio.NewReader(out)
	p := r.Proxy.Start(t, cmd)
	_ = cmd.Stdin.(*os.File).Close() // the command has them
	_ = stdout.Close()
	if line := a.line(); line != "ready" {
		t.Fatalf("got %q, want ready", line)
	}
	return p, a
}
