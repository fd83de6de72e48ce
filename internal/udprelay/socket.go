package udprelay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// The sizes of the sockets' buffers that are asked for, in bytes. They are bounds:
// memory is used only for what waits.
const (
	ForwardBuffer = 4 << 20 // of the sockets that clients send to
	ownerBuffer   = 1 << 20
)

// maxOwners is how many descriptors the owners may have: half of the process's, so
// that clients which each need a port of their own do not take those of other flows.
func maxOwners() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 512
	}
	return int(min(l.Cur/2, 1<<20))
}

// bindBeside binds at while the sockets beside share their port. SO_REUSEADDR must be
// set on both sides of a bind and counts only then; it is cleared again, so that
// nobody else gets the port (udp_lib_lport_inuse in the kernel's net/ipv4/udp.c).
func bindBeside(ctx context.Context, lc *pktinfo.ListenConfig, network string, at netip.AddrPort, beside []*pktinfo.Conn) (*pktinfo.Conn, error) {
	for _, c := range beside {
		if err := setReuse(c, 1); err != nil {
			return nil, err
		}
		defer func() { _ = setReuse(c, 0) }() // fails only on a closed socket
	}
	sharing := *lc
	sharing.Control = func(network, address string, c syscall.RawConn) error {
		if err := setReuseAddr(c, 1); err != nil {
			return err
		}
		if lc.Control != nil {
			return lc.Control(network, address, c)
		}
		return nil
	}
	c, err := sharing.ListenAddrPort(ctx, network, at)
	if err != nil {
		return nil, err
	}
	if err := setReuse(c, 0); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func setReuse(c *pktinfo.Conn, on int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return setReuseAddr(raw, on)
}

func setReuseAddr(c syscall.RawConn, on int) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		inner = os.NewSyscallError("setsockopt SO_REUSEADDR", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, on))
	})
	return errors.Join(err, inner)
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
func isInUse(err error) bool  { return errors.Is(err, unix.EADDRINUSE) }

func isWildcard(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }

// wildcard is any address of the family of peer.
func wildcard(peer netip.Addr) netip.Addr {
	if peer.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// boundTo returns the address of c as netip has it.
func boundTo(c *pktinfo.Conn) netip.AddrPort {
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{} // never: it is documented
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// numericZone writes the zone of a link-local address as pktinfo does: as a number.
func numericZone(p netip.AddrPort) netip.AddrPort {
	zone := p.Addr().Zone()
	if zone == "" {
		return p
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return p // a number already, or no interface: the send says so
	}
	return netip.AddrPortFrom(p.Addr().WithZone(strconv.Itoa(i.Index)), p.Port())
}

// hasGone tells whether err, of a send from source, came because that address is no
// longer on this host: EINVAL for IPv6, ENETUNREACH for IPv4 (Linux 6.18). Both have
// other causes as well, a missing route among them, so a bind settles it.
func hasGone(err error, source netip.Addr) bool {
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return false
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
	if err != nil {
		return errors.Is(err, unix.EADDRNOTAVAIL)
	}
	_ = c.Close() // nothing was sent
	return false
}

// kernelSource returns the address that the routing table chooses towards peer, or
// the zero Addr. It sends nothing.
func kernelSource(peer netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(peer))
	if err != nil {
		return netip.Addr{}
	}
	defer func() { _ = c.Close() }() // nothing was sent
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}
