package udprelay

import (
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// takePeer makes the owner of a fixed port bring what comes from the peer of r to d,
// unless somebody else has that peer there. An association's lock comes before mu.
func (e *Engine) takePeer(d *destination, r *route, client netip.AddrPort) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	o, err := e.fixedOwner(r)
	if err != nil {
		return err
	}
	d.flow = &flow{owner: o, destination: d, entry: &flows.Flow{Info: flows.Info{Client: client, Dst: r.peer}}}
	e.numbers.add(d.flow)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.peers.put(d.flow)
	return nil
}

// leavePeer is the reverse of takePeer. Mu is held. A second call does nothing.
func (e *Engine) leavePeer(d *destination) {
	if d.flow == nil {
		return
	}
	o := d.flow.owner
	o.mu.Lock()
	o.peers.remove(d.flow)
	o.mu.Unlock()
	e.numbers.remove(d.flow)
	d.flow = nil
	e.release(o)
}

// answer brings m, which came to the owner of a fixed port, to the client.
func (d *destination) answer(now time.Duration, b *batch, m *pktinfo.Message) {
	a := d.exit.association
	client := a.peer.Load()
	if client == nil {
		return // never: there is no destination before the client's first datagram
	}
	d.hole.last.Store(int64(now))
	s := answers{a: a, b: b, to: client}
	s.copy(m, m.Buf[:m.N], d.hole)
	s.flush()
}
