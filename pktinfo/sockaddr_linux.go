package pktinfo

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Socket addresses, ip(7) and ipv6(7):
//
//	struct sockaddr_in {               struct sockaddr_in6 {
//	    sa_family_t    sin_family;         sa_family_t     sin6_family;
//	    in_port_t      sin_port;           in_port_t       sin6_port;      /* network order */
//	    struct in_addr sin_addr;           uint32_t        sin6_flowinfo;
//	    char           sin_zero[8];        struct in6_addr sin6_addr;
//	};                                     uint32_t        sin6_scope_id;  /* host order */
//	                                   };

// sockaddr reads a socket address of either family; the zero AddrPort stands
// for any other.
func sockaddr(b []byte) netip.AddrPort {
	if len(b) < 2 {
		return netip.AddrPort{}
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= unix.SizeofSockaddrInet4:
		return sockaddr4(b)
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		return sockaddr6(b)
	}
	return netip.AddrPort{}
}

// sockaddr4 reads a struct sockaddr_in; b is long enough.
func sockaddr4(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
}

// sockaddr6 reads a struct sockaddr_in6; b is long enough. The scope, which
// only link-local addresses have, becomes the zone as a number: its name would
// cost a system call, and both are accepted by net.
func sockaddr6(b []byte) netip.AddrPort {
	a := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 && a.Is6() {
		a = a.WithZone(strconv.Itoa(int(scope)))
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[2:]))
}

// name is the space for one socket address.
type name [unix.SizeofSockaddrInet6]byte

// set writes a and returns its length. On an AF_INET6 socket an IPv4 address
// is written in its mapped form.
func (s *name) set(a netip.AddrPort, domain int) (uint32, error) {
	*s = name{}
	binary.BigEndian.PutUint16(s[2:], a.Port())
	ip := a.Addr()
	if domain == unix.AF_INET {
		binary.NativeEndian.PutUint16(s[:], unix.AF_INET)
		a4 := ip.As4() // panics on IPv6, which Conn.check has refused
		copy(s[4:], a4[:])
		return unix.SizeofSockaddrInet4, nil
	}
	scope, err := zoneIndex(ip.Zone())
	if err != nil {
		return 0, err
	}
	binary.NativeEndian.PutUint16(s[:], unix.AF_INET6)
	a16 := ip.As16()
	copy(s[8:], a16[:])
	binary.NativeEndian.PutUint32(s[24:], scope)
	return unix.SizeofSockaddrInet6, nil
}
