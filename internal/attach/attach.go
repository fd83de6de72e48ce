// Package attach keeps the rules on control groups that others make: it follows them as
// they come and go, exchanges the rules at a reload, and takes over what an earlier
// process has left.
//
// The hooks of a service sit on a slice of its own, which outlives it: what is started
// there is ruled from its first instruction. While the service runs elsewhere, they sit
// on its own cgroup as well; that one is new with each start, and ruled a moment later.
package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
)

// An Entry is what is wanted on one control group, or for one service.
type Entry struct {
	Name string // what it is called in logs, and what its pins are called by; no two have the same

	// Exactly one of them is set.
	Cgroup  string // as Tree.Path reads it
	Service string // a unit of systemd

	Rules   *cgroupbpf.Rules
	Persist bool // the hooks stay at Close
}

// A Set is the attachments of one process. Set the exported fields before Apply; the
// methods are safe for concurrent use.
type Set struct {
	Tree *cgroup.Tree

	// Pins is the directory in a BPF file system from which a later process takes over
	// what this one leaves, be it killed or not.
	Pins string

	// State tells which sources can be used. Nil: all of them.
	State dialer.State

	// Ways tells where the marks of the rules of an entry lead now. It may take its time,
	// and must not call the Set. Nil: nowhere.
	Ways func(name string, r *cgroupbpf.Rules) []cgroupbpf.Way

	// Told gets each decision under rules that were compiled with Log, with the Name of
	// the entry. It is called by one goroutine for each entry, and must not call the
	// Set. Nil: the hooks tell nothing.
	Told func(name string, e *cgroupbpf.Event)

	// Log gets a line for each cgroup that comes and goes. Nil discards them.
	Log *slog.Logger

	asking sync.Mutex // held while Ways is asked by Refresh, and by who changes what is live; before mu

	mu   sync.Mutex
	live []*attachment
}

// Apply makes entries what is attached. It returns when the rules hold in all cgroups
// that are there; those to come are followed. An error changes nothing.
func (s *Set) Apply(entries []Entry) error {
	s.lock()
	defer s.unlock()
	var next, fresh []*attachment
	for _, e := range entries {
		i := slices.IndexFunc(s.live, func(a *attachment) bool { return a.entry.same(e) })
		if i >= 0 {
			next = append(next, s.live[i])
			continue
		}
		a, err := s.load(e)
		if err != nil {
			return errors.Join(err, abandon(fresh))
		}
		next, fresh = append(next, a), append(fresh, a)
	}
	if err := s.exchange(next, entries); err != nil {
		return errors.Join(err, abandon(fresh))
	}
	for _, a := range s.live {
		if !slices.Contains(next, a) {
			s.warn(a.stop(true), "detach", a)
		}
	}
	s.live = next
	return nil
}

// lock is for who changes what is live.
func (s *Set) lock() {
	s.asking.Lock()
	s.mu.Lock()
}

func (s *Set) unlock() {
	s.mu.Unlock()
	s.asking.Unlock()
}

// same reports whether e and f differ in nothing but what can be exchanged.
func (e *Entry) same(f Entry) bool {
	return e.Name == f.Name && e.Cgroup == f.Cgroup && e.Service == f.Service
}

// abandon takes back what load and start did.
func abandon(list []*attachment) error {
	var errs []error
	for _, a := range list {
		errs = append(errs, a.stop(true))
	}
	return errors.Join(errs...)
}

// exchange gives each attachment what its entry says, and starts those that are new. When
// one fails, the others get back what they had.
func (s *Set) exchange(list []*attachment, entries []Entry) error {
	type step struct {
		*attachment
		before Entry
	}
	var done []step
	for i, a := range list {
		before, running := a.entry, a.started
		if err := a.take(entries[i]); err != nil {
			errs := []error{fmt.Errorf("%s: %w", before.Name, err)}
			for _, d := range done {
				errs = append(errs, d.take(d.before))
			}
			return errors.Join(errs...)
		}
		if running {
			done = append(done, step{a, before})
		}
	}
	return nil
}

