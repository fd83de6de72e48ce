package udprelay

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/internal/sip"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// trunk is what the clients of an owner share that may have the same peer. Flows of
// forwards without ShareSIP are not in it: they are found by their peer.
type trunk struct {
	owner *owner

	mu    sync.Mutex
	table sip.Table[*flow]
	flows map[*flow]struct{}
	peers map[netip.AddrPort]map[*flow]struct{} // the same flows, by their peer

	// members are the forwards that hold the owner or have flows on it, in the order
	// in which they came.
	members []*member
	swept   time.Duration // when the table was last rid of what has ended
}

// member is a forward and how often it counts.
type member struct {
	forward *Forward
	refs    int
}

func newTrunk(o *owner) *trunk {
	return &trunk{
		owner: o,
		flows: make(map[*flow]struct{}),
		peers: make(map[netip.AddrPort]map[*flow]struct{}),
	}
}

// join counts f as a member.
func (t *trunk) join(f *Forward) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ref(f)
}

// part is the reverse of join.
func (t *trunk) part(f *Forward) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unref(f)
}

func (t *trunk) ref(f *Forward) {
	for _, m := range t.members {
		if m.forward == f {
			m.refs++
			return
		}
	}
	t.members = append(t.members, &member{f, 1})
}

func (t *trunk) unref(f *Forward) {
	i := slices.IndexFunc(t.members, func(m *member) bool { return m.forward == f })
	if i < 0 {
		return
	}
	if t.members[i].refs--; t.members[i].refs == 0 {
		t.members = slices.Delete(t.members, i, i+1)
	}
}

// add takes a flow in.
func (t *trunk) add(fl *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flows[fl] = struct{}{}
	if t.peers[fl.peer()] == nil {
		t.peers[fl.peer()] = make(map[*flow]struct{})
	}
	t.peers[fl.peer()][fl] = struct{}{}
	t.ref(fl.forward)
}

// remove is the reverse of add.
func (t *trunk) remove(fl *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flows, fl)
	delete(t.peers[fl.peer()], fl)
	if len(t.peers[fl.peer()]) == 0 {
		delete(t.peers, fl.peer())
	}
	t.table.Forget(fl)
	t.unref(fl.forward)
}

func (t *trunk) isEmpty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows) == 0
}

// busy tells whether fl has something that outlasts silence: a registration, a
// transaction or a dialog.
func (t *trunk) busy(now time.Duration, fl *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.Active(fl, now)
}

// settled tells whether fl has what would be missed: a registration or a call.
func (t *trunk) settled(now time.Duration, fl *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.Settled(fl, now)
}

func (t *trunk) stats() TrunkStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TrunkStats{Listener: t.owner.counts.listener, Addr: t.owner.at, Clients: len(t.flows), SIP: t.table.Stats()}
}

// sweepEvery is how often the table is rid of what has ended.
const sweepEvery = 5 * time.Second

func (t *trunk) expire(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now-t.swept >= sweepEvery {
		t.swept = now
		t.table.Expire(now)
	}
}

// some returns any flow with that peer, or nil.
func (t *trunk) some(peer netip.AddrPort) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	for fl := range t.peers[peer] {
		return fl
	}
	return nil
}

// alone returns the flow with that peer if it is the only one, or nil.
func (t *trunk) alone(peer netip.AddrPort) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.peers[peer]) == 1 {
		return t.only(peer)
	}
	return nil
}

// learn takes note of m, which the client of fl sends. It returns the way it has to
// go when that is not the flow's own: it belongs to a call that came from elsewhere.
func (t *trunk) learn(now time.Duration, fl *flow, m *pktinfo.Message) (leg, bool) {
	b := m.Buf[:m.N]
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, live := t.flows[fl]; !live {
		return leg{}, false
	}
	switch sip.KindOf(b) {
	case sip.STUN:
		t.table.FromClientSTUN(now, fl, sip.TransactionID(b))
	case sip.SIP:
		msg, err := sip.Scan(b)
		if err != nil {
			break // it goes to the peer all the same
		}
		t.table.FromClient(now, fl, &msg)
		return fl.calls.find(now, callFromClient(&msg))
	}
	return leg{}, false
}

