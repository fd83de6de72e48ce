package udprelay

import "net/netip"

// displace makes associations give up a socket that the kernel, or a range of ports, has
// put where a fixed port is wanted. That is tried again within a second. Mu is held.
func (e *Engine) displace(at netip.AddrPort) {
	if e.associations.sockets[at] == nil {
		return
	}
	for a := range e.associations.live {
		e.all.Go(func() { a.yield(at) }) // an association's lock comes before mu
	}
}

// yield gives up the socket at that address, if it is one of a. An exit is opened anew
// for the next datagram. The client knows the port of the relay socket, so the
// association ends.
func (a *Association) yield(at netip.AddrPort) {
	a.mu.Lock()
	entry := a.entry
	if !a.closed {
		for _, x := range a.exits {
			if x.owner == nil && x.at == at {
				a.drop(x)
			}
		}
	}
	a.mu.Unlock()
	if a.addr == at && entry != nil {
		entry.Close(ErrDisplaced)
	}
}

// dropIdle gives up a socket by which nothing leaves any more, if there is one besides the
// first.
func (a *Association) dropIdle() {
	for k, x := range a.exits {
		if k != (exitKey{}) && len(x.sent) == 0 {
			a.drop(x)
			return
		}
	}
}

// drop closes x and forgets what leaves by it.
func (a *Association) drop(x *exit) {
	var next *destination
	for d := a.queue.first; d != nil; d = next {
		next = d.next // forget cuts it off
		if d.exit == x {
			a.forget(d)
		}
	}
	e := a.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(a.exits, x.key)
	delete(e.associations.sockets, x.at)
	if err := x.close(); err != nil {
		e.Log.Warn("close association", "addr", x.at.String(), "err", err)
	}
}
