package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 32 << 10
	// pipeSize is what fs.pipe-max-size allows everybody; minPipe is where
	// splice stops being cheaper than copying.
	pipeSize = 1 << 20
	minPipe  = 512 << 10
	// maxIdlePipes are kept, maxPipes exist. An unprivileged user has
	// fs.pipe-user-pages-soft (16384) pages, which are 64 pipes. When slow
	// readers hold them all, further directions copy through buffers.
	maxIdlePipes = 32
	maxPipes     = 64
	// pipePause is how long a kernel that refused a pipe is not asked again.
	pipePause = time.Second
)

type buffer [bufferSize]byte

// pipe is an empty or filled pipe(7), non-blocking on both ends.
type pipe struct {
	r, w int
	size int
}

// pool keeps buffers and pipes. The zero value works and is safe for
// concurrent use.
type pool struct {
	buffers sync.Pool
	spliced atomic.Int64 // bytes that went into pipes

	mu      sync.Mutex
	idle    []*pipe
	pipes   int       // all that exist
	refused time.Time // when the kernel last refused one

	test func(from, to, n int) (int, error) // nil: splice(2)
}

// shared is a cache and no configuration: the limit of pipes is one of the
// user who runs the process, so there is one pool for a process.
var shared pool

func (p *pool) buffer() *buffer {
	if b, ok := p.buffers.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

func (p *pool) putBuffer(b *buffer) { p.buffers.Put(b) }

// pipe returns an empty pipe, or nil when there are enough, or the kernel
// gives none of a useful size.
func (p *pool) pipe() *pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		x := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return x
	}
	if p.pipes >= maxPipes || !p.refused.IsZero() && time.Since(p.refused) < pipePause {
		return nil
	}
	x := newPipe()
	if x == nil {
		p.refused = time.Now()
		return nil
	}
	p.pipes++
	return x
}

// putPipe takes a pipe back. Only a clean one may meet another stream.
func (p *pool) putPipe(x *pipe, clean bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if clean && len(p.idle) < maxIdlePipes {
		p.idle = append(p.idle, x)
		return
	}
	p.pipes--
	x.close()
}

// splice moves up to n bytes and never waits.
func (p *pool) splice(from, to, n int) (int, error) {
	if p.test != nil {
		return p.test(from, to, n)
	}
	return splice(from, to, n)
}

func splice(from, to, n int) (int, error) {
	m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(m), err
}

// newPipe returns nil where the kernel has none to give: out of descriptors,
// or the user out of pipe pages (F_SETPIPE_SZ: EPERM).
func newPipe() *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	x := &pipe{r: fds[0], w: fds[1]}
	size, err := unix.FcntlInt(uintptr(x.w), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil || size < minPipe {
		x.close()
		return nil
	}
	x.size = size
	return x
}

func (x *pipe) close() {
	_ = unix.Close(x.r) // Linux closes the descriptor whatever it returns
	_ = unix.Close(x.w)
}