// Refresh asks State about all sources, and Ways about all marks. It is to be called at
// each change, and for marks more often than cgroupbpf.WaysHold.
func (s *Set) Refresh() {
	s.mu.Lock()
	s.withdraw()
	s.mu.Unlock()
	s.asking.Lock()
	defer s.asking.Unlock()
	for _, a := range s.live { // mu is not held: what loses its address meanwhile must not wait for that
		s.warn(a.plane.SetWays(s.ways(&a.entry)), "where marks lead", a)
	}
}

// withdraw tells all hooks which sources can be used, before anything that takes longer.
// Mu is held.
func (s *Set) withdraw() {
	for _, a := range s.live {
		s.warn(a.plane.SetState(s.State), "state of sources", a)
	}
}

func (s *Set) ways(e *Entry) []cgroupbpf.Way {
	if s.Ways == nil {
		return nil
	}
	return s.Ways(e.Name, e.Rules)
}

// EndSockets ends the sockets that hooks have bound to addrs, which have gone. Programs
// that connect again get what State says now.
func (s *Set) EndSockets(addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdraw()
	var ended cgroupbpf.Ended
	for _, a := range s.live {
		ended.Add(a.plane.End(addrs))
	}
	ended.Log(s.Log)
}

// Close takes the hooks off, but for those that persist.
func (s *Set) Close() error {
	s.lock()
	defer s.unlock()
	var errs []error
	for _, a := range s.live {
		errs = append(errs, a.stop(!a.entry.Persist))
	}
	s.live = nil
	return errors.Join(errs...)
}

// Leave forgets all attachments; the hooks stay.
func (s *Set) Leave() error {
	s.lock()
	defer s.unlock()
	var errs []error
	for _, a := range s.live {
		errs = append(errs, a.stop(false))
	}
	s.live = nil
	return errors.Join(errs...)
}

// A Status is how one attachment does.
type Status struct {
	Name    string   `json:"name"`
	Cgroups []string `json:"cgroups"`           // that have the hooks, from the root; none while it waits
	Outside string   `json:"outside,omitempty"` // the cgroup of a service that is not in its slice
	Untold  uint64   `json:"untold,omitempty"`  // decisions for which Told was too slow
}

// Status returns the attachments in the order of the entries.
func (s *Set) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, len(s.live))
	for i, a := range s.live {
		out[i] = a.status()
	}
	return out
}

// Counters returns what the rules of an attachment have decided, or nothing where there
// is none of that name.
func (s *Set) Counters(name string) ([]cgroupbpf.Counter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.live {
		if a.entry.Name == name {
			return a.plane.Counters()
		}
	}
	return nil, nil
}

func (s *Set) warn(err error, what string, a *attachment) {
	if err != nil && s.Log != nil {
		s.Log.Warn(what, "attach", a.entry.Name, "err", err)
	}
}

func (s *Set) info(text string, args ...any) {
	if s.Log != nil {
		s.Log.Info(text, args...)
	}
}

// load makes the hooks for an entry, ready to be attached.
func (s *Set) load(e Entry) (*attachment, error) {
	if err := OnBPF(s.Pins); err != nil {
		return nil, err
	}
	a := &attachment{set: s, entry: e, on: make(map[string]bool)}
	err := a.open()
	if err == nil {
		a.plane, err = cgroupbpf.Load(a.old)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Name, errors.Join(err, a.closeOld()))
	}
	if s.Told != nil {
		a.plane.OnDecision = func(d *cgroupbpf.Event) { s.Told(e.Name, d) }
	}
	if err := errors.Join(a.plane.SetState(s.State), a.plane.SetWays(s.ways(&e)), a.plane.Set(e.Rules)); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Name, errors.Join(err, a.stop(false)))
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a, nil
}

// inside reports whether path lies below dir.
func inside(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }
