package pktinfo

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams a system call takes. Past 32 a larger one
	// no longer pays by itself, but UDP_SEGMENT takes 64 and more.
	batchSize = 64
	// controlSize holds all control messages that the options set here can
	// bring, an entry of the error queue included (208 bytes), and some that
	// callers ask for themselves (TOS, TTL, a timestamp).
	controlSize = 288
)

// batch is the scratch of one recvmmsg(2) or sendmmsg(2). It is taken from a
// pool for the call alone, so that a Conn that waits holds none:
//
//	struct mmsghdr {
//	    struct msghdr msg_hdr;   /* points to a name, an iovec, control messages */
//	    unsigned int  msg_len;
//	};
type batch struct {
	headers  [batchSize]unix.Mmsghdr
	vectors  [batchSize]unix.Iovec
	names    [batchSize]name
	controls [batchSize][controlSize]byte
	used     int              // vectors[:used] may point to callers' buffers
	done     [batchSize]uint8 // writes: how many messages header i brings to their end
	cut      [batchSize]bool  // writes: header i asks for UDP_SEGMENT
}

// A Pool is the only package-level variable that changes; it holds scratch only.
var batches = sync.Pool{New: func() any { return new(batch) }}

func takeBatch() *batch { return batches.Get().(*batch) }

// put gives b back; it forgets the callers' buffers first.
func (b *batch) put() {
	clear(b.vectors[:b.used])
	b.used = 0
	batches.Put(b)
}

// recvmmsg and sendmmsg are raw: unix.Syscall tells the scheduler, and on an
// otherwise idle process each such call wakes the sleeping sysmon thread, which
// costs a third of a datagram at low rates. Raw calls must not block, or they
// would hold off the garbage collector: hence MSG_DONTWAIT, whatever the
// descriptor's mode is.
func recvmmsg(fd uintptr, hs []unix.Mmsghdr, flags uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hs[0])), uintptr(len(hs)),
			unix.MSG_DONTWAIT|flags, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func sendmmsg(fd uintptr, hs []unix.Mmsghdr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hs[0])), uintptr(len(hs)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// readable tells whether a read would return, and whether the socket has an
// error. It takes neither away.
func readable(fd uintptr) (data, failed bool, err error) {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	var now unix.Timespec
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	if errno != 0 && errno != unix.EINTR {
		return false, false, errno
	}
	return p.Revents&unix.POLLIN != 0, p.Revents&unix.POLLERR != 0, nil
}

// vector points iovec i at p.
func (b *batch) vector(i int, p []byte) {
	b.vectors[i].Base = unsafe.SliceData(p)
	b.vectors[i].SetLen(len(p))
	b.used = max(b.used, i+1)
}

// room makes header i ready to receive into iovec i.
func (b *batch) room(i int) {
	h := &b.headers[i].Hdr
	h.Name, h.Namelen = &b.names[i][0], uint32(len(b.names[i]))
	h.Iov = &b.vectors[i]
	h.SetIovlen(1)
	h.Control = &b.controls[i][0]
	h.SetControllen(controlSize)
	h.Flags = 0
}
