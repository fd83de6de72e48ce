//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
)

// generation is one set of rules in the maps of a Plane.
type generation struct {
	rules   *Rules
	slot    uint32
	members []hooksMember
	maps    map[string]*ebpf.Map // the inner ones, by the name of the outer
}

func (g *generation) close() error {
	var errs []error
	for _, m := range g.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Set exchanges the rules. Each call of a program is judged wholly by the old or wholly by the new ones, and when Set
// returns all are judged by the new ones. An error leaves the old rules. It waits for the kernel, some 0.1 s.
func (p *Plane) Set(r *Rules) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set(r)
}

// SetState tells which sources are usable now: those of which state.Down says nothing. A source that is down is not picked,
// and flows are refused where no other is left. It is to be called at each change; a nil state means that all are up.
// Sources that are interfaces have the address that state gives them, and are down without one.
func (p *Plane) SetState(state dialer.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	if p.now == nil {
		return nil
	}
	members := p.now.rules.withState(state)
	for i := range members {
		members[i].keepAddrs(&p.now.members[i])
		// A hook may read a member while it is written: only what is one byte may change.
		if members[i].V4 != p.now.members[i].V4 || members[i].V6 != p.now.members[i].V6 {
			return p.set(p.now.rules)
		}
	}
	err := p.change(members)
	if p.changed { // also by an earlier call that failed in between
		err = errors.Join(err, p.activate(p.now))
	}
	return err
}

// change writes members where they differ from what they were.
func (p *Plane) change(members []hooksMember) error {
	for i := range members {
		if members[i] == p.now.members[i] {
			continue
		}
		if err := p.now.maps[hooksMapMembers].Put(uint32(i), members[i]); err != nil { // #nosec G115 -- an index of a map
			return fmt.Errorf("change the state of source %q: %w", p.now.rules.sources[i].Name, err)
		}
		p.now.members[i] = members[i]
		p.changed = true
	}
	return nil
}

// withState returns the members with their addresses as state knows them.
func (r *Rules) withState(state dialer.State) []hooksMember {
	members := make([]hooksMember, len(r.members))
	for i, m := range r.members {
		s := r.sources[i]
		m.V4, m.Up[1] = usable(s, addrOf(s, true, state), state)
		m.V6, m.Up[0] = usable(s, addrOf(s, false, state), state)
		members[i] = m
	}
	return members
}

// keepAddrs gives m back the addresses that old had, where it is down now: none is read then, and an interface that has lost
// its address is so withdrawn by one byte.
func (m *hooksMember) keepAddrs(old *hooksMember) {
	if m.Up[0] == 0 {
		m.V6 = old.V6
	}
	if m.Up[1] == 0 {
		m.V4 = old.V4
	}
}

