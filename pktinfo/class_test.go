//go:build linux

package pktinfo_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// askClass makes reads learn TrafficClass.
func askClass(network, _ string, c syscall.RawConn) error {
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS
	if network == "udp4" {
		level, option = unix.IPPROTO_IP, unix.IP_RECVTOS
	}
	var inner error
	err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(err, inner)
}

// TestTrafficClass sends a row of datagrams with different classes, of which none may
// be taken for a neighbour's.
func TestTrafficClass(t *testing.T) {
	classes := []uint8{0xb8, 0xb8, 0x60, 0, 0x60, 0xb8}
	for _, tt := range []struct{ name, from, to, host string }{
		{"v4", "udp4", "udp4", "127.0.0.1"},
		{"dual-stack by v4", "udp", "udp4", "127.0.0.1"},
		{"dual-stack by v6", "udp", "udp6", "::1"},
		{"v6", "udp6", "udp6", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := listen(t, &pktinfo.ListenConfig{}, tt.from, ":0")
			far := listen(t, &pktinfo.ListenConfig{Control: askClass}, tt.to, ":0")
			out := messages(len(classes), 100, pktinfo.Addr{Peer: portAt(far, tt.host)})
			for i := range out {
				out[i].TrafficClass = classes[i]
			}
			if n, err := c.WriteBatch(out); n != len(out) || err != nil {
				t.Fatalf("sent %d, %v", n, err)
			}
			if err := far.SetReadDeadline(time.Now().Add(limit)); err != nil {
				t.Fatal(err)
			}
			in := room(1, 200)
			for i, want := range classes {
				if err := far.ReadMsg(&in[0]); err != nil {
					t.Fatal(err)
				}
				if got := in[0].TrafficClass; got != want {
					t.Errorf("datagram %d has class %#x, want %#x", i, got, want)
				}
			}
		})
	}
}

// TestTrafficClassAsXNet reads what x/net sets on a socket.
func TestTrafficClassAsXNet(t *testing.T) {
	for network, host := range map[string]string{"udp4": "127.0.0.1", "udp6": "::1"} {
		far := listen(t, &pktinfo.ListenConfig{Control: askClass}, network, ":0")
		c, err := net.Dial(network, portAt(far, host).String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // nothing is left to send
		if network == "udp4" {
			err = ipv4.NewConn(c).SetTOS(0xb8)
		} else {
			err = ipv6.NewConn(c).SetTrafficClass(0xb8)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		in := room(1, 200)
		if err := far.ReadMsg(&in[0]); err != nil {
			t.Fatal(err)
		}
		if got := in[0].TrafficClass; got != 0xb8 {
			t.Errorf("%s: got class %#x, want 0xb8", network, got)
		}
	}
}
