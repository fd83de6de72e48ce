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

// subscribe opens the socket for the groups that can change what is local.
func subscribe() (*events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	const groups = unix.RTMGRP_LINK |
		unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
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
func (e *events) wait() error {
	changed := false
	var failed error
	err := e.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := unix.Recvfrom(int(fd), e.buf, unix.MSG_TRUNC)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return changed
			case errors.Is(err, unix.ENOBUFS): // events were lost: as good as a change
				changed = true
			case err != nil:
				failed = os.NewSyscallError("recvfrom(AF_NETLINK)", err)
				return true
			case n > len(e.buf) || tellsOfChange(e.buf[:n]):
				changed = true
			}
		}
	})
	return errors.Join(err, failed)
}

// tellsOfChange reports whether one of the messages in b can change what is local:
// any about links and addresses, and routes of the table "local". Others are passed
// over, since a router's other tables change all the time.
func tellsOfChange(b []byte) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return true // not understood: look for yourself
		}
		if concerns(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]) {
			return true
		}
		b = b[min(len(b), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return false
}

// concerns judges one message by its type and body. A body of a route message begins
// with
//
//	struct rtmsg { u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags; };
func concerns(kind uint16, body []byte) bool {
	switch kind {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(body) < unix.SizeofRtMsg || body[4] == unix.RT_TABLE_LOCAL
	}
	return false
}
