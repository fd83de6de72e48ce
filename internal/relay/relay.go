// Package relay moves the bytes of two connections to each other until both
// directions have ended.
//
// A direction reads into a pooled buffer that it holds only while bytes are in
// it. One that turns out to be bulk goes over to splice(2) through a pooled
// pipe, and comes back when the stream becomes small or slow. An idle relay
// therefore costs two goroutines and its two descriptors, nothing else.
//
// The fast paths need *net.TCPConn or stream *net.UnixConn on both sides.
// Anything else (tls.Conn, net.Pipe, a wrapper that replays peeked bytes) goes
// through its own Read and Write, with one buffer held for each direction.
// The package is for Linux.
package relay

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Reasons of the relay itself for ending, wrapped by what Stream returns.
var (
	// ErrIdle says that no byte moved in either direction for Options.Idle.
	ErrIdle = errors.New("idle")
	// ErrHalfClosed says that one direction had ended and that the other one
	// was silent for Options.HalfClosed.
	ErrHalfClosed = errors.New("half-closed and idle")
)

// Side names one of the two connections of a relay.
type Side string

// The two sides, as they stand in errors.
const (
	Client Side = "client"
	Server Side = "server"
)

// Error says on which side a relay broke, and in what. Its text holds no
// address: the caller knows both, and may be told not to log them.
type Error struct {
	Side Side   // the connection that failed
	Op   string // "read", "write" or "shutdown"
	Err  error  // the cause, without the *net.OpError around it
}

// Error returns "side: operation: cause".
func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Side, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Options of one relay. The zero value relays without counting and without
// any limit of time. Stream only reads it, so relays may share one that has no
// counters.
type Options struct {
	// Early holds bytes that the client sent together with its handshake; the
	// server gets them first, and they count as up. The array must not change
	// before Stream returns.
	Early []byte
	// Up and Down count the bytes handed to the kernel towards the server and
	// towards the client, while they move. A nil one is not counted.
	Up, Down *atomic.Int64
	// Idle ends the relay with ErrIdle when no byte was read, written or
	// acknowledged on either side for this long (up to a quarter more).
	// Zero: never.
	Idle time.Duration
	// HalfClosed takes the place of Idle once one direction has ended, and
	// ends the relay with ErrHalfClosed. Zero: Idle stays in force.
	HalfClosed time.Duration

	pool *pool // nil: the one of the process
}

// Stream relays between client and server until both directions have ended,
// closes both, and returns nil when both ended with an end of file. An end of
// file on one side is passed on as a CloseWrite to the other, and the other
// direction goes on.
//
// Everything else (a reset, a failed read or write, a limit of o) ends both
// directions at once, and both connections are reset, so that neither peer can
// take a broken stream for a complete one. The error is then an *Error, or
// wraps ErrIdle or ErrHalfClosed.
//
// One direction runs in the calling goroutine, the other one in a goroutine
// that has ended when Stream returns. Deadlines set before are cleared. To end
// a relay from outside, call Close or Reset on both connections; the error then
// wraps net.ErrClosed. A nil o is the zero Options.
func Stream(client, server net.Conn, o *Options) error {
	if o == nil {
		o = &Options{}
	}
	r := newRelay(client, server, o)
	r.watch.start()
	r.running.Add(1)
	go r.runUp()
	r.down.run()
	r.running.Wait()
	r.watch.stop()
	return r.close()
}

// relay is the state of one Stream.
type relay struct {
	client, server end
	up, down       direction
	watch          watch
	running        sync.WaitGroup
	cut            atomic.Bool // a side that cannot half-close was closed whole

	mu  sync.Mutex
	err error // the first failure
}

func newRelay(client, server net.Conn, o *Options) *relay {
	p := o.pool
	if p == nil {
		p = &shared
	}
	r := &relay{client: newEnd(Client, client), server: newEnd(Server, server)}
	r.up.init(r, &r.client, &r.server, o.Up, p)
	r.down.init(r, &r.server, &r.client, o.Down, p)
	r.up.other, r.down.other = &r.down, &r.up
	r.up.pending = o.Early
	r.watch = watch{relay: r, idle: o.Idle, halfClosed: o.HalfClosed}
	return r
}

func (r *relay) runUp() {
	defer r.running.Done()
	r.up.run()
}

// fail keeps the first error and resets both sides, which unblocks both
// directions. Safe for concurrent use.
func (r *relay) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = err
	Reset(r.client.conn)
	Reset(r.server.conn)
}

// close ends both connections after both directions returned.
func (r *relay) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		// Both streams are complete and both ends of file are sent: an error
		// of close has nothing left to tell.
		_ = r.client.conn.Close()
		_ = r.server.conn.Close()
	}
	return r.err
}

// Reset closes c so that its peer sees a reset (RST) and not an end of file:
// SO_LINGER with zero seconds, then close. A connection without a linger option
// is closed; of a tls.Conn the connection below is reset. Reset does not wait,
// may be called at any time from any goroutine, and unblocks whoever uses c.
func Reset(c net.Conn) {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0) // fails only on a closed connection
	}
	_ = c.Close() // nothing to report: the flow is lost already
}
