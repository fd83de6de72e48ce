package inbound

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOutOfDescriptors takes the process's last descriptor away: the listener pauses,
// what is established goes on, dials are answered, and all is well again afterwards.
func TestOutOfDescriptors(t *testing.T) {
	target := serve(t, echo)
	r := start(t, nil)
	flow, socks, http := r.dial(t), r.dial(t), r.dial(t)
	mustSend(t, flow, hello5+connect5(target.addr()))
	mustGet(t, flow, ok5)
	mustReply(t, flow, 0)
	mustSend(t, socks, hello5)
	mustGet(t, socks, ok5)
	mustSend(t, http, "CONNECT ")
	eventually(t, func() string {
		if n := len(r.s.Shared.Descriptors.slots); n != 5 { // 3 clients, 1 server, 1 for the next
			return "not all are accepted"
		}
		return ""
	})
	late, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(late) }() // nothing is lost

	restore := exhaust(t)
	addr := &unix.SockaddrInet4{Port: int(addrPort(r.Addr()).Port()), Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Connect(late, addr); err != nil {
		t.Fatal(err)
	}
	pause := r.log.wait(t, "accept paused", 1)[0]
	if !strings.Contains(pause["err"].(string), unix.EMFILE.Error()) {
		t.Errorf("got %v, want EMFILE", pause)
	}
	mustSend(t, flow, "on")
	mustGet(t, flow, "on")
	mustSend(t, socks, connect5(target.addr()))
	mustReply(t, socks, 1)
	mustEnd(t, socks)
	mustSend(t, http, connectHTTP(target.addr().String())[len("CONNECT "):])
	mustGet(t, http, "HTTP/1.1 503 ")
	restore()

	tv := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(late, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := unix.Write(late, []byte(hello5)); err != nil {
		t.Fatal(err)
	}
	var got [2]byte
	if _, err := unix.Read(late, got[:]); err != nil || string(got[:]) != ok5 {
		t.Errorf("got %q, %v, want %q", got, err, ok5)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the listener came back after %v", took)
	}
	if n := len(r.log.all("accept paused")); n > 2 {
		t.Errorf("got %d lines about the pause, want one a second", n)
	}
}

// exhaust lowers the limit of open files to the first number that is free.
func exhaust(t *testing.T) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(free); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(restore) // also when the test fails before
	return restore
}
