//go:build linux

package bench

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
	"github.com/srcproxy/srcproxy/pktinfo"
)

const (
	payloadSize  = 200
	datagramSize = payloadSize + 22 // with the longest SOCKS header of an address
	burst        = 32               // datagrams of one system call
	shortestNap  = 100 * time.Microsecond
	loadBuffer   = 4 << 20 // of the sockets of the load tool
)

// mmsg is the room for one recvmmsg(2) or sendmmsg(2). Unlike those of pktinfo.Conn
// its datagrams are sent one by one, unless sendJoined is called: only what is measured
// may join some.
type mmsg struct {
	headers   [burst]unix.Mmsghdr
	vectors   [burst]unix.Iovec
	names     [burst][unix.SizeofSockaddrInet4]byte
	datagrams [burst][datagramSize]byte
}

func newMmsg() *mmsg {
	m := new(mmsg)
	for i := range m.headers {
		m.vectors[i].Base = &m.datagrams[i][0]
		h := &m.headers[i].Hdr
		h.Iov, h.Name = &m.vectors[i], &m.names[i][0]
		h.SetIovlen(1)
	}
	return m
}

// receive waits for one datagram, at most as long as SO_RCVTIMEO says, and takes what
// is there.
func (m *mmsg) receive(fd int) (int, error) {
	for i := range m.headers {
		m.vectors[i].SetLen(datagramSize)
		m.headers[i].Hdr.Namelen = unix.SizeofSockaddrInet4
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])), burst, unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// send sends the first n datagrams. One that the kernel refuses is lost, which the
// figures show.
func (m *mmsg) send(fd, n int) {
	for at := 0; at < n; {
		k, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[at])), uintptr(n-at), 0, 0, 0)
		if errno != 0 {
			k = 1
		}
		at += int(k)
	}
}

// sendJoined is send by UDP_SEGMENT: what is in a row for one peer leaves as one. It is
// of equal size. Control is that of all.
func (m *mmsg) sendJoined(fd, n int, control []byte) {
	for i := 0; i < n; {
		k := i + 1
		for k < n && m.names[k] == m.names[i] {
			k++
		}
		h := m.headers[i].Hdr
		h.SetIovlen(k - i)
		h.Control = &control[0]
		h.SetControllen(len(control))
		_, _, _ = unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), 0) // lost ones show
		i = k
	}
}

// putName writes a as a struct sockaddr_in of ip(7).
func putName(b *[unix.SizeofSockaddrInet4]byte, a netip.AddrPort) {
	binary.NativeEndian.PutUint16(b[:], unix.AF_INET)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	ip := a.Addr().As4()
	copy(b[4:], ip[:])
}

// loadSocket is a blocking socket of n with large buffers, whose reads end after a
// while, so that their goroutine can see that it is to end.
func loadSocket(b *testing.B, n *nstest.Namespace, at netip.AddrPort) (fd int) {
	b.Helper()
	err := n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, loadBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, loadBuffer),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}),
		)
	})
	if err != nil {
		b.Fatalf("socket on %v: %v", at, err)
	}
	return fd
}

// portOf is the port that fd is bound to.
func portOf(b *testing.B, fd int) uint16 {
	b.Helper()
	a, err := unix.Getsockname(fd)
	if err != nil {
		b.Fatal(err)
	}
	return uint16(a.(*unix.SockaddrInet4).Port)
}

// whileOpen runs f on a thread of its own until the benchmark ends, and then closes fd.
func whileOpen(b *testing.B, fd int, f func(fd int)) {
	var end atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for !end.Load() {
			f(fd)
		}
	})
	b.Cleanup(func() {
		end.Store(true)
		running.Wait()
		_ = unix.Close(fd) // nothing is left to be said
	})
}

// echoUDP answers each datagram of 200 bytes in n with itself, joined or one by one, and
// returns where.
func echoUDP(b *testing.B, n *nstest.Namespace, a netip.Addr, joined bool) netip.AddrPort {
	b.Helper()
	fd := loadSocket(b, n, netip.AddrPortFrom(a, 0))
	m := newMmsg()
	control := pktinfo.AppendControl(nil, a, 0, payloadSize)
	whileOpen(b, fd, func(fd int) {
		n, err := m.receive(fd)
		if err != nil {
			return // the time is over
		}
		for i := range n {
			m.vectors[i].SetLen(int(m.headers[i].Len))
		}
		if joined {
			m.sendJoined(fd, n, control)
			return
		}
		m.send(fd, n)
	})
	return netip.AddrPortFrom(a, portOf(b, fd))
}

// client plays all clients of one system by one socket. They send in turn: each a
// datagram or, joined, what is to be sent at that time.
type client struct {
	fd     int
	port   uint16
	ways   []way
	out    *mmsg
	began  time.Time
	joined bool
	turn   int

	mu    sync.Mutex
	step  step
	count uint32 // of steps
}

