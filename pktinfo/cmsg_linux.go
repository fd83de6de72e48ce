package pktinfo

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Control messages, cmsg(3):
//
//	struct cmsghdr {
//	    size_t cmsg_len;    /* header and data, without the padding behind */
//	    int    cmsg_level;
//	    int    cmsg_type;
//	};
//
// followed by data, padded to the size of a long. They are written and read
// byte by byte in the host's order: the kernel asks for no alignment of the
// buffer, and neither do AppendControl and ParseControl.

var errControl = errors.New("pktinfo: malformed control message")

// The sizes of what follows the headers. They are those of the kernel's
// structs, which have the same layout on all architectures.
const (
	sizeofSegment    = 2  // __u16, UDP_SEGMENT
	sizeofClass      = 4  // int, IP_TOS and IPV6_TCLASS, when sending
	sizeofGRO        = 4  // int, UDP_GRO
	sizeofExtended   = 16 // struct sock_extended_err
	sizeofOrigDst4   = unix.SizeofSockaddrInet4
	sizeofOrigDst6   = unix.SizeofSockaddrInet6
	sizeofPktinfo4   = unix.SizeofInet4Pktinfo
	sizeofPktinfo6   = unix.SizeofInet6Pktinfo
	offsetCmsgLevel  = unix.SizeofCmsghdr - 8
	offsetCmsgType   = unix.SizeofCmsghdr - 4
	ip6OrigDstAddr   = unix.IPV6_ORIGDSTADDR
	ip4OrigDstAddr   = unix.IP_ORIGDSTADDR
	maximumSegmented = 65535 // what fits the __u16 of UDP_SEGMENT
)

// AppendControl appends to b the control messages that send a datagram from
// local (IP_PKTINFO for IPv4 and IPv4-mapped addresses, on AF_INET6 sockets
// too; IPV6_PKTINFO for IPv6), out of the interface ifIndex unless that is 0,
// and cut into datagrams of segment bytes unless that is 0 (UDP_SEGMENT). A
// local that is not valid appends no packet information; an unspecified one
// leaves the address to the kernel and sets the interface. It allocates only
// when b is too small.
func AppendControl(b []byte, local netip.Addr, ifIndex, segment int) []byte {
	switch local = local.Unmap(); {
	case local.Is4():
		// struct in_pktinfo {
		//     int            ipi_ifindex;
		//     struct in_addr ipi_spec_dst;  /* the source, when sending */
		//     struct in_addr ipi_addr;      /* the header's destination, when receiving */
		// };
		a := local.As4()
		b = appendHeader(b, unix.IPPROTO_IP, unix.IP_PKTINFO, sizeofPktinfo4)
		b = binary.NativeEndian.AppendUint32(b, uint32(ifIndex))
		b = append(b, a[:]...)
		b = appendPadding(append(b, 0, 0, 0, 0), sizeofPktinfo4)
	case local.Is6():
		// struct in6_pktinfo {
		//     struct in6_addr ipi6_addr;
		//     int             ipi6_ifindex;
		// };
		a := local.As16()
		b = appendHeader(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, sizeofPktinfo6)
		b = append(b, a[:]...)
		b = binary.NativeEndian.AppendUint32(b, uint32(ifIndex))
		b = appendPadding(b, sizeofPktinfo6)
	}
	if segment > 0 && segment <= maximumSegmented {
		b = appendHeader(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, sizeofSegment)
		b = binary.NativeEndian.AppendUint16(b, uint16(segment))
		b = appendPadding(b, sizeofSegment)
	}
	return b
}

// appendClass appends the control message that sends a datagram of that family with
// a traffic class, unless that is zero. IP_TOS (kernel 3.13) counts on AF_INET6
// sockets as well when they send to an IPv4 address.
func appendClass(b []byte, ipv4 bool, class uint8) []byte {
	if class == 0 {
		return b
	}
	level, typ := unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	if ipv4 {
		level, typ = unix.IPPROTO_IP, unix.IP_TOS
	}
	b = appendHeader(b, level, typ, sizeofClass)
	b = binary.NativeEndian.AppendUint32(b, uint32(class))
	return appendPadding(b, sizeofClass)
}

