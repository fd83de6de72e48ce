//go:build linux

package cgroupbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What sock_diag(7) is asked, from linux/inet_diag.h.
const (
	inetDiagReqBytecode = 1 // INET_DIAG_REQ_BYTECODE
	inetDiagBCSCond     = 7 // INET_DIAG_BC_S_COND

	sizeofSockID = 48 // struct inet_diag_sockid
	sizeofMsg    = 72 // struct inet_diag_msg
)

// holders are the states of sockets that hold an address while it matters: neither closed, nor listening, nor an orphan of the
// kernel's own (TIME_WAIT). Datagram sockets that are connected are established, too.
const holders uint32 = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// sockdiag asks the kernel for sockets, and has it end them: those of the network namespace in which it was opened.
type sockdiag map[int]*nl.SocketHandle // the one by which it asks, for nl.NetlinkRequest

func openSockdiag() (sockdiag, error) {
	s, err := nl.Subscribe(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return sockdiag{unix.NETLINK_SOCK_DIAG: {Socket: s}}, nil
}

func (d sockdiag) close() { d[unix.NETLINK_SOCK_DIAG].Close() }

// sockID is what the kernel knows one socket by.
type sockID struct {
	family uint8
	id     [sizeofSockID]byte // struct inet_diag_sockid
}

// cookie returns what no other socket has, in no network namespace.
func (s *sockID) cookie() uint64 {
	low, high := binary.NativeEndian.Uint32(s.id[40:]), binary.NativeEndian.Uint32(s.id[44:])
	return uint64(high)<<32 | uint64(low)
}

// local returns the local address.
func (s *sockID) local() netip.Addr {
	if s.family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(s.id[4:]))
	}
	return netip.AddrFrom16([16]byte(s.id[4:])).Unmap()
}

// on returns the sockets of a protocol that have one of these local addresses.
func (d sockdiag) on(protocol uint8, addrs []netip.Addr) ([]sockID, error) {
	wanted := make(map[netip.Addr]bool)
	for _, a := range addrs {
		wanted[a] = true
	}
	var list []sockID
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		req := d.request(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, protocol, sockID{family: family})
		if len(addrs) == 1 { // the kernel leaves out the others sooner
			req.AddRawData(nl.NewRtAttr(inetDiagReqBytecode, bytecode(addrs[0])).Serialize())
		}
		err := req.ExecuteIter(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(b []byte) bool {
			if len(b) < sizeofMsg {
				return true
			}
			// struct inet_diag_msg { __u8 idiag_family, idiag_state, idiag_timer, idiag_retrans; struct inet_diag_sockid id; ... };
			s := sockID{b[0], [sizeofSockID]byte(b[4:])}
			if wanted[s.local()] {
				list = append(list, s)
			}
			return true
		})
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return nil, err
		}
	}
	return list, nil
}

// destroy ends a socket; its program gets ECONNABORTED. ENOENT: it has gone, or another one with its addresses stands before it.
func (d sockdiag) destroy(protocol uint8, s sockID) error {
	_, err := d.request(nl.SOCK_DESTROY, unix.NLM_F_ACK, protocol, s).Execute(unix.NETLINK_SOCK_DIAG, 0)
	return err
}

// request begins with a
//
//	struct inet_diag_req_v2 { __u8 sdiag_family, sdiag_protocol, idiag_ext, pad; __u32 idiag_states; struct inet_diag_sockid id; };
func (d sockdiag) request(what, flags int, protocol uint8, s sockID) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(what, flags)
	req.Sockets = d
	req.AddRawData([]byte{s.family, protocol, 0, 0})
	req.AddRawData(nl.Uint32Attr(holders))
	req.AddRawData(s.id[:])
	return req
}

// bytecode is the filter for the local address a. It ends either just behind its one instruction, which lets a socket pass, or
// four bytes further:
//
//	struct inet_diag_bc_op { unsigned char code, yes; unsigned short no; };
//	struct inet_diag_hostcond { __u8 family, prefix_len; int port; __be32 addr[]; };
func bytecode(a netip.Addr) []byte {
	const op, cond, any = 4, 8, ^uint32(0)
	family, address := byte(unix.AF_INET6), a.AsSlice()
	if a.Is4() {
		family = unix.AF_INET
	}
	size := op + cond + len(address)
	b := []byte{inetDiagBCSCond, byte(size)}
	b = binary.NativeEndian.AppendUint16(b, uint16(size+4)) // #nosec G115 -- at most 32
	b = append(b, family, byte(a.BitLen()), 0, 0)
	b = binary.NativeEndian.AppendUint32(b, any)
	return append(b, address...)
}
