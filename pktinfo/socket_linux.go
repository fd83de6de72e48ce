package pktinfo

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is what a Conn keeps on Linux.
type socket struct {
	domain   int // AF_INET or AF_INET6
	errors   bool
	features Features
	// joinable is the largest datagram that UDP_SEGMENT took so far or may take;
	// it falls when the kernel refuses one (the MTU of some path is smaller).
	joinable atomic.Int32

	mu    sync.Mutex
	drops uint64 // all of them; the kernel's counter has 32 bits
}

// control calls f with the descriptor, and loses neither error.
func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cause(cerr)
	}
	return err
}

// listen opens a net.UDPConn with all options set before the bind: a datagram
// that came in between would have no local address.
func (lc *ListenConfig) listen(ctx context.Context, network, address string) (*Conn, error) {
	nc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := control(c, lc.setOptions); err != nil {
			return err
		}
		if lc.Control != nil {
			return lc.Control(network, address, c)
		}
		return nil
	}}
	p, err := nc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	u, ok := p.(*net.UDPConn)
	if !ok {
		_ = p.Close() // never reached: the networks were checked
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	c, err := newConn(u, lc)
	if err != nil {
		_ = u.Close() // the first error tells more
		return nil, err
	}
	return c, nil
}

// option is an integer socket option.
type option struct {
	name              string
	level, opt, value int
}

// set sets o and names it where that fails.
func (o option) set(fd int) error {
	return os.NewSyscallError("setsockopt "+o.name, unix.SetsockoptInt(fd, o.level, o.opt, o.value))
}

// setOptions sets all that lc asks for on a socket that is not bound yet.
func (lc *ListenConfig) setOptions(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_DOMAIN", err)
	}
	for _, o := range lc.options(domain) {
		if err := o.set(fd); err != nil {
			return err
		}
	}
	if err := setBuffer(fd, "SO_RCVBUF", unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, lc.ReadBuffer); err != nil {
		return err
	}
	return setBuffer(fd, "SO_SNDBUF", unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, lc.WriteBuffer)
}

// options lists the options of lc. An AF_INET6 socket gets both families',
// since those for IPv4 rule its IPv4-mapped datagrams.
func (lc *ListenConfig) options(domain int) []option {
	os := packetInfo(domain)
	add := func(on bool, name string, value, opt4, opt6 int) {
		if !on {
			return
		}
		os = append(os, option{"IP_" + name, unix.IPPROTO_IP, opt4, value})
		if domain == unix.AF_INET6 {
			os = append(os, option{"IPV6_" + name, unix.IPPROTO_IPV6, opt6, value})
		}
	}
	add(lc.FreeBind, "FREEBIND", 1, unix.IP_FREEBIND, unix.IPV6_FREEBIND) // v6: kernel 4.15
	add(lc.Transparent, "TRANSPARENT", 1, unix.IP_TRANSPARENT, unix.IPV6_TRANSPARENT)
	add(lc.Transparent, "RECVORIGDSTADDR", 1, unix.IP_RECVORIGDSTADDR, unix.IPV6_RECVORIGDSTADDR)
	add(lc.Errors, "RECVERR", 1, unix.IP_RECVERR, unix.IPV6_RECVERR)
	// The constants of the two families have the same values, 0 is DONT.
	add(lc.MTUDiscover != MTUDiscoverDefault, "MTU_DISCOVER", int(lc.MTUDiscover)-1, unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER)
	return os
}

// packetInfo lists the options that bring the local address. IP_PKTINFO on an
// AF_INET6 socket tells the address to answer from when an IPv4 datagram came
// to a broadcast address or a group; IPV6_PKTINFO then has that address itself.
func packetInfo(domain int) []option {
	os := []option{{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1}}
	if domain == unix.AF_INET6 {
		os = append(os, option{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1})
	}
	return os
}

// setBuffer sets the size of a buffer, past the sysctl's limit where the
// process may.
func setBuffer(fd int, name string, force, plain, n int) error {
	if n <= 0 || unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, n) == nil {
		return nil
	}
	return option{name, unix.SOL_SOCKET, plain, n}.set(fd)
}

// setUp finds out what the socket is, and sets what New's callers have not.
func (c *Conn) setUp(lc *ListenConfig) error {
	return control(c.raw, func(fd int) error {
		var err error
		if c.domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
			return os.NewSyscallError("getsockopt SO_DOMAIN", err)
		}
		for _, o := range packetInfo(c.domain) {
			if err := o.set(fd); err != nil {
				return err
			}
		}
		c.errors = isOn(fd, unix.IPPROTO_IP, unix.IP_RECVERR) ||
			c.domain == unix.AF_INET6 && isOn(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR)
		c.probe(fd, lc != nil && lc.GRO)
		return nil
	})
}

// isOn tells whether an option is set; one the kernel does not know is not.
func isOn(fd, level, opt int) bool {
	v, err := unix.GetsockoptInt(fd, level, opt)
	return err == nil && v != 0
}

// probe finds the features. A kernel without UDP_GRO is no error: the Conn
// works, datagrams come one by one.
func (c *Conn) probe(fd int, gro bool) {
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	c.features.GSO = err == nil
	if gro {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		c.features.GRO = err == nil
	} else {
		c.features.GRO = isOn(fd, unix.IPPROTO_UDP, unix.UDP_GRO)
	}
	if c.features.GSO {
		c.joinable.Store(maxJoined)
	}
}

// skMeminfoDrops is SK_MEMINFO_DROPS of linux/sock_diag.h, and skMeminfoVars
// the length of the array in which it stands.
const (
	skMeminfoDrops = 8
	skMeminfoVars  = 9
)

// dropped reads the kernel's counter and adds what is new since the last time.
func (c *Conn) dropped() (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := control(c.raw, func(fd int) error {
		var info [skMeminfoVars]uint32
		n := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			return os.NewSyscallError("getsockopt SO_MEMINFO", errno)
		}
		c.drops += uint64(info[skMeminfoDrops] - uint32(c.drops))
		return nil
	})
	if err != nil {
		return c.drops, c.readError(err)
	}
	return c.drops, nil
}

func (c *Conn) readBuffer() (int, error)  { return c.socketOption("SO_RCVBUF", unix.SO_RCVBUF) }
func (c *Conn) writeBuffer() (int, error) { return c.socketOption("SO_SNDBUF", unix.SO_SNDBUF) }

func (c *Conn) socketOption(name string, opt int) (n int, err error) {
	err = control(c.raw, func(fd int) error {
		var err error
		n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		return os.NewSyscallError("getsockopt "+name, err)
	})
	if err != nil {
		return 0, c.readError(err)
	}
	return n, nil
}
