package server

import (
	"bytes"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// maxBacklog bounds the lines that wait for whoever reads the log.
const maxBacklog = 4096

// flushTime is how long the end of the program waits for them.
const flushTime = time.Second

// backlog writes lines to a writer that may take its time, and never makes its callers
// wait: a pipe that nobody reads or a disk that is full must not hold up flows and
// signals. What does not fit is dropped and counted. Every Write is a line; it is safe
// for concurrent use.
type backlog struct {
	w       io.Writer
	warn    *slog.Logger // writes to w itself
	lines   chan []byte
	dropped atomic.Int64
	quit    chan struct{}
	ended   chan struct{}
}

// newBacklog starts to write to w. A handler of its own tells there how many lines were
// dropped.
func newBacklog(w io.Writer, handler func(io.Writer) slog.Handler) *backlog {
	b := &backlog{
		w:     w,
		warn:  slog.New(handler(w)),
		lines: make(chan []byte, maxBacklog),
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	go b.run()
	return b
}

// Write never fails and never waits.
func (b *backlog) Write(line []byte) (int, error) {
	select {
	case b.lines <- bytes.Clone(line):
	default:
		b.dropped.Add(1)
	}
	return len(line), nil
}

func (b *backlog) run() {
	defer close(b.ended)
	for {
		select {
		case line := <-b.lines:
			b.write(line)
		case <-b.quit:
			b.flush()
			return
		}
	}
}

func (b *backlog) flush() {
	for {
		select {
		case line := <-b.lines:
			b.write(line)
		default:
			return
		}
	}
}

func (b *backlog) write(line []byte) {
	_, _ = b.w.Write(line) // there is nowhere to say so
	if n := b.dropped.Swap(0); n > 0 {
		b.warn.Warn("log lines dropped", "lines", n)
	}
}

// close writes what waits, as far as that takes no longer than flushTime.
func (b *backlog) close() {
	close(b.quit)
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-b.ended:
	case <-timer.C:
	}
}
