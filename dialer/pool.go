package dialer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/srcproxy/srcproxy/internal/rendezvous"
)

// pool is a Pool in its compiled form.
type pool struct {
	*Pool
	ids  []uint64 // what stands for each member in a hash
	turn atomic.Uint64
}

func newPool(p *Pool) (*pool, error) {
	if len(p.Of) == 0 {
		return nil, fmt.Errorf("pool %q: has no members", p.Name)
	}
	if int(p.Pick) >= len(picks) {
		return nil, fmt.Errorf("pool %q: pick: %v", p.Name, p.Pick)
	}
	out := &pool{Pool: p}
	for _, m := range p.Of {
		if m.Source == nil || m.Weight < 0 {
			return nil, fmt.Errorf("pool %q: a member needs a source, and a weight of 0 or more", p.Name)
		}
		if err := m.Source.check(); err != nil {
			return nil, fmt.Errorf("pool %q: %w", p.Name, err)
		}
		out.ids = append(out.ids, m.Source.Hash())
	}
	return out, nil
}

// choice is one pick: the family it is made for, and what may not be picked. The flow
// is no part of it: what stands beside a State, whose methods could keep it, is moved
// to the heap.
type choice struct {
	is4     bool
	dst     netip.Addr
	state   State   // nil takes all for up
	limiter Limiter // nil takes none for full
	tried   []*Source
}

// pick fills in the source and the address, or the reason why there is none.
func (c *choice) pick(d *Decision, u *use, f *Flow) {
	switch {
	case u.denies():
		d.Err = denied(f)
	case u.Source != nil:
		d.Err = c.fill(d, u.Source, sessionHash(f))
	case u.pool != nil:
		c.pickFrom(d, u.pool, u.pool.hash(f))
	case u.Same:
		d.Err = c.same(d, f.Asked.Addr().Unmap())
	}
}

// same makes asked, the address that the client connected to, the one to bind, or says
// why it cannot be.
func (c *choice) same(d *Decision, asked netip.Addr) error {
	switch {
	case !asked.IsValid() || asked.IsUnspecified():
		return fmt.Errorf("%w: same: which address the client connected to is not known", ErrDenied)
	case asked.IsLoopback():
		return fmt.Errorf("%w: same: the client connected to %v, which is loopback and no address to leave by", ErrDenied, asked)
	case asked.IsLinkLocalUnicast() && asked.Is6():
		return fmt.Errorf("%w: same: the client connected to %v, which is known on one link only", ErrDenied, asked)
	case asked.Is4() != c.is4:
		return fmt.Errorf("%w: same: the client connected to %v, and the destination is %s", ErrNoSource, asked, familyName(c.is4))
	}
	// Down is asked about sameSource in either case: a source that binds what is not here
	// on purpose is never down.
	if err := c.bind(d, sameSource, asked); err != nil {
		return err
	}
	if s, ok := c.state.(RouteState); ok && !c.is4 && s.ByRoute(asked) {
		d.Source = sameByRoute
	}
	return nil
}

// fill sets the source and address of d, or says why s cannot serve. A Source that
// is no single address picks one by h.
func (c *choice) fill(d *Decision, s *Source, h uint64) error {
	if !s.has(c.is4) {
		return fmt.Errorf("%w: source %q has no %s address", ErrNoSource, s.Name, familyName(c.is4))
	}
	a := c.addr(s, c.here(s, h))
	if !a.IsValid() {
		return fmt.Errorf("%w: source %q: %s has no %s address to leave from", ErrSourceDown, s.Name, s.Interface, familyName(c.is4))
	}
	return c.bind(d, s, a)
}

// bind makes a, an address of s, the one to bind, unless it is down.
func (c *choice) bind(d *Decision, s *Source, a netip.Addr) error {
	if c.state != nil {
		if err := c.down(s, a); err != nil {
			return fmt.Errorf("%w: source %q: %w", ErrSourceDown, s.Name, err)
		}
	}
	d.Source, d.Addr, d.Ports = s, a, s.Ports
	return nil
}

func familyName(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}

// serves reports whether member i can serve, with the address that h picks.
func (c *choice) serves(p *pool, i int, h uint64) bool {
	s := p.Of[i].Source
	if slices.Contains(c.tried, s) || !s.has(c.is4) || c.full(s) != nil {
		return false
	}
	a := c.addr(s, c.here(s, rendezvous.Mix(h^p.ids[i])))
	return a.IsValid() && (c.state == nil || c.down(s, a) == nil)
}

// down returns why a, an address of s, cannot be used now, or not towards c.dst.
func (c *choice) down(s *Source, a netip.Addr) error {
	if err := c.state.Down(s, a); err != nil {
		return err
	}
	if w, ok := c.state.(WayState); ok {
		return w.Astray(s, a, c.dst)
	}
	return nil
}

// The bounds of the addresses of a range that are passed over for one flow.
const (
	maxAway = 16  // each of them elsewhere in the range, so that those beside one that is away share its keys
	maxRow  = 256 // and then one after the other, so that one that is here is found
)

