package udprelay

import (
	"net/netip"
	"slices"
	"time"
)

// holdEvery is how often a fixed port is tried again that could not be had.
const holdEvery = time.Second

// adopt makes s count: fixed ports are taken before the first datagram.
func (f *Forward) adopt(s *Settings) {
	f.inbound.Store(f.inboundEnd(s))
	if err := f.hold(s); err != nil {
		f.warn(s, err)
	}
	f.follow(s)
}

func (f *Forward) warn(s *Settings, err error) {
	f.engine.Log.Warn("source port is not there yet", "listener", s.Name, "addr", f.Addr().String(), "err", err)
}

// age finds the flows that would leave from elsewhere by s.
func (f *Forward) age(s *Settings) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for fl := range f.flows.flows() {
		if fl.trunk == nil {
			continue
		}
		q := s.query(fl.key(up), f.port)
		q.Dst = netip.AddrPortFrom(fl.peer().Addr(), q.Dst.Port())
		dec := s.Dialer.Decide(q)
		r := routeOf(&dec, q.Dst, s.sourcePort(f.port))
		same := dec.Err == nil && r.source == fl.source() && r.port == fl.owner.at.Port()
		fl.stale.Store(!same && dec.Use.Pool == nil) // what a pool picks may differ by itself
	}
}

// inboundEnd is the flow to Settings.Inbound.
type inboundEnd struct {
	key     key
	natural bool // it leaves from the address that the kernel would choose
}

// before tells whether x is the better way to inbound than y.
func (x *inboundEnd) before(y *inboundEnd) bool {
	switch {
	case y == nil:
		return true
	case x.natural != y.natural:
		return x.natural
	}
	return x.key.asked.Less(y.key.asked)
}

// inboundEnd returns the flow to s.Inbound, or nil. Datagrams to it leave from where f
// listens; on a wildcard, from the address that the kernel chooses.
func (f *Forward) inboundEnd(s *Settings) *inboundEnd {
	if !s.ShareSIP || !s.Inbound.IsValid() {
		return nil
	}
	asked, natural := boundTo(f.conn).Addr(), kernelSource(s.Inbound)
	if isWildcard(asked) {
		asked = natural
	}
	if asked == s.Inbound.Addr() && f.port == s.Inbound.Port() {
		f.engine.Log.Warn("inbound is the listener itself", "listener", s.Name, "addr", f.Addr().String())
		return nil
	}
	return &inboundEnd{key{s.Inbound, asked}, asked == natural}
}

// hold takes the fixed source port for s, and lets go of those that f holds and s does
// not want. One that cannot be had now is tried again every second, and for each new
// flow.
func (f *Forward) hold(s *Settings) error {
	r, err := s.fixedRoute(f.port)
	return f.holdRoute(s, r, err)
}

// holdRoute is hold for the way that s has found, or for the reason why it has none.
func (f *Forward) holdRoute(s *Settings, r *route, err error) error {
	e := f.engine
	e.mu.Lock()
	defer e.unlock()
	if f.closed || e.closed {
		return nil
	}
	var held *owner
	if r != nil {
		r.counts = f.counts()
		held, err = e.pin(r, f, s.ShareSIP)
	}
	f.missing, f.again = err != nil, e.now()+holdEvery
	for o, member := range f.pins {
		// Where the source depends on the client or on a name, it may be wanted still.
		if r != nil || o.at.Port() != s.sourcePort(f.port) {
			delete(f.pins, o)
			e.unpin(o, f, member)
		}
	}
	if held != nil {
		f.pins[held] = s.ShareSIP
	}
	return err
}

// pin opens the owner that r asks for, whose port is fixed, and holds it for f, which
// may become a member of its trunk.
func (e *Engine) pin(r *route, f *Forward, member bool) (*owner, error) {
	o, err := e.fixedPort(r)
	if err != nil {
		return nil, err
	}
	e.hold(o, f, member)
	return o, nil
}

func (e *Engine) hold(o *owner, f *Forward, member bool) {
	o.pins++
	if member {
		o.share().join(f)
	}
}

// unpin gives back what f holds.
func (e *Engine) unpin(o *owner, f *Forward, member bool) {
	o.pins--
	if member {
		o.trunk.part(f)
	}
	e.release(o)
}

// expects tells whether datagrams may come from peer to a fixed port of f although
// none was sent there.
func (f *Forward) expects(peer netip.AddrPort) bool {
	s := f.settings.Load()
	if s.Target.Dst.Addr().Unmap() == peer.Addr() || contains(s.InboundFrom, peer.Addr()) {
		return true
	}
	known := f.known.Load()
	return known != nil && slices.Contains(*known, peer.Addr())
}
