package relay

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bulkReads is how many reads of at least bulkRead bytes in a row make a
	// direction bulk, and bulkTime within which time: 128 to 256 KiB in 100 ms
	// are 10 to 20 Mbit/s. A slower stream gains nothing and would keep a pipe
	// full of bytes for long.
	bulkReads = 8
	bulkRead  = bufferSize / 2
	bulkTime  = 100 * time.Millisecond
	// smallSplice is the splice that ends bulk; slowDrain the time to empty a
	// pipe that does.
	smallSplice = 4 << 10
	slowDrain   = 200 * time.Millisecond
)

// direction copies from one end to the other. Only its own goroutine touches
// it, but for the atomic fields.
type direction struct {
	relay    *relay
	from, to *end
	other    *direction
	pool     *pool
	bytes    *atomic.Int64 // nil: not counted

	moves atomic.Uint64 // reads and writes that moved bytes, for the watch
	ended atomic.Bool   // the end of file is passed on

	buf     *buffer // held from a read that got bytes to one that gets none
	pending []byte  // bytes to write, before those of the pipe
	pipe    *pipe   // as buf, while bulk
	piped   int     // bytes in the pipe

	splices bool      // both ends can
	bulk    bool      // and this direction is worth it
	large   int       // large reads in a row,
	since   time.Time // since then
	stalled time.Time // when emptying the pipe had to wait, else zero

	err  error // result of the callbacks below, which can return none
	late error // came together with the last bytes of a plain Read

	onReadable, onWritable func(fd uintptr) bool
}

func (d *direction) init(r *relay, from, to *end, bytes *atomic.Int64, p *pool) {
	d.relay, d.from, d.to, d.bytes, d.pool = r, from, to, bytes, p
	d.splices = from.raw != nil && to.raw != nil
	d.onReadable, d.onWritable = d.readable, d.writable
}

// run copies until an end of file is passed on or the relay fails.
func (d *direction) run() {
	err := d.copy()
	d.release()
	if d.relay.cut.Load() {
		err = nil // closing a side whole is what ended this direction
	}
	if err == nil {
		err = d.finish()
	}
	if err != nil {
		d.relay.fail(err)
	}
}

func (d *direction) copy() error {
	for {
		if err := d.drain(); err != nil {
			return &Error{Side: d.to.side, Op: "write", Err: cause(err)}
		}
		err := d.fill()
		if err == io.EOF { //nolint:errorlint // io.Reader: only the bare EOF is an end, a wrapped one is a fault
			return d.closeWrite()
		}
		if err != nil {
			return &Error{Side: d.from.side, Op: "read", Err: cause(err)}
		}
	}
}

// closeWrite passes the end of file on.
func (d *direction) closeWrite() error {
	half, ok := d.to.conn.(interface{ CloseWrite() error })
	if !ok {
		d.relay.cut.Store(true) // before the close that the other direction runs into
		_ = d.to.conn.Close()   // an end of file is all that could be said
		return nil
	}
	err := half.CloseWrite()
	if err == nil || errors.Is(err, unix.ENOTCONN) && d.other.ended.Load() {
		return nil // or: all is delivered both ways, and the peer went first
	}
	return &Error{Side: d.to.side, Op: "shutdown", Err: cause(err)}
}

// finish is reached when this direction ended well. While the other one goes
// on, it waits for a reset of from, which nobody else would read.
func (d *direction) finish() error {
	d.ended.Store(true)
	if d.other.ended.Load() {
		_ = d.other.from.conn.SetReadDeadline(aLongTimeAgo) // ends its wait below
		return nil
	}
	d.relay.watch.halfClose()
	if d.from.raw == nil {
		return nil
	}
	d.err = nil
	err := d.from.raw.Read(d.broken)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err == nil {
		err = d.err
	}
	return &Error{Side: d.from.side, Op: "read", Err: cause(err)}
}

// broken is the callback of finish.
func (d *direction) broken(fd uintptr) bool {
	d.err = socketError(int(fd))
	return d.err != nil
}

// fill waits for bytes and takes them into the buffer or the pipe. It returns
// io.EOF at the end.
func (d *direction) fill() error {
	if d.from.raw == nil {
		return d.fillPlain()
	}
	d.err = nil
	if err := d.from.raw.Read(d.onReadable); err != nil {
		return err
	}
	return d.err
}

func (d *direction) fillPlain() error {
	if d.late != nil {
		return d.late
	}
	n, err := d.from.conn.Read(d.buffer()[:])
	d.pending = d.buf[:n]
	if n == 0 {
		return err
	}
	d.moves.Add(1)
	d.late = err
	return nil
}

// readable is the callback of fill. It must try first and return false only
// after EAGAIN: RawConn.Read resets the readiness before it calls. What is held
// goes back to the pool before the goroutine parks.
func (d *direction) readable(fd uintptr) bool {
	n, err := d.take(int(fd))
	if errors.Is(err, unix.EAGAIN) {
		d.release()
		return false
	}
	switch {
	case err != nil:
		d.err = err
	case n == 0:
		d.err = io.EOF
	default:
		d.moves.Add(1)
	}
	return true
}

