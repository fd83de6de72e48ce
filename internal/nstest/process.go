//go:build linux

package nstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// RunLimit bounds what Run waits for a command.
const RunLimit = 60 * time.Second

// ErrStillRunning is the error of a wait that its limit ended.
var ErrStillRunning = errors.New("still running")

// Process is a program that runs in a namespace. It and all it started are
// killed at the end of the test. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Start starts cmd in the namespace, in a process group of its own.
func (n *Namespace) Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := n.start(cmd)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	t.Cleanup(p.Kill)
	return p
}

func (n *Namespace) start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	cmd.WaitDelay = 2 * time.Second // for what still holds the pipes
	errc := make(chan error)
	n.work <- func() { errc <- cmd.Start() }
	if err := <-errc; err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends s to the process alone.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill kills the process and its group, and waits for it.
func (p *Process) Kill() {
	_ = unix.Kill(-p.Pid(), unix.SIGKILL) // ESRCH: all have ended
	<-p.done
}

// Wait waits for the end of the process for at most limit. Its error is that of
// exec.Cmd.Wait, or ErrStillRunning.
func (p *Process) Wait(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		return fmt.Errorf("%s after %v: %w", p.cmd.Path, limit, ErrStillRunning)
	}
}

// Result is what a command printed and how it ended.
type Result struct {
	Stdout, Stderr string
	Err            error // nil, or an *exec.ExitError, or ErrStillRunning
}

// String is the whole result, for messages.
func (r Result) String() string {
	return fmt.Sprintf("end: %v\nstdout: %s\nstderr: %s", r.Err, r.Stdout, r.Stderr)
}

// Run runs cmd in the namespace until it ends, at most for RunLimit. It sets
// Stdout and Stderr. The command may be given a Stdin, Dir or Env before.
func (n *Namespace) Run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := n.start(cmd)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	err = p.Wait(RunLimit)
	p.Kill()
	return Result{stdout.String(), stderr.String(), err}
}

// buffer is a bytes.Buffer for two goroutines: exec's, and one that gave up
// waiting for it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