// moves tells whether m, from the client of fl, begins something new while nothing else
// is under way.
func (t *trunk) moves(now time.Duration, fl *flow, m *pktinfo.Message) bool {
	b := m.Buf[:m.N]
	if sip.KindOf(b) != sip.SIP {
		return false
	}
	msg, err := sip.Scan(b)
	if err != nil || msg.Method == nil || len(msg.To.Tag) > 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.table.Talking(fl, now)
}

// verdict is where a datagram from the peer goes: to a flow; or to the inbound of a
// forward, which has no flow yet; or nowhere, and why.
type verdict struct {
	flow    *flow
	inbound *Forward
	call    callKey // of a request
	drop    Drop
}

// route finds out who gets m, which came from the peer. It does not allocate.
func (t *trunk) route(now time.Duration, m *pktinfo.Message) verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	peer := m.Addr.Peer
	if t.peers[peer] == nil && !t.expects(peer) {
		return verdict{drop: Stranger}
	}
	v := t.find(now, m)
	if v.flow != nil && v.call != (callKey{}) && (v.flow.peer() != peer || v.flow.owner != t.owner) {
		v.flow.calls.add(now, v.call, t.owner.leg(&m.Addr, v.flow.class))
	}
	return v
}

// find is route for a datagram from where it may come.
func (t *trunk) find(now time.Duration, m *pktinfo.Message) verdict {
	b, peer := m.Buf[:m.N], m.Addr.Peer
	var fl *flow
	var found, initial bool
	v := verdict{drop: Unmatched}
	switch sip.KindOf(b) {
	case sip.STUN:
		fl, _, found = t.table.FromServerSTUN(now, sip.TransactionID(b))
	case sip.KeepAlive:
		v.drop = KeepAlive
	case sip.SIP:
		msg, err := sip.Scan(b)
		if err != nil {
			break
		}
		fl, _, found = t.table.FromServer(now, &msg)
		v.call = callFromServer(&msg)
		initial = v.call != (callKey{}) && len(msg.To.Tag) == 0
	}
	switch {
	case found && fl.takes(peer):
		v.flow = fl
		return v
	case initial && t.toInbound(&v, peer):
		return v
	}
	if v.flow = t.only(peer); v.flow == nil && v.call != (callKey{}) {
		t.toInbound(&v, peer)
	}
	return v
}

// toInbound sets who answers the calls from peer, if there is somebody. Of the
// addresses of a listener it is always the same one that calls come from.
func (t *trunk) toInbound(v *verdict, peer netip.AddrPort) bool {
	var best *inboundEnd
	for _, m := range t.members {
		if x := m.forward.inbound.Load(); x != nil && m.forward.expects(peer) && x.before(best) {
			best, v.inbound = x, m.forward
		}
	}
	if best == nil {
		return false
	}
	if v.flow = v.inbound.flow(best.key); v.flow != nil {
		v.inbound = nil
	}
	return true
}

// only returns the flow that alone has used peer or, where none has, is the only one.
func (t *trunk) only(peer netip.AddrPort) *flow {
	fs := t.peers[peer]
	if fs == nil {
		fs = t.flows
	}
	if len(fs) != 1 {
		return nil
	}
	for fl := range fs {
		if fl.takes(peer) {
			return fl
		}
	}
	return nil
}

// expects tells whether a member lets in what comes from peer.
func (t *trunk) expects(peer netip.AddrPort) bool {
	return slices.ContainsFunc(t.members, func(m *member) bool { return m.forward.expects(peer) })
}

// takes tells whether fl may get what comes from peer.
func (fl *flow) takes(peer netip.AddrPort) bool {
	return fl.peer() == peer || fl.forward.expects(peer)
}
