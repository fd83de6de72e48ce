package egress

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
)

// ping sends one echo request from an address of src, and waits for the answer to it
// until ctx is done.
func ping(ctx context.Context, src *dialer.Source, from, to netip.Addr) error {
	s, err := openPing(to)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing was written that could be lost
	if err := s.join(src, from, to); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) }) // a closed one has ended
	defer stop()
	var cookie [16]byte
	_, _ = rand.Read(cookie[:]) // it never fails
	if err := s.send(cookie[:]); err != nil {
		return err
	}
	return s.receive(cookie[:])
}

// pingSocket is a socket for echo requests to one address.
type pingSocket struct {
	*os.File
	is4 bool
	raw bool // it gets all ICMP messages of that address, in IPv4 with the header
}

// openPing opens one that needs no right where net.ipv4.ping_group_range has a group of
// this process (Linux 3.0, for IPv6 3.11), else one that needs CAP_NET_RAW.
func openPing(to netip.Addr) (*pingSocket, error) {
	s := &pingSocket{is4: to.Is4()}
	family, protocol := unix.AF_INET6, unix.IPPROTO_ICMPV6
	if s.is4 {
		family, protocol = unix.AF_INET, unix.IPPROTO_ICMP
	}
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|flags, protocol)
	if err != nil {
		s.raw = true
		fd, err = unix.Socket(family, unix.SOCK_RAW|flags, protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("a ping needs CAP_NET_RAW, or a group of this process in net.ipv4.ping_group_range (sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"): %w",
			os.NewSyscallError("socket", err))
	}
	s.File = os.NewFile(uintptr(fd), "ping "+to.String())
	return s, nil
}

// join binds s to an address of src, and connects it, so that no message of others
// comes in.
func (s *pingSocket) join(src *dialer.Source, from, to netip.Addr) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if err := src.Control("", "", raw); err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		if src.FreeBind || src.Prefix.IsValid() {
			inner = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
		}
		if inner == nil {
			inner = os.NewSyscallError("bind", unix.Bind(int(fd), sockaddr(from)))
		}
		if inner == nil {
			inner = os.NewSyscallError("connect", unix.Connect(int(fd), sockaddr(to)))
		}
	})
	return errors.Join(err, inner)
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// send sends an echo request. The kernel adds the identifier, but on raw sockets, where
// the cookie has to do.
func (s *pingSocket) send(cookie []byte) error {
	m := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{Seq: 1, Data: cookie}}
	if s.is4 {
		m.Type = ipv4.ICMPTypeEcho
	}
	b, err := m.Marshal(nil) // of IPv6 the kernel makes the checksum
	if err != nil {
		return err
	}
	_, err = s.Write(b)
	return err
}

// receive waits for the answer to a request.
func (s *pingSocket) receive(cookie []byte) error {
	b := make([]byte, 1500)
	for {
		n, err := s.Read(b)
		if err != nil {
			return err
		}
		if s.answers(b[:n], cookie) {
			return nil
		}
	}
}

// answers reports whether b is the answer to the request with the cookie.
func (s *pingSocket) answers(b, cookie []byte) bool {
	protocol := unix.IPPROTO_ICMPV6
	if s.is4 {
		protocol = unix.IPPROTO_ICMP
		if s.raw {
			b = b[min(len(b), ipv4HeaderLen(b)):]
		}
	}
	m, err := icmp.ParseMessage(protocol, b)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return ok && bytes.Equal(echo.Data, cookie)
}

// ipv4HeaderLen returns the length of the header that b begins with (RFC 791 section 3.1).
func ipv4HeaderLen(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return int(b[0]&0x0f) * 4
}

// CanPing returns why this process cannot make probes of the kind icmp, or nil.
func CanPing() error {
	s, err := openPing(netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	return s.Close()
}
