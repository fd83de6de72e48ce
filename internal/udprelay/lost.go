package udprelay

import (
	"net/netip"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// lost reports whether src, from which a datagram of that source could not be sent for
// err, is gone for good. A source whose flows are held comes back with them.
func (e *Engine) lost(source string, src netip.Addr, err error) bool {
	if !src.IsValid() || !hasGone(err, src) {
		return false
	}
	return e.Sources == nil || e.Sources.Lost(source, src)
}

// keep passes on what admit has returned, unless the source of the flow went away just
// before CloseLost could know of it. Of most flows the kernel finds out by itself.
func (e *Engine) keep(fl *flow, err error) (*flow, error) {
	if err != nil || !fl.foreign || !e.wentAway(fl.entry.Source, fl.source()) {
		return fl, err
	}
	fl.entry.Close(flows.ErrSourceDown)
	return nil, egress.ErrLost
}

// keep is that of Engine for destinations.
func (a *Association) keep(d *destination, err error) (*destination, error) {
	if err != nil || !d.foreign || !a.engine.wentAway(d.source, d.addr.Local) {
		return d, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(d)
	return nil, egress.ErrLost
}

func (e *Engine) wentAway(source string, src netip.Addr) bool {
	return e.Sources != nil && e.Sources.Lost(source, src)
}

// CloseLost makes associations decide anew on the destinations whose source has lost the
// address src, so that not even the next datagram is lost. Flows of forwards stand in
// the registry, which ends those.
func (e *Engine) CloseLost(lost func(source string, src netip.Addr) bool) {
	e.mu.Lock()
	live := make([]*Association, 0, len(e.associations.live))
	for a := range e.associations.live {
		live = append(live, a)
	}
	e.mu.Unlock()
	for _, a := range live {
		a.forgetLost(lost)
	}
}

func (a *Association) forgetLost(lost func(source string, src netip.Addr) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var next *destination
	for d := a.queue.first; d != nil; d = next {
		next = d.next // forget cuts it off
		if src := d.addr.Local; src.IsValid() && lost(d.source, src) {
			a.forget(d)
		}
	}
}

// HoldPorts takes the fixed ports of forwards at the addresses that their sources have
// now. Call it when the host has got other addresses.
func (e *Engine) HoldPorts() {
	e.mu.Lock()
	live := make([]*Forward, 0, len(e.forwards))
	for f := range e.forwards {
		live = append(live, f)
	}
	e.mu.Unlock()
	e.holdPorts(live)
}

// holdPorts takes the ports of these forwards. It logs one line for each listener that
// got ports which were missing, or lost some.
func (e *Engine) holdPorts(forwards []*Forward) {
	type news struct {
		ports  int
		reason error
	}
	found, missing := make(map[string]news), make(map[string]news)
	for _, f := range forwards {
		s := f.settings.Load()
		before := f.isMissing()
		switch err := f.hold(s); {
		case err != nil && !before:
			missing[s.Name] = news{missing[s.Name].ports + 1, err}
		case err == nil && before:
			found[s.Name] = news{found[s.Name].ports + 1, nil}
		}
	}
	for name, n := range missing {
		e.Log.Warn("source port is gone", "listener", name, "ports", n.ports, "err", n.reason)
	}
	for name, n := range found {
		e.Log.Info("source port is there", "listener", name, "ports", n.ports)
	}
}

func (f *Forward) isMissing() bool {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	return f.missing
}
