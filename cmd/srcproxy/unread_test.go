package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// serveTo starts the program with its log in a pipe, and returns it with the reading end.
func serveTo(t *testing.T, addr string) (*exec.Cmd, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.Cleanup(func() { r.Close() })
	cmd := exec.Command("srcproxy", "serve", "--listen", addr, "--source", "127.0.0.2")
	cmd.Stderr = w
	banner, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	if _, err := banner.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd, r
}

func mustTerminate(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // then Wait says so
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// TestServeWithoutReader closes the pipe into which the log goes.
func TestServeWithoutReader(t *testing.T) {
	addr := freeAddr(t)
	cmd, log := serveTo(t, addr)
	log.Close()
	for range 10 {
		end, _ := connect(t, addr)
		end()
	}
	mustTerminate(t, cmd)
}

// TestServeUnread writes more lines than the pipe and the backlog take, 64 KiB and 4096
// lines.
func TestServeUnread(t *testing.T) {
	addr := freeAddr(t)
	cmd, _ := serveTo(t, addr)
	for range 5000 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "?") // of no protocol, and so a line in the log
		c.Close()
	}
	end, _ := connect(t, addr)
	end()
	mustTerminate(t, cmd)
}
