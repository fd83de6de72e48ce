package udprelay

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller reads from owners whose port is free. There may be one for each client: a
// goroutine for each, and a call for each answer, would cost more than the rest. It takes
// what is there from all of them and sends it on by one call.
//
// It is an epoll(7) of its own inside the one of the runtime, which wakes it.
type poller struct {
	engine *Engine
	file   *os.File
	raw    syscall.RawConn

	mu     sync.RWMutex
	owners map[int32]*owner
	last   int32
}

// maxPollers is how many share the work; the way up takes the other half.
func maxPollers() int { return (runtime.GOMAXPROCS(0) + 1) / 2 }

// poll has a poller read from o. Engine.mu is held.
func (e *Engine) poll(o *owner) error {
	if len(e.pollers) < maxPollers() {
		p, err := newPoller(e)
		if err != nil {
			return err
		}
		e.pollers = append(e.pollers, p)
		e.all.Go(p.serve)
	}
	e.polled++
	o.poller = e.pollers[e.polled%len(e.pollers)]
	if err := o.poller.add(o); err != nil {
		o.poller.remove(o)
		return err
	}
	return nil
}

func newPoller(e *Engine) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // or os.NewFile would take it for one that blocks
	}
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &poller{engine: e, file: os.NewFile(uintptr(fd), "epoll"), owners: make(map[int32]*owner)}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

// add reads from o until remove.
func (p *poller) add(o *owner) error {
	raw, err := o.conn.SyscallConn()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.last++; p.owners[p.last] != nil; p.last++ { // after four thousand million owners
	}
	o.pollID = p.last
	p.owners[o.pollID] = o
	var inner error
	err = p.control(func(epoll int) {
		outer := raw.Control(func(fd uintptr) {
			event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: o.pollID}
			inner = os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(fd), &event))
		})
		inner = errors.Join(inner, outer)
	})
	return errors.Join(err, inner)
}

func (p *poller) control(f func(epoll int)) error {
	return p.raw.Control(func(fd uintptr) { f(int(fd)) })
}

// remove forgets o. The kernel forgets its socket when that is closed.
func (p *poller) remove(o *owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owners, o.pollID)
}

func (p *poller) owner(id int32) *owner {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.owners[id]
}

// serve brings answers to the clients until p is closed.
func (p *poller) serve() {
	var events [2 * batchSize]unix.EpollEvent
	var n int
	var failed error
	wait := func(fd uintptr) bool {
		n, failed = epollReady(fd, events[:])
		return n > 0 || failed != nil
	}
	for {
		if err := errors.Join(p.raw.Read(wait), failed); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				p.engine.Log.Error("read udp", "err", err)
			}
			return
		}
		p.relay(events[:n])
	}
}

// relay takes what is there at the owners that events name. What does not fit into a
// batch is ready again.
func (p *poller) relay(events []unix.EpollEvent) {
	b := p.engine.takeBatch()
	defer p.engine.putBatch(b)
	n := 0
	for i := range events {
		o := p.owner(events[i].Fd)
		if o == nil {
			continue // closed meanwhile
		}
		k, err := o.conn.ReadReady(b.ms[n:])
		if err != nil {
			p.engine.survives(o.conn, err) // it waits a little
			continue
		}
		b.used = n + k
		o.claim(b, n, n+k)
		if n += k; n == batchSize {
			b.send(p.engine, n, down)
			b.clear()
			n = 0
		}
	}
	b.send(p.engine, n, down)
}

// epollReady returns which of the owners have something, without waiting.
func epollReady(fd uintptr, events []unix.EpollEvent) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("epoll_pwait", errno)
		}
	}
}
