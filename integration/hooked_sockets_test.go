//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// makesSockets makes a datagram socket for each line, and hands it over: hooks judge a socket by the cgroup in which it was
// made, whoever uses it.
const makesSockets = `
over = socket(fileno=3)
for line in sys.stdin:
    family, port, shared = map(int, line.split())
    s = socket(family, SOCK_DGRAM)
    s.setsockopt(SOL_SOCKET, SO_REUSEPORT, shared)
    if port: s.bind(("", port))
    send_fds(over, [b"x"], [s.fileno()])
    s.close()`

// maker makes sockets in the cgroup of its program.
type maker struct {
	t    testing.TB
	in   io.Writer
	over int
}

func (h *hooked) maker() *maker {
	h.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = unix.Close(pair[0]) }) // nothing is lost with it
	theirs := os.NewFile(uintptr(pair[1]), "sockets")
	cmd := h.python(makesSockets)
	cmd.ExtraFiles = []*os.File{theirs}
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.Proxy.Start(h.t, cmd)
	if err := theirs.Close(); err != nil {
		h.t.Fatal(err)
	}
	return &maker{t: h.t, in: in, over: pair[0]}
}

// datagrams is a socket of a hooked program. Its methods may be called by several goroutines, but for what says otherwise.
type datagrams struct {
	t  testing.TB
	fd int
	v6 bool
}

// socket makes a socket of a family. Port 0 lets the kernel choose, with the first datagram.
func (m *maker) socket(family, port int) *datagrams { return m.make(family, port, 0) }

func (m *maker) make(family, port, shared int) *datagrams {
	m.t.Helper()
	if _, err := fmt.Fprintln(m.in, family, port, shared); err != nil {
		m.t.Fatal(err)
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(m.over, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		m.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		m.t.Fatalf("the program has handed over %d messages: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		m.t.Fatal(err)
	}
	s := &datagrams{t: m.t, fd: fds[0], v6: family == unix.AF_INET6}
	m.t.Cleanup(s.close)
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// close closes the socket, which may be closed already.
func (s *datagrams) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // nothing is lost with it
	}
	s.fd = -1
}

// sockaddr is to in the family of the socket.
func (s *datagrams) sockaddr(to netip.AddrPort) unix.Sockaddr {
	if s.v6 {
		return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
}

// send sends a datagram; from is what its control message says that it is to leave from, if anything.
func (s *datagrams) send(to netip.AddrPort, from netip.Addr) error {
	return s.sendTo(s.sockaddr(to), from)
}

// sendTo is send; a connected socket may send to nil.
func (s *datagrams) sendTo(to unix.Sockaddr, from netip.Addr) error {
	var oob []byte
	switch {
	case !from.IsValid():
	case s.v6:
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16()})
	default:
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})
	}
	return unix.Sendmsg(s.fd, []byte("who"), oob, to, 0)
}

// ask sends a datagram and returns where the far end saw it come from, or the name of the error. One goroutine may ask.
func (s *datagrams) ask(to netip.AddrPort, from netip.Addr) string {
	s.t.Helper()
	if err := s.send(to, from); err != nil {
		return nameOf(err)
	}
	return s.heard()
}

func (s *datagrams) heard() string {
	s.t.Helper()
	b := make([]byte, 100)
	n, err := unix.Read(s.fd, b)
	if err != nil {
		return "no answer: " + nameOf(err)
	}
	a, err := netip.ParseAddrPort(string(b[:max(n-1, 0)]))
	if err != nil {
		s.t.Fatal(err)
	}
	return a.Addr().String()
}

func nameOf(err error) string {
	var e syscall.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// wants asks without a control message.
func (s *datagrams) wants(to netip.AddrPort, want string) {
	s.t.Helper()
	if got := s.ask(to, netip.Addr{}); got != want {
		s.t.Errorf("to %v: got %s, want %s", to, got, want)
	}
}

// connect connects to a destination, or, where that is no address, disconnects.
func (s *datagrams) connect(to netip.AddrPort) {
	s.t.Helper()
	if err := s.tryConnect(to); err != nil {
		s.t.Errorf("connect to %v: %v", to, err)
	}
}

func (s *datagrams) tryConnect(to netip.AddrPort) error {
	if to.IsValid() {
		return unix.Connect(s.fd, s.sockaddr(to))
	}
	var none unix.RawSockaddr // AF_UNSPEC, which no unix.Sockaddr is
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(s.fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none))
	if e != 0 {
		return e
	}
	return nil
}

// bind gives a socket that has sent already another port, and an address where a is one.
func (s *datagrams) bind(a netip.Addr, port uint16) {
	s.t.Helper()
	s.connect(netip.AddrPort{}) // which lets go of the port
	if !a.IsValid() {
		a = netip.IPv6Unspecified()
		if !s.v6 {
			a = netip.IPv4Unspecified()
		}
	}
	if err := unix.Bind(s.fd, s.sockaddr(netip.AddrPortFrom(a, port))); err != nil {
		s.t.Errorf("bind to %v, port %d: %v", a, port, err)
	}
}

// server4 and server6 are addresses of the server at the port that answers.
func server4(i int) netip.AddrPort { return netip.AddrPortFrom(nstest.ServerV4(i), 7) }
func server6(i int) netip.AddrPort { return netip.AddrPortFrom(nstest.ServerV6(i), 7) }