// way is how the datagrams of one flow go.
type way struct {
	to      netip.AddrPort
	control []byte // with the client's address
	prefix  []byte // the SOCKS header
}

// step is what came of sending at one rate.
type step struct {
	id       uint32
	rate     int // offered
	sent     int
	answered int
	took     time.Duration // from the first datagram to the last answer
	trips    []time.Duration
}

// lost is the part that was not answered.
func (s *step) lost() float64 { return 1 - float64(s.answered)/float64(max(s.sent, 1)) }

// reached is the rate at which answers came. What waits in a queue when the sending
// ends makes it smaller, so that large buffers flatter nobody.
func (s *step) reached() float64 {
	if s.answered == 0 {
		return 0
	}
	return float64(s.answered) / s.took.Seconds()
}

// median is the middle of the round trips.
func (s *step) median() time.Duration {
	if len(s.trips) == 0 {
		return 0
	}
	slices.Sort(s.trips)
	return s.trips[len(s.trips)/2]
}

func newClient(b *testing.B, n *nstest.Namespace) *client {
	b.Helper()
	c := &client{fd: loadSocket(b, n, netip.AddrPortFrom(netip.IPv4Unspecified(), 0)), out: newMmsg(), began: time.Now()}
	c.port = portOf(b, c.fd)
	in := newMmsg()
	whileOpen(b, c.fd, func(fd int) {
		if n, err := in.receive(fd); err == nil {
			c.take(in, n)
		}
	})
	return c
}

// add gives the client a flow from local to the relay, or the target, at to.
func (c *client) add(local netip.Addr, to netip.AddrPort, prefix []byte) {
	segment := 0
	if c.joined {
		segment = len(prefix) + payloadSize
	}
	c.ways = append(c.ways, way{to, pktinfo.AppendControl(nil, local, 0, segment), prefix})
}

// take counts answers.
func (c *client) take(m *mmsg, n int) {
	now := time.Since(c.began)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		payload := m.datagrams[i][:m.headers[i].Len]
		if len(payload) < payloadSize {
			continue
		}
		payload = payload[len(payload)-payloadSize:]
		if binary.BigEndian.Uint32(payload) != c.step.id {
			continue // late
		}
		sent := time.Duration(binary.BigEndian.Uint64(payload[4:]))
		c.step.answered++
		c.step.took = now
		c.step.trips = append(c.step.trips, now-sent)
	}
}

// write sends the next n datagrams, of which sent are gone already.
func (c *client) write(id uint32, sent, n int) {
	now := uint64(time.Since(c.began))
	c.turn++
	var w *way
	for i := range n {
		if w = &c.ways[(sent+i)%len(c.ways)]; c.joined {
			w = &c.ways[c.turn%len(c.ways)]
		}
		h := &c.out.headers[i].Hdr
		putName(&c.out.names[i], w.to)
		h.Namelen = unix.SizeofSockaddrInet4
		h.Control = &w.control[0]
		h.SetControllen(len(w.control))
		d := c.out.datagrams[i][:]
		copy(d, w.prefix)
		binary.BigEndian.PutUint32(d[len(w.prefix):], id)
		binary.BigEndian.PutUint64(d[len(w.prefix)+4:], now)
		c.out.vectors[i].SetLen(len(w.prefix) + payloadSize)
	}
	if c.joined {
		c.out.sendJoined(c.fd, n, w.control)
		return
	}
	c.out.send(c.fd, n)
}

// run sends at rate for d, and waits until all is answered or nothing comes any more.
func (c *client) run(rate int, d time.Duration) step {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Else the kernel lets a nap last 50 µs longer; if it refuses, the gaps are larger.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	c.count++
	id := c.count
	c.mu.Lock()
	c.step = step{id: id, rate: rate, trips: make([]time.Duration, 0, int(float64(rate)*d.Seconds())+burst)}
	c.mu.Unlock()
	start, sent := time.Now(), 0
	for elapsed := time.Duration(0); elapsed < d; elapsed = time.Since(start) {
		due := int(elapsed.Seconds()*float64(rate)) + 1 - sent
		if due <= 0 {
			next := time.Duration(float64(sent) / float64(rate) * float64(time.Second))
			nap(max(next-elapsed, shortestNap))
			continue
		}
		n := min(due, burst)
		c.write(id, sent, n)
		sent += n
	}
	c.settle(sent)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.step
	s.sent = sent
	s.took -= start.Sub(c.began)
	c.step = step{}
	return s
}

func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal only makes it shorter
}

// settle waits for the last answers: until there are sent, or none for 100 ms.
func (c *client) settle(sent int) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for before := -1; ; <-t.C {
		c.mu.Lock()
		now := c.step.answered
		c.mu.Unlock()
		if now >= sent || now == before {
			return
		}
		before = now
	}
}
