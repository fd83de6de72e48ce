package host

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// A Host is this host as it is now: a Snapshot that is exchanged at each change. It
// is safe for concurrent use.
type Host struct {
	now    atomic.Pointer[Snapshot]
	routes atomic.Pointer[chan struct{}] // closed and replaced when a route may have changed
	events *events
	reader *reader
	log    *slog.Logger
	done   chan struct{}
}

// Watch reads the host's addresses and follows their changes until ctx is done. Every
// burst of changes leads to a new reading, so that a lost event costs nothing but the
// time to the next. Log may be nil; readings that fail go there, and the last good
// Snapshot stays. The sockets belong to the network namespace of the calling thread.
func Watch(ctx context.Context, log *slog.Logger) (*Host, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r, err := newReader()
	if err != nil {
		return nil, err
	}
	e, err := subscribe() // before the first reading, so that no change falls between
	if err != nil {
		r.close()
		return nil, err
	}
	h := &Host{events: e, reader: r, log: log, done: make(chan struct{})}
	s, err := r.snapshot()
	if err != nil {
		e.close()
		r.close()
		return nil, err
	}
	h.now.Store(s)
	first := make(chan struct{})
	h.routes.Store(&first)
	go h.follow(ctx)
	return h, nil
}

// Wait returns when the watch has ended after its context, and its sockets are closed.
func (h *Host) Wait() { <-h.done }

// Now returns the latest Snapshot.
func (h *Host) Now() *Snapshot { return h.now.Load() }

// Local is Now().Local.
func (h *Host) Local(a netip.Addr) bool { return h.now.Load().Local(a) }

// ByRoute is Snapshot.ByRoute of Now.
func (h *Host) ByRoute(a netip.Addr) bool { return h.now.Load().ByRoute(a) }

// LinkAddr is Now().LinkAddr.
func (h *Host) LinkAddr(link string, is4 bool) netip.Addr { return h.now.Load().LinkAddr(link, is4) }

// Addresses is Now().Addresses.
func (h *Host) Addresses() []Address { return h.now.Load().Addresses() }

// Links is Now().Links.
func (h *Host) Links() []Link { return h.now.Load().Links() }

// Changed returns a channel that is closed when the Snapshot of now is replaced. Take
// the channel first and look at the addresses then; so no change is missed.
func (h *Host) Changed() <-chan struct{} { return h.now.Load().replaced }

// RoutesChanged returns a channel that is closed when routes, rules, links or addresses
// have changed since, so that the answers of Route may be others. On a router that is
// all the time: whoever follows it should wait a little between two looks.
func (h *Host) RoutesChanged() <-chan struct{} { return *h.routes.Load() }

// OwnerLink is Now().OwnerLink.
func (h *Host) OwnerLink(a netip.Addr) (Link, bool) { return h.now.Load().OwnerLink(a) }

// follow reads the host again whenever something changed. It owns the sockets.
func (h *Host) follow(ctx context.Context) {
	defer close(h.done)
	defer h.reader.close()
	defer h.events.close()
	stop := context.AfterFunc(ctx, h.events.close)
	defer stop()
	for {
		what, err := h.events.wait()
		if err != nil {
			if ctx.Err() == nil {
				h.log.Error("changes of addresses are no longer seen", "err", err)
			}
			return
		}
		if what == addressing && !h.read(ctx) {
			return
		}
		h.tellRoutes()
	}
}

// read replaces the Snapshot, however long it takes; it returns false when ctx is done.
func (h *Host) read(ctx context.Context) bool {
	const retry = time.Second
	for {
		s, err := h.reader.snapshot()
		if err == nil {
			old := h.now.Swap(s)
			close(old.replaced)
			return true
		}
		h.log.Warn("addresses could not be read", "err", err, "again_in", retry)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(retry):
		}
	}
}

// tellRoutes closes the channel of RoutesChanged.
func (h *Host) tellRoutes() {
	next := make(chan struct{})
	close(*h.routes.Swap(&next))
}