// appendHeader appends a struct cmsghdr for n bytes of data.
func appendHeader(b []byte, level, typ, n int) []byte {
	if unix.SizeofPtr == 8 {
		b = binary.NativeEndian.AppendUint64(b, uint64(unix.CmsgLen(n)))
	} else {
		b = binary.NativeEndian.AppendUint32(b, uint32(unix.CmsgLen(n)))
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	return binary.NativeEndian.AppendUint32(b, uint32(typ))
}

// appendPadding appends the zeros behind n bytes of data.
func appendPadding(b []byte, n int) []byte {
	var zeros [8]byte
	return append(b, zeros[:unix.CmsgSpace(n)-unix.CmsgLen(n)]...)
}

// ParseControl reads control messages as recvmsg(2) returns them, or as
// AppendControl makes them, and returns a Message with Addr.Local,
// Addr.IfIndex, OrigDst, Segment and TrafficClass set from what it finds. Messages of other
// kinds are passed over. An error means that a length is wrong; what stood
// before it is returned.
func ParseControl(b []byte) (Message, error) {
	var m Message
	err := parseControl(b, &m, nil)
	return m, err
}

// parseControl sets what it finds in m, and in e where that is not nil.
func parseControl(b []byte, m *Message, e *SocketError) error {
	for len(b) > 0 {
		level, typ, data, rest, err := nextControl(b)
		if err != nil {
			return err
		}
		switch level {
		case unix.IPPROTO_IP:
			err = parseIPv4(typ, data, m, e)
		case unix.IPPROTO_IPV6:
			err = parseIPv6(typ, data, m, e)
		case unix.IPPROTO_UDP:
			err = parseUDP(typ, data, m)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// nextControl cuts the first control message off b.
func nextControl(b []byte) (level, typ int, data, rest []byte, err error) {
	if len(b) < unix.SizeofCmsghdr {
		return 0, 0, nil, nil, errControl
	}
	var n uint64
	if unix.SizeofPtr == 8 {
		n = binary.NativeEndian.Uint64(b)
	} else {
		n = uint64(binary.NativeEndian.Uint32(b))
	}
	if n < unix.SizeofCmsghdr || n > uint64(len(b)) {
		return 0, 0, nil, nil, errControl
	}
	level = int(int32(binary.NativeEndian.Uint32(b[offsetCmsgLevel:])))
	typ = int(int32(binary.NativeEndian.Uint32(b[offsetCmsgType:])))
	data = b[unix.CmsgLen(0):n]
	// The padding behind the last message may be missing.
	return level, typ, data, b[min(unix.CmsgSpace(len(data)), len(b)):], nil
}

func parseIPv4(typ int, data []byte, m *Message, e *SocketError) error {
	switch typ {
	case unix.IP_PKTINFO:
		if len(data) < sizeofPktinfo4 {
			return errControl
		}
		m.Addr.IfIndex = int(int32(binary.NativeEndian.Uint32(data)))
		// ipi_spec_dst is the address to answer from, also where the datagram
		// was sent to a group. In the error queue only ipi_addr is filled: the
		// destination of the ICMP error, which is our source.
		addr := netip.AddrFrom4([4]byte(data[4:8]))
		if e != nil {
			addr = netip.AddrFrom4([4]byte(data[8:12]))
		}
		m.Addr.Local = known(addr)
	case ip4OrigDstAddr:
		if len(data) < sizeofOrigDst4 {
			return errControl
		}
		m.OrigDst = sockaddr4(data)
	case unix.IP_TOS: // one byte, when receiving
		if len(data) < 1 {
			return errControl
		}
		m.TrafficClass = data[0]
	case unix.IP_RECVERR:
		return parseExtended(data, e)
	}
	return nil
}

func parseIPv6(typ int, data []byte, m *Message, e *SocketError) error {
	switch typ {
	case unix.IPV6_PKTINFO:
		if len(data) < sizeofPktinfo6 {
			return errControl
		}
		m.Addr.IfIndex = int(int32(binary.NativeEndian.Uint32(data[16:])))
		addr := netip.AddrFrom16([16]byte(data[:16])).Unmap()
		// A dual-stack socket tells of an IPv4 datagram twice: here with the
		// header's destination, which may be a broadcast address, and by
		// IP_PKTINFO, which stands behind and is better.
		if m.Addr.Local = known(addr); addr.IsMulticast() {
			m.Addr.Local = netip.Addr{}
		}
	case ip6OrigDstAddr:
		if len(data) < sizeofOrigDst6 {
			return errControl
		}
		m.OrigDst = sockaddr6(data)
	case unix.IPV6_TCLASS:
		if len(data) < sizeofClass {
			return errControl
		}
		m.TrafficClass = uint8(binary.NativeEndian.Uint32(data))
	case unix.IPV6_RECVERR:
		return parseExtended(data, e)
	}
	return nil
}

func parseUDP(typ int, data []byte, m *Message) error {
	switch typ {
	case unix.UDP_GRO:
		if len(data) < sizeofGRO {
			return errControl
		}
		m.Segment = int(int32(binary.NativeEndian.Uint32(data)))
	case unix.UDP_SEGMENT:
		if len(data) < sizeofSegment {
			return errControl
		}
		m.Segment = int(binary.NativeEndian.Uint16(data))
	}
	return nil
}

// parseExtended reads what IP_RECVERR and IPV6_RECVERR say of an error:
//
//	struct sock_extended_err {
//	    uint32_t ee_errno;
//	    uint8_t  ee_origin;   /* SO_EE_ORIGIN_* */
//	    uint8_t  ee_type;     /* the ICMP type */
//	    uint8_t  ee_code;
//	    uint8_t  ee_pad;
//	    uint32_t ee_info;     /* the MTU, for EMSGSIZE */
//	    uint32_t ee_data;
//	    struct sockaddr offender[0];
//	};
//
// An entry that no ICMP error caused leaves e.Err nil.
func parseExtended(data []byte, e *SocketError) error {
	if len(data) < sizeofExtended {
		return errControl
	}
	if e == nil || data[4] != unix.SO_EE_ORIGIN_ICMP && data[4] != unix.SO_EE_ORIGIN_ICMP6 {
		return nil
	}
	errno := unix.Errno(binary.NativeEndian.Uint32(data))
	e.Err, e.Type, e.Code = errno, data[5], data[6]
	if errno == unix.EMSGSIZE {
		e.MTU = int(binary.NativeEndian.Uint32(data[8:]))
	}
	e.Offender = sockaddr(data[sizeofExtended:]).Addr()
	return nil
}

// known returns the zero Addr for an unspecified one.
func known(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
