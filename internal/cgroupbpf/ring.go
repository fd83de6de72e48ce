//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/srcproxy/srcproxy/dialer"
)

const (
	// ringSize is what waits to be read, in bytes: some 2,300 events. It is a power of two and whole pages.
	ringSize = 256 << 10

	// readEvery is how often the ring is looked at. The hooks wake nobody, which would cost them more than the decision.
	readEvery = 20 * time.Millisecond

	// readAtOnce bounds what is read before the end is asked for again.
	readAtOnce = 4096
)

// ring is what the hooks write events into, and the goroutine that reads them. It is there while the rules want events.
type ring struct {
	m      *ebpf.Map
	reader *ringbuf.Reader
	in     [slots]bool // under the lock of the Plane: the slots that have it
	tell   func(*Event)
	quit   chan struct{}
	ended  chan struct{}

	mu      sync.Mutex
	epochs  []*epoch // the oldest first
	settled *epoch   // no hook goes by earlier ones any more
	state   dialer.State
}

// epoch is the rules from one value of active on.
type epoch struct {
	first  uint64
	rules  *Rules
	tables map[uint32]*dialer.Table // of uses, for the reader alone
}

// openRing makes a ring that is in no slot yet.
func (p *Plane) openRing() (*ring, error) {
	spec := p.inner[hooksMapRings].Copy()
	spec.MaxEntries = ringSize
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", hooksMapRings, err)
	}
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map %s: %w", hooksMapRings, err), m.Close())
	}
	reader.SetDeadline(time.Unix(1, 0)) // in the past: it never waits
	r := &ring{m: m, reader: reader, tell: p.OnDecision, state: p.state, quit: make(chan struct{}), ended: make(chan struct{})}
	go r.run()
	return r, nil
}

// wantRing has a ring in the slot of g, if its rules want one. What was there of an earlier one is taken out by dropRing.
func (p *Plane) wantRing(g *generation) error {
	if !p.logs(g) {
		return nil
	}
	if p.ring == nil {
		var err error
		if p.ring, err = p.openRing(); err != nil {
			return err
		}
	}
	if p.ring.in[g.slot] {
		return nil
	}
	if err := p.maps.Rings.Put(g.slot, p.ring.m); err != nil {
		return fmt.Errorf("map %s: %w", hooksMapRings, err)
	}
	p.ring.in[g.slot] = true
	return nil
}

// logs reports whether the hooks are to tell of what they decide under the rules of g.
func (p *Plane) logs(g *generation) bool { return g.rules.settings.Log != 0 && p.OnDecision != nil }

// dropRing tells the last events, and gives the ring back.
func (p *Plane) dropRing() error {
	if p.ring == nil {
		return nil
	}
	var errs []error
	for slot, in := range p.ring.in {
		if in {
			errs = append(errs, p.maps.Rings.Delete(uint32(slot))) // #nosec G115 -- of two; it waits for the hooks that have seen it
		}
	}
	errs = append(errs, p.ring.close())
	p.ring = nil
	return errors.Join(errs...)
}

// silence has hooks that stay where they are attached tell nothing more.
func (p *Plane) silence() error {
	if p.ring == nil {
		return nil
	}
	var s hooksSettings
	err := p.maps.Settings.Lookup(p.now.slot, &s)
	if err == nil {
		s.Log = 0
		err = p.maps.Settings.Put(p.now.slot, s)
	}
	return errors.Join(err, p.dropRing())
}

// Dropped returns how many events there was no room for, since Load.
func (p *Plane) Dropped() (uint64, error) {
	if p.opened() {
		return 0, nil
	}
	var n uint64
	if err := p.maps.Dropped.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read what the kernel plane could not tell: %w", err)
	}
	return n, nil
}

// note tells which rules hold from that value of active on.
func (r *ring) note(first uint64, rules *Rules, state dialer.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
	if n := len(r.epochs); n == 0 || r.epochs[n-1].rules != rules {
		r.epochs = append(r.epochs, &epoch{first, rules, make(map[uint32]*dialer.Table)})
	}
}

// at returns the rules that held at a value of active, and the state of now. Nil: they are not known.
func (r *ring) at(generation uint64) (*epoch, dialer.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range slices.Backward(r.epochs) {
		if g.first <= generation {
			return g, r.state
		}
	}
	return nil, nil
}

// settle says that all hooks go by the newest rules.
func (r *ring) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settled = r.epochs[len(r.epochs)-1]
}

// oldest returns the first epoch of which anything may still be told.
func (r *ring) oldest() *epoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settled
}

// forget forgets the rules before g: what was told of them has been read.
func (r *ring) forget(g *epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.epochs, g); i > 0 {
		r.epochs = slices.Delete(r.epochs, 0, i)
	}
}

func (r *ring) run() {
	defer close(r.ended)
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.quit:
			r.read()
			return
		}
		for r.read() {
			select {
			case <-r.quit:
				r.read()
				return
			default:
			}
		}
	}
}

// read tells what is there, and reports whether there may be more.
func (r *ring) read() bool {
	oldest := r.oldest() // before the ring is found empty
	if r.reader.AvailableBytes() == 0 {
		r.forget(oldest)
		return false
	}
	wall, err := sinceBoot()
	if err != nil {
		return false
	}
	var rec ringbuf.Record
	for range readAtOnce {
		if err := r.reader.ReadInto(&rec); err != nil {
			r.forget(oldest)
			return false
		}
		r.say(rec.RawSample, wall)
	}
	return true
}

// say tells one event.
func (r *ring) say(sample []byte, wall int64) {
	var e hooksEvent
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e)), sample)
	if g, state := r.at(e.Generation); g != nil {
		r.tell(e.event(g, state, wall))
	}
}

// close ends the reader, which tells what is there before.
func (r *ring) close() error {
	close(r.quit)
	<-r.ended
	return errors.Join(r.reader.Close(), r.m.Close())
}
