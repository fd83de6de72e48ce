//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestVanishedSource takes the source's address away and puts it back: in
// between new TCP flows are refused, datagrams go nowhere, and not a packet
// leaves from another address, nor from the one that is gone.
func TestVanishedSource(t *testing.T) {
	for _, test := range []struct {
		name   string
		source netip.Prefix
		dst    netip.Addr
	}{
		{"v4", netip.PrefixFrom(nstest.ProxyV4(30), 24), nstest.ServerV4(1)},
		{"v6", netip.PrefixFrom(nstest.ProxyV6(30), 64), nstest.ServerV6(1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			echo := r.Server.EchoTCP(t, wildcard(test.dst, 7))
			r.Server.EchoUDP(t, wildcard(test.dst, 7))
			leaks := r.Server.CountLeaks(t, "wan0")
			r.serve(fmt.Sprintf("default = %q\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[[listen]]\nudp = \"127.0.0.1:5300\"\nto = %q\nuse = %q\nsource_port = 5300\n",
				test.source.Addr(), at(test.dst, 7), test.source.Addr()))
			dst := at(test.dst, echo.Addr.Port())
			u, err := r.Proxy.Dial(net.Dialer{}, "udp", "127.0.0.1:5300")
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			works := func() error {
				c, err := r.through("127.0.0.1:1080", dst)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = tryEcho(c, "x")
				return err
			}
			if err := works(); err != nil {
				t.Fatal(err)
			}
			echoed(t, u, "before")
			r.log.wait(t, 1, "flow")

			r.Proxy.DelAddr(t, "wan0", test.source)
			before := leaks.Seen(t)
			if err := works(); err != refused(replyNetwork) {
				t.Errorf("TCP without the address: %v, want %v", err, refused(replyNetwork))
			}
			for range 10 {
				_, _ = u.Write([]byte("gone")) // may tell of an earlier one that was refused
			}
			_ = u.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // of an open socket
			if n, err := u.Read(make([]byte, 10)); err == nil {
				t.Errorf("%d bytes came back without the address", n)
			} else if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Logf("UDP without the address: %v", err)
			}
			if err := works(); err == nil {
				t.Error("TCP works without the address")
			}
			after := leaks.Seen(t)
			for p, n := range after {
				if n != before[p] {
					t.Errorf("%d packets %+v while the address was away", n-before[p], p)
				}
			}

			r.Proxy.AddAddr(t, "wan0", test.source)
			eventually(t, "TCP works again", func() bool { return works() == nil })
			eventually(t, "UDP works again", func() bool { return askAgain(u) })
			leaks.Allow(test.source.Addr())
			if n, details := leaks.Leaks(t); n != 0 {
				t.Errorf("%d packets from other addresses: %q", n, details)
			}
		})
	}
}

// askAgain sends a datagram and reports whether an answer came.
func askAgain(c net.Conn) bool {
	if _, err := c.Write([]byte("again")); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // of an open socket
	_, err := c.Read(make([]byte, 10))
	return err == nil
}
