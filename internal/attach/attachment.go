package attach

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
)

// attachment is the hooks of one entry. Its methods are for one goroutine, but for
// what says otherwise.
type attachment struct {
	set   *Set
	entry Entry
	plane *cgroupbpf.Plane // the hooks
	old   *cgroupbpf.Plane // those of an earlier process, until they are exchanged; nil: none
	older *cgroupbpf.Plane // those that old was about to be exchanged for when its process ended; nil: none

	ctx     context.Context
	cancel  context.CancelFunc
	started bool
	follow  sync.WaitGroup

	mu      sync.Mutex // of what follows
	on      map[string]bool
	outside string
}

// take gives the attachment what an entry says. One that is new is started.
func (a *attachment) take(e Entry) error {
	if !a.started {
		return a.start()
	}
	if err := a.again(); err != nil { // before the rules, which have to stay then
		return err
	}
	ways := a.set.ways(&e)
	if err := a.plane.Set(e.Rules); err != nil {
		return err
	}
	a.entry = e
	a.set.warn(a.plane.SetWays(ways), "where marks lead", a) // it refuses them then
	return nil
}

// again puts the hooks back where somebody has taken them off.
func (a *attachment) again() error {
	for _, path := range a.paths() {
		g, err := cgroup.Open(path)
		if cgroup.Gone(err) {
			continue // as follow will tell
		}
		if err != nil {
			return err
		}
		err = errors.Join(a.plane.Attach(g, nil), g.Close())
		if err != nil {
			return err
		}
	}
	return a.plane.Pin(a.pin())
}

// start attaches the hooks to what is there, pins them, and follows what comes.
func (a *attachment) start() error {
	a.started = true
	places, err := a.places()
	if err != nil {
		return err
	}
	if err := a.plane.Pin(a.firstPin()); err != nil {
		return err
	}
	firsts := make(chan error, len(places))
	for _, p := range places {
		a.follow.Go(func() { a.keep(p, firsts) })
	}
	var errs []error
	for range places {
		errs = append(errs, <-firsts)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return a.relieve()
}

// firstPin returns where the hooks are pinned before they are attached, so that none is
// ever attached which a later process does not find. The pins of old stay until then.
func (a *attachment) firstPin() string {
	if a.old == nil {
		return a.pin()
	}
	return a.pin() + exchanging
}

// places returns where the hooks belong. The slice of a service is made; where only root
// may do that, systemd does when the service is in it.
func (a *attachment) places() ([]cgroup.Place, error) {
	if a.entry.Service == "" {
		return []cgroup.Place{{Path: a.set.Tree.Path(a.entry.Cgroup)}}, nil
	}
	return []cgroup.Place{{Path: a.slice()}, {Unit: a.entry.Service}}, a.makeSlice()
}

func (a *attachment) makeSlice() error {
	_, err := a.set.Tree.MakeSlice(a.entry.Service)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if a.set.Log != nil {
		a.set.Log.Warn("the slice cannot be made: when systemd makes it, the first packets of the service may not be ruled",
			"attach", a.entry.Name, "cure", "mkdir -p '"+a.slice()+"'", "err", err)
	}
	return nil
}

// keep has the hooks on what is at p, until the attachment is stopped. The result of
// the first step goes to first.
func (a *attachment) keep(p cgroup.Place, first chan<- error) {
	now := "" // where the hooks are
	told := false
	err := a.set.Tree.Follow(a.ctx, p, func(g *cgroup.Group) {
		path, err := a.changed(p, g, now)
		now = path
		if !told {
			first <- err
			told = true
			return
		}
		a.set.warn(err, "attach", a)
	})
	switch {
	case !told:
		first <- err
	case a.ctx.Err() == nil:
		a.set.warn(err, "control groups are no longer followed", a)
	}
}

// changed attaches the hooks to g, which has come to be at p, and returns its path. Nil
// is nothing there, where before there may have been.
func (a *attachment) changed(p cgroup.Place, g *cgroup.Group, before string) (path string, err error) {
	a.off(before)
	if g == nil {
		a.set.info("waiting for the control group", "attach", a.entry.Name, "cgroup", a.nameOf(p))
		if p.Path != "" && a.entry.Service != "" {
			err = a.makeSlice() // who stopped the slice has removed it
		}
		return "", err
	}
	if p.Unit != "" && inside(g.Path(), a.slice()) {
		return "", nil // the hooks of the slice are there
	}
	if err := a.plane.Attach(g, a.old); err != nil {
		return "", err
	}
	a.mu.Lock()
	a.on[g.Path()] = true
	if p.Unit != "" {
		a.outside = g.Path()
	}
	a.mu.Unlock()
	a.set.info("attached", "attach", a.entry.Name, "cgroup", a.set.Tree.Name(g.Path()))
	if p.Unit != "" && a.set.Log != nil {
		a.set.Log.Warn("the service is not in its slice: after a restart its first packets may not be ruled",
			"attach", a.entry.Name, "cure", strings.Join(cgroup.DropInCommands(p.Unit), "; "))
	}
	return g.Path(), nil
}

// off notes that the hooks are not on a path any more, since it is gone.
func (a *attachment) off(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.on, path)
	if path == a.outside {
		a.outside = ""
	}
}

