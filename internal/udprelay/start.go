package udprelay

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// errDraining says that a forward takes no new flows any more. It is not logged.
var errDraining = errors.New("the forward is ending")

// opening is a flow that is to be.
type opening struct {
	forward  *Forward
	settings *Settings
	key      key
	port     uint16 // it has to leave from; zero: any
	ifIndex  int    // where the client's first datagram came in
	began    time.Time
	query    dialer.Flow
	decision dialer.Decision
}

func (f *Forward) opening(s *Settings, k key, ifIndex int) opening {
	return opening{
		forward:  f,
		settings: s,
		key:      k,
		port:     s.sourcePort(f.port),
		ifIndex:  ifIndex,
		began:    time.Now(),
		query:    s.query(k, f.port),
	}
}

// start opens the flow of m. It returns nil where it is refused, or has to wait for
// the target's name; m is kept then.
func (f *Forward) start(m *pktinfo.Message) *flow {
	if f.draining.Load() {
		f.counts().drop(Draining, datagrams(m))
		return nil
	}
	if !m.Addr.Local.IsValid() {
		f.counts().drop(NoLocal, datagrams(m))
		return nil
	}
	k := keyOf(&m.Addr)
	if fl := f.flow(k); fl != nil {
		return fl // from an earlier datagram of the same batch
	}
	o := f.engine.takeOpening()
	defer f.engine.putOpening(o)
	s := f.settings.Load()
	*o = f.opening(s, k, m.Addr.IfIndex)
	switch {
	case k.from != s.Inbound && !s.allows(k.from.Addr()):
		f.refuse(o, ErrNotAllowed, datagrams(m))
		return nil
	case !o.query.Dst.Addr().IsValid():
		for p := range m.Segments() {
			f.wait(o, p)
		}
		return nil
	}
	return o.open(f.ctx, datagrams(m))
}

// takeOpening returns one from the pool: a flood of clients would else leave more
// garbage than flows.
func (e *Engine) takeOpening() *opening {
	if o, ok := e.openings.Get().(*opening); ok {
		return o
	}
	return new(opening)
}

func (e *Engine) putOpening(o *opening) {
	*o = opening{}
	e.openings.Put(o)
}

// open opens the flow, or refuses it and returns nil; n datagrams are lost then.
func (o *opening) open(ctx context.Context, n int) *flow {
	err := o.decide(ctx)
	if err == nil {
		var fl *flow
		if fl, err = o.admit(); err == nil {
			return fl
		}
	}
	o.forward.refuse(o, err, n)
	return nil
}

// admit opens the flow that was decided on, from the next member of a pool where it can.
func (o *opening) admit() (*flow, error) {
	e := o.forward.engine
	fl, err := retry(o.settings.Dialer, &o.query, &o.decision, func() (*flow, error) { return e.keep(e.admit(o)) })
	if errors.Is(err, dialer.ErrPorts) {
		e.makeRoom(o.forward, routeOf(&o.decision, o.query.Dst, o.port))
	}
	return fl, err
}

// join is all of errs in one line.
func join(errs refusals) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errs
}

// retry calls use for dec and, where a source could not be used and its pool says so, for
// the members that the pool picks next.
func retry[T any](d *dialer.Dialer, q *dialer.Flow, dec *dialer.Decision, use func() (T, error)) (T, error) {
	var tried []*dialer.Source
	var failed refusals
	for {
		x, err := use()
		switch {
		case err == nil:
			return x, nil
		case !dec.Retries(err), errors.As(err, new(*clientError)):
			return x, join(append(failed, err))
		}
		tried, failed = append(tried, dec.Source), append(failed, err)
		next := d.DecideNext(*q, tried)
		if next.Err != nil {
			return x, join(append(failed, next.Err))
		}
		*dec = next
	}
}

// refuse counts n datagrams of a flow that does not open, and logs why unless that
// was done within the last second.
func (f *Forward) refuse(o *opening, err error, n int) {
	e := f.engine
	reason := Refused
	switch {
	case errors.Is(err, errDraining):
		f.counts().drop(Draining, n)
		return
	case errors.Is(err, dialer.ErrLimit):
		reason = Limited
	case errors.Is(err, errUnresolved):
		reason = Unresolved
	}
	i := o.info()
	if e.refusals.allow(refusal{o.key.from.Addr(), i.Listener, i.Rule}, e.now()) {
		e.Flows.Refuse(i, o.began, err)
	} else {
		e.Flows.Count(i.Rule, i.Source, err)
	}
	f.counts().drop(reason, n)
}

