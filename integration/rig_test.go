//go:build linux

package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// rig is one topology with one srcproxy in the namespace of the proxy host.
type rig struct {
	*nstest.Topology
	t      testing.TB
	dir    string
	binary nstest.Binary
	wrap   []string // what starts the program, such as prlimit
	proc   *nstest.Process
	log    *journal
	last   string // the configuration that was written last
}

// newRig makes the topology; serve starts the program.
func newRig(t testing.TB, options ...nstest.Option) *rig {
	t.Helper()
	r := &rig{Topology: nstest.NewTopology(t, options...), t: t, dir: t.TempDir()}
	t.Cleanup(r.judge)
	return r
}

// judge looks at the whole log at the end.
func (r *rig) judge() {
	nstest.FailOnRaces(r.t)
	if r.log == nil {
		return
	}
	text := r.log.String()
	for _, bad := range []string{"panic:", "fatal error:"} {
		if strings.Contains(text, bad) {
			r.t.Errorf("the log has a %q", bad)
		}
	}
	if r.t.Failed() {
		r.t.Logf("configuration:\n%s\nend of the log:\n%s", r.last, r.log.tail())
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a file into the directory of the configuration.
func (r *rig) write(name, text string) string {
	r.t.Helper()
	path := r.path(name)
	// A rename, as editors do: a reload never sees half of it.
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
	if name == "config.toml" {
		r.last = text
	}
	return path
}

// serve starts the program on a configuration and waits until it is ready.
func (r *rig) serve(config string) {
	r.t.Helper()
	r.launch(config)
	r.log.wait(r.t, 1, "ready")
}

// launch starts the program on a configuration.
func (r *rig) launch(config string) {
	r.t.Helper()
	args := append(append([]string(nil), r.wrap...), r.binary.Build(r.t), "serve", "-c", r.write("config.toml", config))
	cmd := exec.Command(args[0], args[1:]...)
	r.log = newJournal()
	cmd.Stderr = r.log
	r.proc = r.Proxy.Start(r.t, cmd)
}

// reload writes a configuration, sends SIGHUP and waits for the one answer,
// which it returns.
func (r *rig) reload(config string) entry {
	r.t.Helper()
	before, _ := r.log.with("reloaded", "reload failed")
	r.write("config.toml", config)
	r.signal(syscall.SIGHUP)
	return r.log.wait(r.t, len(before)+1, "reloaded", "reload failed")[len(before)]
}

func (r *rig) signal(s os.Signal) {
	r.t.Helper()
	if err := r.proc.Signal(s); err != nil {
		r.t.Fatalf("signal %v: %v", s, err)
	}
}

// program runs srcproxy with other arguments than serve.
func (r *rig) program(args ...string) nstest.Result {
	r.t.Helper()
	return r.Proxy.Run(r.t, exec.Command(r.binary.Build(r.t), args...))
}

// run runs a command on the proxy host.
func (r *rig) run(name string, args ...string) nstest.Result {
	r.t.Helper()
	nstest.Need(r.t, name)
	return r.Proxy.Run(r.t, r.command(name, args...))
}

// command is a command with a home of its own and no proxy variables.
func (r *rig) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = r.dir
	cmd.Env = append(nstest.RaceEnv(), "HOME="+r.dir, "PATH="+os.Getenv("PATH"), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1")
	return cmd
}

// dial connects to the program from the proxy host, or from the client where
// there is one.
func (r *rig) dial(address string) *net.TCPConn {
	r.t.Helper()
	c, err := r.tryDial(address)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) tryDial(address string) (*net.TCPConn, error) {
	from := r.Proxy
	if r.Client != nil {
		from = r.Client
	}
	c, err := from.Dial(net.Dialer{Timeout: patience}, "tcp", address)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c.(*net.TCPConn), nil
}

// descriptors counts the open descriptors of the program.
func (r *rig) descriptors() int {
	r.t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.proc.Pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(names)
}

// rss is the resident memory of the program in bytes.
func (r *rig) rss() int {
	r.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.proc.Pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscanf(after, "%d kB", &kib); err != nil {
		r.t.Fatalf("VmRSS: %v", err)
	}
	return kib << 10
}

// eventually waits until ok is true, at most for patience.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// wantSources fails unless the server was called from a alone, n times. The
// server may accept after the client was told that it is connected.
func wantSources(t testing.TB, s *nstest.Server, a netip.Addr, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the server was called %d times", n), func() bool { return len(s.Peers()) >= n })
	if got := s.Sources(); len(got) != 1 || got[a] != n {
		t.Errorf("the server was called from %v, want %d times from %v", got, n, a)
	}
}