func (a *attachment) nameOf(p cgroup.Place) string {
	if p.Unit != "" {
		return p.Unit
	}
	return a.set.Tree.Name(p.Path)
}

// slice returns the directory of the slice of a service.
func (a *attachment) slice() string {
	return filepath.Join(a.set.Tree.Dir, cgroup.SlicePath(a.entry.Service))
}

// open opens what an earlier process has left.
func (a *attachment) open() error {
	var err error
	if a.older, err = openPinned(a.pin()); err != nil {
		return err
	}
	if a.old, err = openPinned(a.pin() + exchanging); err != nil {
		return err
	}
	if a.old == nil {
		a.old, a.older = a.older, nil
	}
	return nil
}

// relieve ends the hooks of an earlier process, wherever they still are, and takes over
// their pins.
func (a *attachment) relieve() error {
	if a.old == nil {
		return nil
	}
	for _, p := range []*cgroupbpf.Plane{a.old, a.older} {
		if p == nil {
			continue
		}
		if err := detach(a.set.Tree, p); err != nil {
			return err
		}
	}
	if err := a.plane.Pin(a.pin()); err != nil {
		return err
	}
	return errors.Join(cgroupbpf.Unpin(a.pin()+exchanging), a.closeOld())
}

func (a *attachment) closeOld() error {
	var errs []error
	for _, p := range []*cgroupbpf.Plane{a.old, a.older} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	a.old, a.older = nil, nil
	return errors.Join(errs...)
}

// paths returns the cgroups that have the hooks, sorted. It is safe for concurrent use.
func (a *attachment) paths() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]string, 0, len(a.on))
	for p := range a.on {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// status is safe for concurrent use.
func (a *attachment) status() Status {
	s := Status{Name: a.entry.Name, Cgroups: a.paths()}
	for i, p := range s.Cgroups {
		s.Cgroups[i] = a.set.Tree.Name(p)
	}
	var err error
	s.Untold, err = a.plane.Dropped()
	a.set.warn(err, "count", a)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.outside != "" {
		s.Outside = a.set.Tree.Name(a.outside)
	}
	return s
}

// stop ends the attachment, and takes the hooks off where that is wanted. Where the hooks
// of an earlier process were to be exchanged and that failed, they are put back.
func (a *attachment) stop(off bool) error {
	if a.cancel != nil {
		a.cancel()
	}
	a.follow.Wait()
	var errs []error
	if off {
		for _, path := range a.paths() {
			errs = append(errs, a.takeOff(path))
		}
		errs = append(errs, a.unpin())
	}
	return errors.Join(append(errs, a.closeOld(), a.plane.Close())...)
}

func (a *attachment) takeOff(path string) error {
	g, err := cgroup.Open(path)
	if cgroup.Gone(err) {
		return nil // and the hooks with it
	}
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }() // a directory that was only read
	if a.old != nil {
		return a.old.Attach(g, a.plane)
	}
	return a.plane.Detach(g)
}