// info is what is known of the flow before it has a port.
func (o *opening) info() flows.Info {
	i := flows.Info{
		Listener: o.settings.Name,
		Client:   o.key.from,
		Network:  "udp",
		Dst:      o.query.Dst,
		Name:     o.query.Name,
		Rule:     o.decision.Rule,
		Src:      netip.AddrPortFrom(o.decision.Addr, o.port),
	}
	switch {
	case o.decision.Source != nil:
		i.Source = o.decision.Source.Name
	case o.decision.Use.Kernel && o.decision.Err == nil:
		i.Source = "kernel"
	}
	return i
}

// admit opens the flow that o describes, or returns the one that is there already.
func (e *Engine) admit(o *opening) (*flow, error) {
	r := routeOf(&o.decision, o.query.Dst, o.port)
	r.share = o.settings.ShareSIP && r.port != 0
	r.counts = o.forward.counts()
	info := o.info()
	if !r.source.IsValid() {
		info.Src = netip.AddrPortFrom(kernelSource(r.peer), 0)
	}
	e.mu.Lock()
	defer e.unlock()
	f := o.forward
	if e.closed || f.closed || f.draining.Load() {
		return nil, errDraining
	}
	if fl := f.flow(o.key); fl != nil {
		return fl, nil
	}
	if e.loops(f, o.key) {
		return nil, ErrLoop
	}
	if err := e.takePlaces(o); err != nil {
		return nil, err
	}
	own, err := e.ownerFor(r)
	if err != nil {
		e.leavePlaces(&info)
		return nil, err
	}
	info.Src = netip.AddrPortFrom(info.Src.Addr(), own.at.Port())
	fl := e.enter(o, own, r, info)
	s := f.settings.Load() // a reload may have changed it while o waited for a name
	for s.Limit > 0 && e.counts[s.Name] >= s.Limit {
		e.evict(e.spare(s.Name))
	}
	for e.count > 0 && e.count >= e.limit() {
		e.evict(e.spare(""))
	}
	f.remember(fl)
	e.count++
	e.countFor(s, 1)
	return fl, nil
}

// enter makes the flow and puts it into the table of its owner, which then stays.
func (e *Engine) enter(o *opening, own *owner, r *route, info flows.Info) *flow {
	f := o.forward
	fl := &flow{
		forward: f,
		owner:   own,
		asked:   o.key.asked,
		ifIndex: int32(o.ifIndex),
		class:   o.settings.class(),
		kernel:  !r.source.IsValid(),
		foreign: r.freeBind,
	}
	e.numbers.add(fl)
	fl.traffic = e.tallies.of(info.Listener).of(info.Source)
	fl.use(e.now())
	fl.entry = e.Flows.Open(info, func(reason error) { e.end(fl, reason) })
	if _, held := f.pins[own]; !held && o.port != 0 {
		e.hold(own, f, r.share)
		f.pins[own] = r.share
	}
	if r.share {
		fl.trunk, fl.calls = own.share(), new(calls)
		fl.trunk.add(fl)
		return fl
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	own.peers.put(fl)
	return fl
}

// makeRoom ends the flow of f that has been idle for the longest time when there are
// no more ports for r, so that there is one when the client asks again.
func (e *Engine) makeRoom(f *Forward, r *route) {
	if r.port != 0 {
		return
	}
	e.mu.Lock()
	defer e.unlock()
	fl := f.idle.oldest()
	if fl != nil && fl.owner.at.Addr() == r.bindAddr() && e.now()-fl.lastUsed() >= quiet {
		e.evict(fl)
	}
}

// maxHops bounds how many forwards in a row are looked through for a loop.
const maxHops = 8

// loops tells whether the client of flow k is f itself, directly or through other
// forwards: each round would open a flow more.
func (e *Engine) loops(f *Forward, k key) bool {
	h := f
	for range maxHops {
		o := e.owners[k.from]
		if o == nil {
			o = e.owners[netip.AddrPortFrom(wildcard(k.from.Addr()), k.from.Port())]
		}
		if o == nil {
			return false
		}
		asked := netip.AddrPortFrom(k.asked, h.port)
		fl := o.flow(asked)
		if fl == nil {
			fl = o.shared(asked)
		}
		if fl == nil || fl.forward == nil {
			return false
		}
		if fl.forward == f {
			return true
		}
		h, k = fl.forward, fl.key(up)
	}
	return true
}
