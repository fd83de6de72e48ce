//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// A Cgroup is an open directory of a cgroup v2 file system.
type Cgroup interface {
	FD() int
	Path() string
}

// Attach puts the hooks onto g. They stay there, for it and the cgroups below, until Detach or until g is removed, whatever
// becomes of this process. Hooks of others stay as well: all have to let a call pass. Where the hooks of old are there (nil:
// none), each is exchanged without a gap. What is attached already stays. An error leaves g as it was.
func (p *Plane) Attach(g Cgroup, old *Plane) error {
	var undo []func() error
	for i := range p.hooks {
		back, err := p.attach(g, i, old)
		if err != nil {
			errs := []error{fmt.Errorf("attach %s to %s: %w", hookNames[i], g.Path(), diagnoseAttach(err))}
			for _, f := range undo {
				errs = append(errs, f())
			}
			return errors.Join(errs...)
		}
		undo = append(undo, back)
	}
	return nil
}

// attach puts hook i onto g, and returns what takes that back.
func (p *Plane) attach(g Cgroup, i int, old *Plane) (undo func() error, err error) {
	ids, err := attached(g, i)
	if err != nil {
		return nil, err
	}
	own, err := isAttached(p.hooks[i], ids)
	if own || err != nil {
		return func() error { return nil }, err
	}
	undo = func() error { return p.detach(g, i) }
	o := link.RawAttachProgramOptions{
		Target:  g.FD(),
		Program: p.hooks[i],
		Attach:  hookTypes[i],
		Flags:   unix.BPF_F_ALLOW_MULTI,
	}
	if old != nil {
		there, err := isAttached(old.hooks[i], ids)
		if err != nil {
			return nil, err
		}
		if there {
			o.Anchor = link.ReplaceProgram(old.hooks[i])
			undo = func() error {
				_, err := old.attach(g, i, p)
				return err
			}
		}
	}
	return undo, link.RawAttachProgram(o)
}

// Detach takes the hooks off g. That they are not there is no error.
func (p *Plane) Detach(g Cgroup) error {
	var errs []error
	for i := range p.hooks {
		if err := p.detach(g, i); err != nil {
			errs = append(errs, fmt.Errorf("detach %s from %s: %w", hookNames[i], g.Path(), err))
		}
	}
	return errors.Join(errs...)
}

func (p *Plane) detach(g Cgroup, i int) error {
	ids, err := attached(g, i)
	if err != nil {
		return err
	}
	if there, err := isAttached(p.hooks[i], ids); !there || err != nil {
		return err
	}
	return link.RawDetachProgram(link.RawDetachProgramOptions{
		Target:  g.FD(),
		Program: p.hooks[i],
		Attach:  hookTypes[i],
	})
}

// Attached reports whether all hooks of p are on g itself, not on a cgroup above.
func (p *Plane) Attached(g Cgroup) (bool, error) {
	for i := range p.hooks {
		ids, err := attached(g, i)
		if err != nil {
			return false, fmt.Errorf("ask what is attached to %s: %w", g.Path(), err)
		}
		if there, err := isAttached(p.hooks[i], ids); !there || err != nil {
			return false, err
		}
	}
	return true, nil
}

// attached returns the programs on one hook of g.
func attached(g Cgroup, i int) ([]ebpf.ProgramID, error) {
	r, err := link.QueryPrograms(link.QueryOptions{Target: g.FD(), Attach: hookTypes[i]})
	if err != nil {
		return nil, err
	}
	var ids []ebpf.ProgramID
	for _, p := range r.Programs {
		ids = append(ids, p.ID)
	}
	return ids, nil
}

func isAttached(p *ebpf.Program, ids []ebpf.ProgramID) (bool, error) {
	info, err := p.Info()
	if err != nil {
		return false, err
	}
	id, ok := info.ID()
	return ok && slices.Contains(ids, id), nil
}