func addrOf(s *dialer.Source, is4 bool, state dialer.State) netip.Addr {
	if s.Interface != "" && state != nil {
		return state.LinkAddr(s.Interface, is4)
	}
	for _, a := range s.Addrs {
		if a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

func usable(s *dialer.Source, a netip.Addr, state dialer.State) (hooksAddress, uint8) {
	if !a.IsValid() {
		return hooksAddress{}, 0
	}
	return address(a), flag(state == nil || state.Down(s, a) == nil && !broken(s, a, state))
}

// broken reports whether packets from a would be lost wherever they go. The hooks know no
// more of the ways of single destinations.
func broken(s *dialer.Source, a netip.Addr, state dialer.State) bool {
	w, ok := state.(dialer.WayState)
	return ok && w.Astray(s, a, netip.Addr{}) != nil
}

func (p *Plane) set(r *Rules) error {
	if p.opened() {
		return errOpened
	}
	g, err := p.build(r)
	if err != nil {
		return fmt.Errorf("set the rules of the kernel plane: %w", err)
	}
	if err := p.install(g); err != nil {
		errs := []error{fmt.Errorf("set the rules of the kernel plane: %w", err), g.close()}
		if p.now == nil || !p.logs(p.now) {
			errs = append(errs, p.dropRing())
		}
		return errors.Join(errs...)
	}
	old := p.now
	p.now = g
	if p.logs(g) {
		p.ring.settle()
	} else {
		err = p.dropRing()
	}
	if old == nil {
		return err
	}
	return errors.Join(err, p.keepCounters(old), old.close())
}

// build makes the maps of a new generation.
func (p *Plane) build(r *Rules) (*generation, error) {
	g := &generation{rules: r, members: r.withState(p.state), maps: make(map[string]*ebpf.Map)}
	if p.now != nil {
		g.slot = 1 - p.now.slot
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		p.trie(g, hooksMapLists, r.lists),
		p.trie(g, hooksMapCarried, r.carried),
		array(p, g, hooksMapCandidates, r.candidates),
		array(p, g, hooksMapUses, r.uses),
		array(p, g, hooksMapMembers, g.members),
		array(p, g, hooksMapCounters, make([]hooksCounter, cpus*len(r.names))),
	)
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (p *Plane) newMap(g *generation, name string, entries int) (*ebpf.Map, error) {
	spec := p.inner[name].Copy()
	spec.MaxEntries = uint32(max(entries, 1)) // #nosec G115 -- bounded by Compile
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	g.maps[name] = m
	return m, nil
}

func (p *Plane) trie(g *generation, name string, lists map[hooksPrefix]hooksList) error {
	m, err := p.newMap(g, name, len(lists))
	if err != nil {
		return err
	}
	for k, l := range lists {
		if err := m.Put(k, l); err != nil {
			return fmt.Errorf("map %s: %v: %w", name, prefixOf(k), err)
		}
	}
	return nil
}

func array[E any](p *Plane, g *generation, name string, list []E) error {
	m, err := p.newMap(g, name, len(list))
	if err != nil || len(list) == 0 {
		return err
	}
	keys := make([]uint32, len(list))
	for i := range keys {
		keys[i] = uint32(i) // #nosec G115 -- an index of a map
	}
	if _, err := m.BatchUpdate(keys, list, nil); err != nil {
		return fmt.Errorf("map %s: %w", name, err)
	}
	return nil
}

// install puts g into its slot and makes that the active one. The kernel waits at each change of a map of maps until no
// hook runs that may have seen it before (maybe_wait_bpf_programs). So no hook still reads the slot that is written, as the
// last step is such a change too: after active has moved, it lets those end that read it before.
func (p *Plane) install(g *generation) error {
	outer := map[string]*ebpf.Map{
		hooksMapLists: p.maps.Lists, hooksMapCarried: p.maps.Carried, hooksMapCandidates: p.maps.Candidates,
		hooksMapUses: p.maps.Uses, hooksMapMembers: p.maps.Members, hooksMapCounters: p.maps.Counters,
	}
	for name, m := range outer {
		if err := m.Put(g.slot, g.maps[name]); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	if err := p.wantRing(g); err != nil {
		return err
	}
	settings := g.rules.settings
	settings.Log = flag(p.logs(g))
	wall, err := sinceBoot()
	if err != nil {
		return err
	}
	settings.Wall = wall
	if err := p.maps.Settings.Put(g.slot, settings); err != nil {
		return fmt.Errorf("map settings: %w", err)
	}
	if err := p.activate(g); err != nil {
		return err
	}
	err = p.maps.Lists.Put(g.slot, g.maps[hooksMapLists])
	if err != nil && p.now != nil {
		err = errors.Join(err, p.activate(p.now))
	}
	return err
}

// slots is SLOTS of c/rules.h.
const slots = 2

// activate makes g the active one, by a number that neither this process nor an earlier one has used: the time since boot.
// What the hooks remember of the rules holds for one number.
func (p *Plane) activate(g *generation) error {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return fmt.Errorf("clock_gettime: %w", err)
	}
	next := max(uint64(boot.Nano()), p.active.Load()+slots) // #nosec G115 -- not negative
	next = next - next%slots + uint64(g.slot)
	if p.ring != nil {
		p.ring.note(next, g.rules, p.state)
	}
	p.active.Swap(next) // also a barrier, which Store is not: members are written before, and active after
	if err := p.maps.Active.Put(uint32(0), next); err != nil {
		return fmt.Errorf("map active: %w", err)
	}
	p.changed = false
	return nil
}

// sinceBoot returns what the wall clock is ahead of the boot clock, in nanoseconds.
func sinceBoot() (int64, error) {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return time.Now().UnixNano() - boot.Nano(), nil
}
