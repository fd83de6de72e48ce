//go:build linux

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestRunProxy gives curl a proxy by the environment, as nobody in particular.
func TestRunProxy(t *testing.T) {
	nstest.Need(t, "curl", "setpriv")
	r := newRig(t)
	s4 := r.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	s6 := r.Server.ServeHTTP(t, "[::]:80", nil)
	r.readable()
	config := r.write("config.toml", mainConfig)
	program := r.binary.Build(t)
	for _, tt := range []struct {
		name   string
		args   []string
		url    string
		server *nstest.Server
		want   string
	}{
		{"by a rule", []string{"-c", config}, "http://smtp.mail.example/", s4, mail4.String()},
		{"by default", []string{"-c", config}, "http://[2001:db8:2::9]/", s6, wan6.String()},
		{"a source of the file", []string{"-c", config, "--use", "mail"}, "http://203.0.113.9/", s4, mail4.String()},
		{"addresses", []string{"--use", "198.51.100.31", "--use", "2001:db8:1::31"}, "http://six.example/", s6, "2001:db8:1::31"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.server.Forget()
			args := append([]string{"--reuid=nobody", "--regid=nogroup", "--clear-groups", program, "run", "--proxy"}, tt.args...)
			got := r.Proxy.Run(t, exec.Command("setpriv", append(args, "--", "curl", "-sS", tt.url)...))
			if got.Err != nil || got.Stdout != tt.want || got.Stderr != "" {
				t.Fatalf("want %s and nothing else: %v", tt.want, got)
			}
			if sources := tt.server.Sources(); len(sources) != 1 {
				t.Errorf("the server was called from %v", sources)
			}
		})
	}
	got := r.program("run", "--proxy", "-c", config, "--", "curl", "-sS", "http://203.0.113.66/")
	if exit := (*exec.ExitError)(nil); !errors.As(got.Err, &exit) || exit.ExitCode() != 97 { // curl: the proxy refused
		t.Errorf("what a rule denies: %v", got)
	}
}

// TestRunSignals sends run the signals that it passes on, and ends as its command does.
func TestRunSignals(t *testing.T) {
	r := newRig(t)
	const command = `trap 'exit 1' HUP; trap 'exit 2' INT; trap 'exit 3' QUIT; trap 'exit 15' TERM; trap 'exit 10' USR1; trap 'exit 12' USR2; trap 'exit 14' ALRM
echo ready
while :; do sleep 0.01; done`
	for _, tt := range []struct {
		signal unix.Signal
		want   int
	}{
		{unix.SIGHUP, 1},
		{unix.SIGINT, 2},
		{unix.SIGQUIT, 3},
		{unix.SIGTERM, 15},
		{unix.SIGUSR1, 10},
		{unix.SIGUSR2, 12},
		{unix.SIGALRM, 14},
	} {
		t.Run(unix.SignalName(tt.signal), func(t *testing.T) {
			p := r.startRun(t, nil, "--proxy", "--", "sh", "-c", command)
			if err := p.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			if exit := (*exec.ExitError)(nil); !errors.As(p.Wait(patience), &exit) || exit.ExitCode() != tt.want {
				t.Errorf("got %v, want exit code %d", exit, tt.want)
			}
		})
	}
}

// TestRunKeepsIgnored: what nohup(1) ignored, the command ignores as well.
func TestRunKeepsIgnored(t *testing.T) {
	r := newRig(t)
	p := r.startRun(t, []string{"nohup"}, "--proxy", "--", "sh", "-c", `echo ready; while [ ! -e end ]; do sleep 0.01; done; exit 5`)
	if err := p.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path("end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if exit := (*exec.ExitError)(nil); !errors.As(p.Wait(patience), &exit) || exit.ExitCode() != 5 {
		t.Errorf("got %v, want exit code 5", exit)
	}
}

// readable lets other users read the directory of the configuration.
func (r *rig) readable() {
	r.t.Helper()
	for _, dir := range []string{filepath.Dir(r.dir), r.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}

// startRun starts srcproxy run, perhaps by another command, and waits until what it
// runs has printed "ready".
func (r *rig) startRun(t *testing.T, by []string, args ...string) *nstest.Process {
	t.Helper()
	args = append(append(by, r.binary.Build(t), "run"), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = r.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := r.Proxy.Start(t, cmd)
	b := make([]byte, 64)
	n, err := out.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), "ready") {
		t.Fatalf("got %q, %v, want ready", b[:n], err)
	}
	return p
}

// onTerminal is a Python program that runs a command on a terminal of its own, presses
// Ctrl-C once it is ready, then sends SIGUSR1 to it, and prints what was on the terminal
// and the exit code.
const onTerminal = `
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
def until(word):
    global seen
    while word not in seen:
        try:
            more = os.read(terminal, 1000)
        except OSError: # the terminal is closed
            return
        if not more:
            return
        seen += more
until(b"ready")
os.write(terminal, b"\x03")
until(b"interrupted")
os.kill(pid, signal.SIGUSR1)
until(b"no such word")
print(seen.decode().count("interrupted"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

// TestRunOnTerminal presses Ctrl-C, which sends SIGINT to both run and its command: the
// command gets it once. Run passes signals on in their order, so that the second
// SIGINT would come before SIGUSR1.
func TestRunOnTerminal(t *testing.T) {
	r := newRig(t)
	const command = `
import os, signal
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\n"))
signal.signal(signal.SIGUSR1, lambda *_: os._exit(9))
os.write(1, b"ready\n")
while True:
    signal.pause()
`
	got := r.run("python3", "-c", onTerminal, r.binary.Build(t), "run", "--proxy", "--", "python3", "-c", command)
	if got.Err != nil || got.Stdout != "1 9\n" {
		t.Errorf("want one interruption and the exit code 9: %v", got)
	}
}