// take reads or splices once.
func (d *direction) take(fd int) (int, error) {
	if d.bulk {
		if n, ok, err := d.spliceIn(fd); ok {
			return n, err
		}
	}
	n, err := retry(func() (int, error) { return unix.Read(fd, d.buffer()[:]) })
	if n > 0 {
		d.pending = d.buf[:n]
		d.noteRead(n)
	}
	return n, err
}

// spliceIn moves what the socket has into the pipe. When it is not ok, there
// is no pipe to be had, or the kernel cannot splice from this socket.
func (d *direction) spliceIn(fd int) (n int, ok bool, err error) {
	d.releaseBuffer()
	if d.pipe == nil {
		d.pipe = d.pool.pipe()
	}
	if d.pipe == nil {
		d.bulk = false
		return 0, false, nil
	}
	n, err = retry(func() (int, error) { return d.pool.splice(fd, d.pipe.w, d.pipe.size) })
	switch {
	case errors.Is(err, unix.EINVAL):
		d.splices = false
		d.leaveBulk()
		return 0, false, nil
	case err == nil:
		d.piped = n
		d.pool.spliced.Add(int64(n))
	}
	return n, true, err
}

// drain writes all that fill took.
func (d *direction) drain() error {
	if len(d.pending) == 0 && d.piped == 0 {
		return nil
	}
	if d.to.raw == nil {
		return d.drainPlain()
	}
	small := d.piped > 0 && d.piped < smallSplice
	d.err = nil
	if err := d.to.raw.Write(d.onWritable); err != nil {
		return err
	}
	if d.err == nil && d.bulk && (small || d.slow()) {
		d.leaveBulk()
	}
	return d.err
}

func (d *direction) drainPlain() error {
	n, err := d.to.conn.Write(d.pending)
	d.wrote(n)
	if err == nil && n < len(d.pending) {
		err = io.ErrShortWrite
	}
	d.pending = nil
	return err
}

// writable is the callback of drain.
func (d *direction) writable(fd uintptr) bool {
	for len(d.pending) > 0 || d.piped > 0 {
		err := d.give(int(fd))
		if errors.Is(err, unix.EAGAIN) {
			d.stall()
			return false
		}
		if err != nil {
			d.err = err
			break
		}
	}
	return true
}

// give writes or splices once.
func (d *direction) give(fd int) error {
	if len(d.pending) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(fd, d.pending) })
		if err == nil {
			d.pending = d.pending[n:]
			d.wrote(n)
		}
		return err
	}
	if !d.splices {
		return d.unpipe()
	}
	n, err := retry(func() (int, error) { return d.pool.splice(d.pipe.r, fd, d.piped) })
	switch {
	case errors.Is(err, unix.EINVAL):
		d.splices = false
		return nil
	case err == nil && n == 0:
		return io.ErrUnexpectedEOF // the pipe has lost bytes: cannot be
	case err == nil:
		d.piped -= n
		d.wrote(n)
	}
	return err
}

// unpipe takes bytes out of the pipe towards a socket that cannot splice.
func (d *direction) unpipe() error {
	n, err := retry(func() (int, error) { return unix.Read(d.pipe.r, d.buffer()[:]) })
	if err != nil {
		return err
	}
	d.piped -= n
	d.pending = d.buf[:n]
	d.bulk = false
	return nil
}

func (d *direction) wrote(n int) {
	d.moves.Add(1)
	if d.bytes != nil {
		d.bytes.Add(int64(n))
	}
}

// noteRead finds out whether the direction is bulk.
func (d *direction) noteRead(n int) {
	if !d.splices || n < bulkRead {
		d.large = 0
		return
	}
	if d.large == 0 {
		d.since = time.Now()
	}
	if d.large++; d.large == bulkReads {
		d.large = 0
		d.bulk = time.Since(d.since) < bulkTime
	}
}

// stall notes when the pipe began to wait for the writer.
func (d *direction) stall() {
	if d.piped > 0 && d.stalled.IsZero() {
		d.stalled = time.Now()
	}
}

// slow reports whether emptying the pipe took too long for a bulk stream.
func (d *direction) slow() bool {
	if d.stalled.IsZero() {
		return false
	}
	took := time.Since(d.stalled)
	d.stalled = time.Time{}
	return took > slowDrain
}

func (d *direction) leaveBulk() {
	d.bulk, d.large, d.stalled = false, 0, time.Time{}
	d.releasePipe()
}

// buffer returns the buffer, which it takes from the pool if none is held.
func (d *direction) buffer() *buffer {
	if d.buf == nil {
		d.buf = d.pool.buffer()
	}
	return d.buf
}

// release gives back what the direction holds.
func (d *direction) release() {
	d.releaseBuffer()
	d.releasePipe()
}

func (d *direction) releaseBuffer() {
	if d.buf != nil {
		d.pool.putBuffer(d.buf)
		d.buf = nil
	}
	d.pending = nil
}

func (d *direction) releasePipe() {
	if d.pipe != nil {
		d.pool.putPipe(d.pipe, d.piped == 0)
		d.pipe, d.piped = nil, 0
	}
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
