//go:build linux

package pktinfo_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/srcproxy/srcproxy/pktinfo"
	"golang.org/x/sys/unix"
)

// inside tells a test that it runs in the namespaces that inNamespace made.
const inside = "PKTINFO_TEST_INSIDE"

// inNamespace runs the calling test once more, in user and network namespaces
// of its own whose loopback has the given MTU; f is what it does there.
func inNamespace(t *testing.T, mtu uint32, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(inside) != "" {
		if err := raiseLoopback(mtu); err != nil {
			t.Fatal(err)
		}
		f(t)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EACCES):
		t.Skipf("this host allows no user namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
}

func raiseLoopback(mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r); err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// TestLargerThanMTU sends runs and segmented messages that UDP_SEGMENT refuses
// since each datagram exceeds the MTU: they must arrive all the same, and
// smaller ones must still be joined.
func TestLargerThanMTU(t *testing.T) {
	inNamespace(t, 1500, func(t *testing.T) {
		for _, lc := range []pktinfo.ListenConfig{{}, {Errors: true}} {
			server := big(t, pktinfo.ListenConfig{GRO: true}, "udp")
			client := big(t, lc, "udp")
			to := pktinfo.Addr{Peer: portAt(server, "127.0.0.1"), Local: netip.MustParseAddr("127.0.0.2")}
			segmented := messages(2, 9000, to)
			segmented[0].Segment, segmented[1].Segment = 4000, 4000
			odd := messages(10, 4000, to)
			odd[9].N = 3
			for _, ms := range [][]pktinfo.Message{odd, segmented, messages(70, 2000, to), segmented} {
				if n, err := client.WriteBatch(ms); n != len(ms) || err != nil {
					t.Fatalf("WriteBatch = %d, %v, want %d", n, err, len(ms))
				}
				want := payloads(ms)
				if diff := cmp.Diff(want, first(readAll(t, server, len(want)))); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
			wantJoined(t, client, server, to)
		}
	})
}

func wantJoined(t *testing.T, client, server *pktinfo.Conn, to pktinfo.Addr) {
	t.Helper()
	if n, err := client.WriteBatch(messages(20, 1000, to)); n != 20 || err != nil {
		t.Fatal(n, err)
	}
	m := pktinfo.Message{Buf: make([]byte, 1<<16)}
	if err := server.ReadMsg(&m); err != nil || m.N != 20_000 || m.Segment != 1000 {
		t.Errorf("N %d, Segment %d, %v: small datagrams are no longer joined", m.N, m.Segment, err)
	}
}

// in6Ifreq is struct in6_ifreq of linux/ipv6.h:
//
//	struct in6_ifreq {
//	    struct in6_addr ifr6_addr;
//	    __u32           ifr6_prefixlen;
//	    int             ifr6_ifindex;
//	};
type in6Ifreq struct {
	addr      [16]byte
	prefixLen uint32
	ifIndex   int32
}

// address adds (SIOCSIFADDR) or deletes (SIOCDIFADDR) an IPv6 address at lo.
func address(t *testing.T, request uintptr, a netip.Addr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r := in6Ifreq{addr: a.As16(), prefixLen: 128, ifIndex: 1}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&r))); errno != 0 {
		t.Fatal(errno)
	}
	if request != unix.SIOCSIFADDR {
		return
	}
	if a.IsLinkLocalUnicast() {
		a = a.WithZone("1")
	}
	// The kernel takes up a new address in the background.
	for end := time.Now().Add(limit); time.Now().Before(end); {
		c, err := pktinfo.Listen("udp", netip.AddrPortFrom(a, 0).String())
		if err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatalf("%v is not usable within the limit", a)
}

// TestVanishedSource deletes an IPv6 address under bound, wildcard and
// connected sockets. A plain send would leave from it all the same.
func TestVanishedSource(t *testing.T) {
	inNamespace(t, 1500, func(t *testing.T) {
		gone := netip.MustParseAddr("2001:db8::5")
		address(t, unix.SIOCSIFADDR, gone)
		server := listen(t, &pktinfo.ListenConfig{}, "udp", ":0")
		wildcard := listen(t, &pktinfo.ListenConfig{}, "udp", ":0")
		bound := listen(t, &pktinfo.ListenConfig{}, "udp", "["+gone.String()+"]:0")
		to := pktinfo.Addr{Peer: portAt(server, "::1")}
		from := pktinfo.Addr{Peer: to.Peer, Local: gone}
		send := func(want error) {
			t.Helper()
			for c, a := range map[*pktinfo.Conn]*pktinfo.Addr{wildcard: &from, bound: &to} {
				_, err := c.WriteTo([]byte("x"), a)
				if !errors.Is(err, want) {
					t.Fatalf("got %v, want %v", err, want)
				}
				if err != nil {
					wantSource(t, err, gone)
				} else if _, a := read(t, server); a.(*pktinfo.Addr).Peer.Addr() != gone {
					t.Errorf("came from %v", a)
				}
			}
		}
		send(nil)
		address(t, unix.SIOCDIFADDR, gone)
		send(unix.EINVAL)
		address(t, unix.SIOCSIFADDR, gone)
		send(nil)
	})
}

// TestLinkLocal asks a link-local address and is answered from it: the
// interface is a part of both addresses.
func TestLinkLocal(t *testing.T) {
	inNamespace(t, 1500, func(t *testing.T) {
		host := netip.MustParseAddr("fe80::9")
		address(t, unix.SIOCSIFADDR, host)
		server := listen(t, &pktinfo.ListenConfig{}, "udp", ":0")
		client := listen(t, &pktinfo.ListenConfig{}, "udp6", ":0")
		for _, zone := range []string{"1", "lo"} {
			asked := pktinfo.Addr{Peer: portAt(server, "fe80::9%"+zone), Local: host, IfIndex: 1}
			write(t, client, "ask", &asked)
			_, a := read(t, server)
			from := *a.(*pktinfo.Addr)
			if want := (pktinfo.Addr{Peer: portAt(client, "fe80::9%1"), Local: host, IfIndex: 1}); from != want {
				t.Errorf("got %+v, want %+v", from, want)
			}
			write(t, server, "answer", &from)
			if _, a := read(t, client); a.(*pktinfo.Addr).Peer != portAt(server, "fe80::9%1") {
				t.Errorf("answer from %v", a)
			}
		}
		ms := messages(1, 9, pktinfo.Addr{Peer: portAt(server, "fe80::9%1")})
		in := room(1, 9)
		got := testing.AllocsPerRun(50, func() {
			if _, err := client.WriteBatch(ms); err != nil {
				t.Error(err)
			}
			if _, err := server.ReadBatch(in); err != nil {
				t.Error(err)
			}
		})
		if got != 0 && !raceEnabled {
			t.Errorf("%v allocations", got)
		}
		_, err := client.WriteTo(nil, &pktinfo.Addr{Peer: portAt(server, "fe80::9%none")})
		if err == nil {
			t.Error("an unknown zone is no error")
		}
	})
}
