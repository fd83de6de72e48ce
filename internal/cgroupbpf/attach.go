//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Attach puts the hooks onto a cgroup, which is given by its open directory in a cgroup v2 file system. They stay there, for
// it and the cgroups below, until Detach or until the cgroup is removed, whatever becomes of this process. Hooks of others
// stay as well: all have to let a call pass. Where the hooks of old are there (nil: none), each is exchanged without a
// gap. What is attached already stays. An error leaves the cgroup as it was.
func (p *Plane) Attach(cgroup *os.File, old *Plane) error {
	var undo []func() error
	for i := range p.hooks {
		back, err := p.attach(cgroup, i, old)
		if err != nil {
			errs := []error{fmt.Errorf("attach %s to %s: %w", hookNames[i], cgroup.Name(), diagnoseAttach(err))}
			for _, f := range undo {
				errs = append(errs, f())
			}
			return errors.Join(errs...)
		}
		undo = append(undo, back)
	}
	return nil
}

// attach puts hook i onto a cgroup, and returns what takes that back.
func (p *Plane) attach(cgroup *os.File, i int, old *Plane) (undo func() error, err error) {
	ids, err := attached(cgroup, i)
	if err != nil {
		return nil, err
	}
	own, err := isAttached(p.hooks[i], ids)
	if own || err != nil {
		return func() error { return nil }, err
	}
	undo = func() error { return p.detach(cgroup, i) }
	o := link.RawAttachProgramOptions{
		Target:  int(cgroup.Fd()),
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
				_, err := old.attach(cgroup, i, p)
				return err
			}
		}
	}
	return undo, link.RawAttachProgram(o)
}

// Detach takes the hooks off a cgroup. That they are not there is no error.
func (p *Plane) Detach(cgroup *os.File) error {
	var errs []error
	for i := range p.hooks {
		if err := p.detach(cgroup, i); err != nil {
			errs = append(errs, fmt.Errorf("detach %s from %s: %w", hookNames[i], cgroup.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (p *Plane) detach(cgroup *os.File, i int) error {
	ids, err := attached(cgroup, i)
	if err != nil {
		return err
	}
	if there, err := isAttached(p.hooks[i], ids); !there || err != nil {
		return err
	}
	return link.RawDetachProgram(link.RawDetachProgramOptions{
		Target:  int(cgroup.Fd()),
		Program: p.hooks[i],
		Attach:  hookTypes[i],
	})
}

// Attached reports whether all hooks of p are on a cgroup itself, not on one above.
func (p *Plane) Attached(cgroup *os.File) (bool, error) {
	for i := range p.hooks {
		ids, err := attached(cgroup, i)
		if err != nil {
			return false, fmt.Errorf("ask what is attached to %s: %w", cgroup.Name(), err)
		}
		if there, err := isAttached(p.hooks[i], ids); !there || err != nil {
			return false, err
		}
	}
	return true, nil
}

// attached returns the programs on one hook of a cgroup.
func attached(cgroup *os.File, i int) ([]ebpf.ProgramID, error) {
	r, err := link.QueryPrograms(link.QueryOptions{Target: int(cgroup.Fd()), Attach: hookTypes[i]})
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