// here returns what picks an address of s that is not down. That is h, unless s is a
// range and the address away: then one of those that follow from h, always the same, so
// that only the keys of the address that is away move. Of a range with no more than
// maxRow addresses it finds the last one, too.
func (c *choice) here(s *Source, h uint64) uint64 {
	if c.state == nil || !s.First.IsValid() {
		return h
	}
	next := h
	for range maxAway {
		if c.state.Down(s, s.addr(c.is4, next)) == nil {
			return next
		}
		next = rendezvous.Mix(next + 1)
	}
	for range min(size(s.First, s.Last), maxRow) {
		if c.state.Down(s, s.addr(c.is4, next)) == nil {
			return next
		}
		next++
	}
	return h
}

// addr returns the address of s that h picks; the zero Addr when s is an interface
// that has none.
func (c *choice) addr(s *Source, h uint64) netip.Addr {
	switch {
	case s.Interface == "":
		return s.addr(c.is4, h)
	case c.state == nil:
		return netip.Addr{}
	}
	return c.state.LinkAddr(s.Interface, c.is4)
}

func (c *choice) full(s *Source) error {
	if c.limiter == nil {
		return nil
	}
	return c.limiter.Full(s)
}

func (c *choice) pickFrom(d *Decision, p *pool, h uint64) {
	if i := c.member(p, h); i >= 0 {
		d.Err = c.fill(d, p.Of[i].Source, rendezvous.Mix(h^p.ids[i]))
		return
	}
	d.Err = c.nobody(p, h)
}

// nobody tells for each member why it cannot serve. Of those already tried the caller
// has the reason.
func (c *choice) nobody(p *pool, h uint64) error {
	var all attempts
	for i, m := range p.Of {
		if slices.Contains(c.tried, m.Source) {
			continue
		}
		var d Decision
		err := c.fill(&d, m.Source, rendezvous.Mix(h^p.ids[i]))
		if err == nil {
			err = c.full(m.Source)
		}
		if err != nil {
			all = append(all, err)
		}
	}
	if all == nil {
		return fmt.Errorf("pool %q: has no other member", p.Name)
	}
	return fmt.Errorf("pool %q: %w", p.Name, all)
}

// member returns the place of the member that the pool's way picks among those that
// can serve, or -1.
func (c *choice) member(p *pool, h uint64) int {
	switch p.Pick {
	case RoundRobin:
		return c.nth(p, h, p.turn.Add(1)-1)
	case Random:
		return c.nth(p, h, rand.Uint64())
	case Sticky:
		return c.least(p, h, func(i int) uint64 { return rendezvous.Cost(h^p.ids[i], weight(p.Of[i])) })
	case LeastConnections:
		return c.least(p, h, func(i int) uint64 { return c.flows(p.Of[i].Source) / weight(p.Of[i]) })
	}
	return c.least(p, h, func(int) uint64 { return 0 })
}

// flows returns how many live flows leave from s, in units of 2^-32.
func (c *choice) flows(s *Source) uint64 {
	if c.state == nil {
		return 0
	}
	// One more than there are, so that weights count among idle members too.
	return uint64(c.state.Flows(s)+1) << 32
}

// nth returns the member in whose share n falls, when the members that can serve
// stand one after the other, each as long as its weight.
func (c *choice) nth(p *pool, h, n uint64) int {
	var total uint64
	for i := range p.Of {
		if c.serves(p, i, h) {
			total += weight(p.Of[i])
		}
	}
	if total == 0 {
		return -1
	}
	n %= total
	last := -1
	for i := range p.Of {
		if !c.serves(p, i, h) {
			continue
		}
		last = i
		w := weight(p.Of[i])
		if n < w {
			return i
		}
		n -= w
	}
	return last // a member went down between the two passes
}

func weight(m Member) uint64 { return uint64(max(m.Weight, 1)) }

// least returns the member with the smallest cost, weights counted; the first of equals.
func (c *choice) least(p *pool, h uint64, cost func(i int) uint64) int {
	best, bestCost := -1, uint64(math.MaxUint64)
	for i := range p.Of {
		if !c.serves(p, i, h) {
			continue
		}
		if v := cost(i); best < 0 || v < bestCost {
			best, bestCost = i, v
		}
	}
	return best
}

// hash returns what picks the member of a sticky pool, and the address inside a
// prefix or range. Other pools have an address for every connection.
func (p *pool) hash(f *Flow) uint64 {
	if p.Pick != Sticky {
		return sessionHash(f)
	}
	h := rendezvous.Seed
	if len(p.By) == 0 {
		h = ByClient.hash(h, f)
	}
	for _, k := range p.By {
		h = k.hash(h, f)
	}
	if p.For > 0 {
		h = rendezvous.Uint(h, epoch(h, p.For))
	}
	return rendezvous.Mix(h)
}

// epoch numbers the spans of a sticky key. The key itself shifts them, so that not
// all keys move at the same moment.
func epoch(h uint64, span time.Duration) uint64 {
	s := uint64(span)
	return (uint64(time.Now().UnixNano()) + h%s) / s
}
