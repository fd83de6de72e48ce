package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The exit codes of run for its own faults, as env(1) and timeout(1) have them. Below
// them are those of the command; above, 128 and the signal that ended it.
const (
	exitRun           = 125 // run itself failed
	exitNotExecutable = 126 // the command is there, and cannot be executed
	exitNotFound      = 127
	exitSignal        = 128
)

// codeError ends the program with a code of its own.
type codeError struct {
	code int
	err  error // nil: there is nothing to say
}

func (e codeError) Error() string { return fmt.Sprint(e.err) }
func (e codeError) Unwrap() error { return e.err }

// child is the command that run starts.
type child struct {
	cmd     *exec.Cmd
	account *account // who it runs as; nil: who runs srcproxy
	group   int      // the descriptor of the cgroup it starts in; 0: ours
}

// forwarded returns the signals that the child is sent on: those that end or tell
// something to a program, but for those that were ignored when this one was started
// (nohup(1)).
func forwarded() []os.Signal {
	var out []os.Signal
	for _, s := range []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT,
	} {
		if !signal.Ignored(s) {
			out = append(out, s)
		}
	}
	return out
}

// run starts the child, passes signals on to it and returns its exit code when it has
// ended. A codeError is about the start.
func (c *child) run() (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)
	if err := c.start(); err != nil {
		return 0, c.whyNot(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = c.cmd.Process.Signal(s) // it may have ended just now
			}
		case err := <-ended:
			return exitCode(c.cmd.ProcessState, err)
		}
	}
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	if state == nil {
		return 0, codeError{exitRun, err}
	}
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitSignal + int(w.Signal()), nil
	}
	return state.ExitCode(), nil
}

// fromTerminal reports whether a signal came by a key: the terminal has then sent it
// to the child as well, which is in the same process group.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false // there is no terminal
	}
	defer func() { _ = tty.Close() }() // it was only asked
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// start starts the child with no right that only this program has.
func (c *child) start() error {
	a := &syscall.SysProcAttr{UseCgroupFD: c.group > 0, CgroupFD: c.group}
	if c.account != nil {
		a.Credential = c.account.credential()
	}
	c.cmd.SysProcAttr = a
	started := make(chan error, 1)
	go func() {
		// The thread that forks gives its rights away first. It ends with this
		// goroutine, so that nobody else gets it.
		runtime.LockOSThread()
		if err := dropInherited(); err != nil {
			started <- codeError{exitRun, err}
			return
		}
		started <- c.cmd.Start()
	}()
	return <-started
}

// dropInherited takes from the calling thread the capabilities that outlive execve(2) of
// another user than root: ambient and inheritable ones (capabilities(7)).
func dropInherited() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_CAP_AMBIENT)", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}

// whyNot returns the error of a start with its exit code.
func (c *child) whyNot(err error) error {
	name := c.cmd.Args[0]
	switch {
	case errors.As(err, new(codeError)):
		return err
	case errors.Is(err, exec.ErrNotFound):
		return codeError{exitNotFound, fmt.Errorf("%s: command not found", name)}
	case errors.Is(err, fs.ErrNotExist):
		return codeError{exitNotFound, fmt.Errorf("%s: %w", name, rootCause(err))}
	case errors.Is(err, unix.EPERM) && c.account != nil:
		return codeError{exitRun, fmt.Errorf("run as %s: %w; only root may do that", c.account.name, err)}
	case errors.Is(err, unix.EACCES) && c.account == nil && c.executable():
		return codeError{exitRun, fmt.Errorf("%w: to move a process into another cgroup, this one has to be inside what was delegated to it: systemd-run --user --scope -p Delegate=yes srcproxy run", err)}
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EOPNOTSUPP):
		return codeError{exitRun, fmt.Errorf("start in the cgroup: %w", err)}
	}
	return codeError{exitNotExecutable, fmt.Errorf("%s: %w", name, rootCause(err))}
}

// executable reports whether the command is a file that this process may execute.
func (c *child) executable() bool {
	return c.group > 0 && unix.Access(c.cmd.Path, unix.X_OK) == nil
}

// rootCause returns the error of the system call, without the words around it.
func rootCause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}
