package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/host"
)

// Entries compiles the rules of cfg for each [[attach]], with names that have no
// addresses. The error tells what the kernel plane cannot do.
func Entries(cfg *config.Config) ([]attach.Entry, error) { return entries(cfg, nil) }

// entries is Entries, with the addresses of names where they are known. Known may be nil.
func entries(cfg *config.Config, known *resolved) ([]attach.Entry, error) {
	var out []attach.Entry
	for i := range cfg.Attach {
		a := &cfg.Attach[i]
		rules, err := rulesFor(cfg, a, known)
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", a.Name(), err)
		}
		out = append(out, attach.Entry{Name: a.Name(), Cgroup: a.Cgroup, Service: a.Service, Rules: rules, Persist: a.Persist})
	}
	return out, nil
}

// tableFor returns the table that decides for an [[attach]]. Known may be nil.
func tableFor(cfg *config.Config, a *config.Attach, known *resolved) (*dialer.Table, error) {
	if !a.ByRules() {
		return dialer.NewTable(nil, *a.Use)
	}
	table, err := cfg.Table()
	if !a.Resolve || known == nil || err != nil {
		return table, err
	}
	return dialer.NewTable(known.rules(cfg, table), cfg.Default)
}

// rulesFor compiles the rules of cfg for an [[attach]].
func rulesFor(cfg *config.Config, a *config.Attach, known *resolved) (*cgroupbpf.Rules, error) {
	table, err := tableFor(cfg, a, known)
	if err != nil {
		return nil, err
	}
	return cgroupbpf.Compile(table, cgroupbpf.Options{Service: a.Service, Override: a.Override, MarkWildcard: a.Mark, Log: a.Log})
}

// attach makes what cfg says what is attached, with the names that r looks up, or changes
// nothing. Where this host cannot hold rules at all, and holds none, that is told, and the
// rest of srcproxy works.
func (s *server) attach(cfg *config.Config, r *egress.Resolver) error {
	err := s.attachAll(cfg, r)
	s.unattached = nil
	if !unable(err) || s.attached != nil && len(s.attached.Status()) > 0 {
		return err
	}
	s.known.stop()
	s.known, s.unattached = nil, err
	s.log.Error("no rules are attached: programs go without them", "err", err)
	return nil
}

// unable reports whether err says that rules cannot be attached here, whatever they are:
// the kernel is too old, this process may not, or what it takes is not mounted.
func unable(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) ||
		errors.Is(err, cgroup.ErrNotMounted) || errors.Is(err, attach.ErrNotBPF)
}

func (s *server) attachAll(cfg *config.Config, r *egress.Resolver) error {
	if s.attached == nil {
		if len(cfg.Attach) == 0 {
			return nil
		}
		tree, err := cgroup.Mounted()
		if err != nil {
			return err
		}
		state := &egress.State{Host: s.host, Sources: s.sources}
		s.marks = &marks{host: s.host, state: state, log: s.log, found: make(map[string][]mark)}
		s.marks.config.Store(cfg)
		s.attached = &attach.Set{Tree: tree, Pins: attach.Pins(), State: state, Ways: s.marks.ways, Told: s.decisions.told, Log: s.log}
		s.watches.Go(func() { s.refreshAttached(s.life, s.attached) })
		s.watches.Go(func() { s.marks.follow(s.life, s.attached.Refresh) })
	}
	served := s.marks.config.Load()
	s.marks.configure(cfg)
	before := s.known
	before.stop() // or it would put old rules back
	known := newResolved(cfg, r, before)
	known.first(s.life)
	list, err := entries(cfg, known)
	if err == nil {
		err = s.attached.Apply(list)
	}
	if err != nil {
		s.marks.configure(served)
		before.start(s.life, s.exchange)
		return err
	}
	s.known = known
	known.start(s.life, s.exchange)
	return nil
}

// exchange takes the addresses of names that have changed.
func (s *server) exchange(known *resolved) {
	list, err := entries(known.config, known)
	if err == nil {
		err = s.attached.Apply(list)
	}
	if err != nil {
		s.log.Warn("the addresses of names could not be exchanged", "err", err)
	}
}

// refreshAttached tells the kernel plane of sources that go and come, until ctx is done.
func (s *server) refreshAttached(ctx context.Context, set *attach.Set) {
	for {
		changed := s.sources.Changed()
		set.Refresh()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// endSockets ends those of hooked programs that leave from addrs, which have gone.
func (s *server) endSockets(addrs []netip.Addr) {
	s.watches.Go(func() {
		if v := s.view.Load(); v != nil && v.attached != nil {
			v.attached.EndSockets(addrs)
		}
	})
}

// attachments returns what is attached, with what was decided there.
func (s service) attachments(v *view) []admin.Attachment {
	if v.unattached != nil {
		return refused(v.config, v.unattached)
	}
	if v.attached == nil {
		return nil
	}
	var out []admin.Attachment
	for _, st := range v.attached.Status() {
		a := admin.Attachment{Name: st.Name, Cgroups: st.Cgroups, Outside: st.Outside, Marks: v.marks.texts(st.Name), Unlogged: s.decisions.unlogged(st)}
		counters, err := v.attached.Counters(st.Name)
		if err != nil {
			s.log.Warn("count", "attach", st.Name, "err", err)
		}
		for _, c := range counters {
			a.Connects += c.Connects
			a.Datagrams += c.Datagrams
			a.Refused += c.Refused
		}
		out = append(out, a)
	}
	return out
}

// refused returns what cfg wants attached, with the reason for which it is not.
func refused(cfg *config.Config, err error) []admin.Attachment {
	out := make([]admin.Attachment, len(cfg.Attach))
	for i := range cfg.Attach {
		out[i] = admin.Attachment{Name: cfg.Attach[i].Name(), Cgroups: []string{}, Refusal: err.Error()}
	}
	return out
}

// Attached implements admin.Service.
func (s service) Attached() map[string]uint64 {
	v := s.view.Load()
	if v.attached == nil {
		return nil
	}
	sums := make(map[string]uint64)
	for i := range v.config.Attach {
		a := &v.config.Attach[i]
		if !a.ByRules() {
			continue // its use is no rule
		}
		counters, err := v.attached.Counters(a.Name())
		if err != nil {
			s.log.Warn("count", "attach", a.Name(), "err", err)
		}
		for _, c := range counters {
			sums[c.Rule] += c.Connects + c.Datagrams + c.Refused
		}
	}
	return sums
}

// detach takes the rules off at the end, but for those that persist.
func (s *server) detach() {
	s.known.stop()
	if s.attached == nil {
		return
	}
	s.decisions.note(s.attached)
	if err := s.attached.Close(); err != nil {
		s.log.Warn("detach", "err", err)
	}
}

// Attach puts the rules onto what each [[attach]] of cfg names, and leaves them there. It
// fails where something is not there.
func Attach(cfg *config.Config) ([]attach.Status, error) {
	entries, err := Entries(cfg)
	if err != nil {
		return nil, err
	}
	tree, err := cgroup.Mounted()
	if err != nil {
		return nil, err
	}
	h, err := host.Read()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	set := attach.Set{Tree: tree, Pins: attach.Pins(), State: &egress.State{Host: h}}
	if err := set.Apply(entries); err != nil {
		return nil, err
	}
	list := set.Status()
	for _, s := range list {
		if len(s.Cgroups) == 0 {
			return nil, errors.Join(fmt.Errorf("there is no control group %s", s.Name), set.Close())
		}
	}
	return list, set.Leave()
}
