package host

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// events is a netlink socket on which the kernel tells of changes.
type events struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// change says how much a message, or a burst of them, can have changed.
type change int

const (
	nothing    change = iota
	routing           // the way of packets
	addressing        // and which addresses are here
)

// subscribe opens the socket for the groups that can change what is local, and the way
// of packets.
func subscribe() (*events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	const groups = unix.RTMGRP_LINK |
		unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE |
		1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind(AF_NETLINK)", err), unix.Close(fd))
	}
	e := &events{file: os.NewFile(uintptr(fd), "rtnetlink"), buf: make([]byte, 64<<10)}
	if e.raw, err = e.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, e.file.Close())
	}
	return e, nil
}

// close makes wait return. It may be called more than once.
func (e *events) close() { _ = e.file.Close() } // closed already: nothing is left to do

// wait returns when something changed, after it has taken all events that are queued,
// or with an error when the socket is closed.
func (e *events) wait() (change, error) {
	changed := nothing
	var failed error
	err := e.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := unix.Recvfrom(int(fd), e.buf, unix.MSG_TRUNC)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return changed != nothing
			case errors.Is(err, unix.ENOBUFS): // events were lost: as good as a change
				changed = addressing
			case err != nil:
				failed = os.NewSyscallError("recvfrom(AF_NETLINK)", err)
				return true
			case n > len(e.buf):
				changed = addressing
			default:
				changed = max(changed, tells(e.buf[:n]))
			}
		}
	})
	return changed, errors.Join(err, failed)
}

// tells says what the messages in b can have changed. Only those about links and
// addresses, and about routes of the table "local", lead to a new reading: a router's
// other tables change all the time.
func tells(b []byte) change {
	most := nothing
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return addressing // not understood: look for yourself
		}
		most = max(most, concerns(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]))
		b = b[min(len(b), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return most
}

// concerns judges one message by its type and body. A body of a route message begins
// with
//
//	struct rtmsg { u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags; };
func concerns(kind uint16, body []byte) change {
	switch kind {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return addressing
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(body) < unix.SizeofRtMsg || body[4] == unix.RT_TABLE_LOCAL {
			return addressing
		}
		return routing
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return routing
	}
	return nothing
}
