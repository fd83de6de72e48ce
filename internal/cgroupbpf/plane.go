//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/rendezvous"
)

// A Plane is one set of hooks in the kernel, with the rules that they hold. Load and Open make one. Its methods are safe for
// concurrent use.
type Plane struct {
	// OnDecision is told of each decision under rules that were compiled with Log, in order and by one goroutine, 20 ms
	// later at most. It must not call the Plane; while it takes its time, events may find no room (Dropped), but no program
	// waits. Set it before Set. Nil: nothing is told.
	OnDecision func(*Event)

	hooks    hooks
	memories *ebpf.Map // what the hooks know of sockets, in cgroups that a later Plane may take over
	maps     hooksMaps // nil after Open
	inner    map[string]*ebpf.MapSpec
	finder   *finder // nil: after Open, or where it could not be had

	active atomic.Uint64 // the number that the map of this name holds

	mu    sync.Mutex
	state dialer.State
	now   *generation
	// changed: members have, but not active, so that sockets may still remember what was before.
	changed bool
	past    map[string]Counter // of rules that were exchanged, by name
	ways    map[hooksWay]uint32
	blind   error // why there is no finder, until that was told
	ring    *ring // nil: the rules want no events
}

// hooks are the programs, in the order in which they are attached: first those that no connection can do without.
type hooks [4]*ebpf.Program

var (
	hookNames = [...]string{hooksProgConnect4, hooksProgConnect6, hooksProgSendmsg4, hooksProgSendmsg6}
	hookTypes = [...]ebpf.AttachType{
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
	}
)

// Load loads the hooks into the kernel. They refuse all calls until Set. The old Plane, nil for none, hands over what its
// hooks know of open sockets; it stays as it is. The error says what the kernel lacks (errors.ErrUnsupported), or which
// capability is missing and how it is granted (os.ErrPermission).
func Load(old *Plane) (*Plane, error) {
	p, err := load(old)
	if err != nil {
		return nil, diagnose(fmt.Errorf("load the kernel plane: %w", err))
	}
	return p, nil
}

func load(old *Plane) (*Plane, error) {
	spec, err := loadHooks()
	if err != nil {
		return nil, err
	}
	if err := prepare(spec); err != nil {
		return nil, err
	}
	delete(spec.Programs, hooksProgAsk) // for tests
	c, err := newCollection(spec, old)
	if err != nil {
		return nil, err
	}
	defer c.Close() // what Assign has taken out stays open
	p := &Plane{inner: innerSpecs(spec), past: make(map[string]Counter), ways: make(map[hooksWay]uint32)}
	if err := c.Assign(&p.maps); err != nil {
		return nil, err
	}
	p.memories = p.maps.Memories
	for i, name := range hookNames {
		p.hooks[i] = c.DetachProgram(name)
	}
	p.finder, p.blind = newFinder(p.memories) // without it sockets outlive their address, and all else works
	return p, nil
}

// prepare fills in what is known only at run time: the table of the hash.
func prepare(spec *ebpf.CollectionSpec) error {
	return spec.Variables[hooksVarLog2Table].Set(rendezvous.Log2())
}

func innerSpecs(spec *ebpf.CollectionSpec) map[string]*ebpf.MapSpec {
	inner := make(map[string]*ebpf.MapSpec)
	for name, m := range spec.Maps {
		if m.InnerMap != nil {
			inner[name] = m.InnerMap
		}
	}
	return inner
}

// newCollection loads spec, with the memory of old where it has the same form.
func newCollection(spec *ebpf.CollectionSpec, old *Plane) (*ebpf.Collection, error) {
	if old == nil {
		return ebpf.NewCollection(spec)
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{hooksMapMemories: old.memories},
	})
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return ebpf.NewCollection(spec)
	}
	return c, err
}

// Close forgets p. Hooks stay in the kernel while they are attached or pinned, with the rules they have. They tell of no
// decision any more; OnDecision has been told all when Close returns.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := []error{p.silence()}
	for _, h := range p.hooks {
		errs = append(errs, h.Close())
	}
	if p.now != nil {
		errs = append(errs, p.now.close())
	}
	if p.finder != nil {
		errs = append(errs, p.finder.close())
	}
	if p.opened() {
		return errors.Join(append(errs, p.memories.Close())...)
	}
	return errors.Join(append(errs, p.maps.Close())...)
}

// opened reports whether p comes from Open, so that its rules cannot be reached.
func (p *Plane) opened() bool { return p.maps.Active == nil }

var errOpened = errors.New("these hooks are of an earlier process: load new ones, and let them take over")
