package dialer_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"golang.org/x/sys/unix"
)

// blackHole listens on address with a full queue, so that the kernel drops whatever
// comes: a dial there waits.
func blackHole(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	want := netip.MustParseAddrPort(address)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: want.Addr().As4(), Port: int(want.Port())}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(want.Addr(), uint16(name.(*unix.SockaddrInet4).Port))
	filler, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = filler.Close() })
	return at
}

// option reads an option of the socket behind c.
func option(t *testing.T, c any, level, name int) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	var inner error
	if err := raw.Control(func(fd uintptr) { v, inner = unix.GetsockoptInt(int(fd), level, name) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return v
}

// TestOptions reads back what the sockets were given.
func TestOptions(t *testing.T) {
	server, server6 := serve(t, "127.0.0.1:0"), serve(t, "[::1]:0")
	free := &dialer.Source{Name: "free", Addrs: addrs("127.0.0.5"), FreeBind: true}
	prefix := &dialer.Source{Name: "prefix", Prefix: netip.MustParsePrefix("127.64.0.0/16")}
	for _, tt := range []struct {
		name      string
		table     *dialer.Table
		dst       netip.AddrPort
		freeBind  int
		reuseAddr int
		noPort    int
	}{
		{"plain", newTable(t, from(mail)), server, 0, 0, 1},
		{"IPv6", newTable(t, from(mail)), server6, 0, 0, 1},
		{"free bind", newTable(t, from(free)), server, 1, 0, 1},
		{"prefix", newTable(t, from(prefix)), server, 1, 0, 1},
		{"fixed port", newTable(t, deny, dialer.Rule{Use: from(wan1), SourcePort: freePort(t, "127.0.0.2")}), server, 0, 1, 0},
		{"no table", nil, server, 0, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &dialer.Dialer{Table: tt.table}
			c, dec, err := d.DialFlow(t.Context(), tcp(tt.dst.String()))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if saw := peer(t, c); dec.Addr.IsValid() && saw.Addr() != dec.Addr || dec.Port != 0 && saw.Port() != dec.Port {
				t.Errorf("the server saw %v, decided was %v port %d", saw, dec.Addr, dec.Port)
			}
			if got := option(t, c, unix.IPPROTO_IP, unix.IP_FREEBIND); got != tt.freeBind {
				t.Errorf("IP_FREEBIND is %d", got)
			}
			if got := option(t, c, unix.SOL_SOCKET, unix.SO_REUSEADDR); got != tt.reuseAddr {
				t.Errorf("SO_REUSEADDR is %d", got)
			}
			if got := option(t, c, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT); got != tt.noPort {
				t.Errorf("IP_BIND_ADDRESS_NO_PORT is %d", got)
			}
			if got := option(t, c, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP {
				t.Errorf("SO_PROTOCOL is %d, want plain TCP", got)
			}
			if got := option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != 1 {
				t.Errorf("SO_KEEPALIVE is %d", got)
			}
		})
	}
}

// freePort returns a port of a that nobody has now.
func freePort(t *testing.T, a string) uint16 {
	t.Helper()
	for range 100 {
		// Below the ephemeral ports: one of those may be somebody's local port by the time it is used.
		port := uint16(10000 + rand.IntN(20000))
		if l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", a, port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
