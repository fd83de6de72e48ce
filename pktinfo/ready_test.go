//go:build linux

package pktinfo_test

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/pktinfo"
	"golang.org/x/sys/unix"
)

// TestReadReady reads without waiting. An error that is all there is goes to the
// callback, and is gone then: a level-triggered epoll would else report it for ever.
func TestReadReady(t *testing.T) {
	errs := make(chan pktinfo.SocketError, 1)
	c := big(t, pktinfo.ListenConfig{Errors: true, OnError: func(e pktinfo.SocketError) { errs <- e }}, "udp4")
	ms := messages(4, 100, pktinfo.Addr{})
	readReady := func(want int) {
		t.Helper()
		if n, err := c.ReadReady(ms); n != want || err != nil {
			t.Fatalf("ReadReady = %d, %v, want %d", n, err, want)
		}
	}
	readReady(0)
	client := big(t, pktinfo.ListenConfig{}, "udp4")
	for range 5 {
		write(t, client, "x", at(c, "127.0.0.2"))
	}
	readReady(4)
	if m := ms[3]; m.N != 1 || m.Addr.Local != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("got %+v", m)
	}
	readReady(1)
	dead := deaf(t, "127.0.0.1", 1)[0]
	if err := c.WriteMsg(&pktinfo.Message{Buf: []byte("x"), N: 1, Addr: pktinfo.Addr{Peer: dead}}); err != nil {
		t.Fatal(err)
	}
	if events(t, c)&unix.POLLERR == 0 {
		t.Fatal("there is no error")
	}
	readReady(0)
	if e := <-errs; e.Peer != dead {
		t.Errorf("an error about %v, want %v", e.Peer, dead)
	}
	if got := events(t, c); got != 0 {
		t.Errorf("poll says %#x when all is read", got)
	}
	if n, err := c.ReadReady(nil); n != 0 || err != nil {
		t.Errorf("ReadReady of no messages = %d, %v", n, err)
	}
}

// events is what poll(2) says of c now.
func events(t *testing.T, c *pktinfo.Conn) (revents int16) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, inner = unix.Poll(fds, 0)
		revents = fds[0].Revents
	})
	if err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return revents
}
