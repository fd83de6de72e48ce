package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/host"
)

// wardPrefix is how the names of the cgroups begin that NewWard makes.
const wardPrefix = "srcproxy-run-"

// A Ward is a cgroup whose programs go by the rules of a configuration, without a
// service beside them. The rules live as long as the cgroup does, whatever becomes of
// this process; it is to withdraw sources that vanish meanwhile.
type Ward struct {
	group   *cgroup.Group
	plane   *cgroupbpf.Plane
	stop    context.CancelFunc
	watches sync.WaitGroup
	probes  *egress.Probes // nil until the sources are watched
	known   *resolved      // the names in the rules; nil: they do not match

	decisions io.Writer // nil: they are not told
}

// NewWard makes a cgroup below that of this process, which so keeps its limits, and puts
// the rules of cfg onto it. With names, those in rules stand for their addresses. The
// sources and names are watched until Close. Decisions gets a line for each one. It and
// log may be nil.
func NewWard(ctx context.Context, cfg *config.Config, names bool, log *slog.Logger, decisions io.Writer) (*Ward, error) {
	only := *cfg
	only.Attach = []config.Attach{{Resolve: names, Log: decisions != nil}}
	cfg = &only
	rules, err := rulesFor(cfg, &cfg.Attach[0], nil)
	if err != nil {
		return nil, err
	}
	w := &Ward{}
	if w.plane, err = cgroupbpf.Load(nil); err != nil {
		return nil, err
	}
	if decisions != nil {
		w.decisions = decisions
		w.plane.OnDecision = func(e *cgroupbpf.Event) {
			_, _ = io.WriteString(decisions, "srcproxy: "+decisionOf("", e).Line(cfg.Log.Destinations)) // there is nowhere to say so
		}
	}
	ctx, w.stop = context.WithCancel(ctx)
	if err := w.raise(ctx, cfg, rules, log); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// raise takes the steps that Close takes back.
func (w *Ward) raise(ctx context.Context, cfg *config.Config, rules *cgroupbpf.Rules, log *slog.Logger) error {
	h, err := host.Watch(ctx, log)
	if err != nil {
		return fmt.Errorf("watch the addresses of this host: %w", err)
	}
	w.watches.Go(h.Wait)
	sources := &egress.Sources{Host: h, Log: log}
	state := &egress.State{Host: h, Sources: sources}
	sources.EndSockets = func(addrs []netip.Addr) { w.watches.Go(func() { w.endSockets(addrs, state, log) }) }
	watched := sourcesOf(cfg)
	if !cfg.Attach[0].Resolve { // a name may lead to any of them
		watched = usedBy(rules, watched)
	}
	sources.Set(watched)
	w.watches.Go(func() { sources.Run(ctx) })
	if rules, err = w.look(ctx, cfg, h, sources, rules); err != nil {
		return err
	}
	changed := sources.Changed()
	if err := errors.Join(w.plane.SetState(state), w.plane.Set(rules)); err != nil {
		return err
	}
	w.watches.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			changed = sources.Changed()
			w.withdraw(state, log)
		}
	})
	w.known.start(ctx, func(known *resolved) {
		next, err := rulesFor(cfg, &cfg.Attach[0], known)
		if err == nil {
			err = w.plane.Set(next)
		}
		if err != nil && log != nil {
			log.Error("the addresses of names could not be exchanged", "err", err)
		}
	})
	if w.group, err = newGroup(); err != nil {
		return err
	}
	return w.plane.Attach(w.group, nil)
}

// withdraw tells the hooks which sources can be used.
func (w *Ward) withdraw(state *egress.State, log *slog.Logger) {
	if err := w.plane.SetState(state); err != nil && log != nil {
		log.Error("a source could not be withdrawn", "err", err)
	}
}

// endSockets ends the sockets that hooks have bound to addrs, which have gone. Programs
// that connect again get another source.
func (w *Ward) endSockets(addrs []netip.Addr, state *egress.State, log *slog.Logger) {
	w.withdraw(state, log)
	w.plane.End(addrs).Log(log)
}

// look starts the probes of cfg, and returns rules with the addresses of its names, where
// these count.
func (w *Ward) look(ctx context.Context, cfg *config.Config, h *host.Host, sources *egress.Sources, rules *cgroupbpf.Rules) (*cgroupbpf.Rules, error) {
	table, err := cfg.Table()
	if err != nil {
		return nil, err
	}
	if err := probeable(cfg); err != nil {
		return nil, err
	}
	dialers := Dialers{Config: cfg, Table: table, Host: h, Sources: sources}
	resolver := dialers.Resolver(nil)
	w.probes = &egress.Probes{Host: h, Sources: sources}
	w.probes.Set(sourcesOf(cfg), resolver)
	if w.known = newResolved(cfg, resolver, nil); w.known == nil {
		return rules, nil
	}
	w.known.first(ctx)
	return rulesFor(cfg, &cfg.Attach[0], w.known)
}

// usedBy returns the sources that rules can pick: of others there is nothing to tell.
func usedBy(rules *cgroupbpf.Rules, list []egress.Source) []egress.Source {
	addrs := rules.Addrs()
	return slices.DeleteFunc(list, func(s egress.Source) bool {
		return s.Interface == "" && !slices.ContainsFunc(s.Addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	})
}

// newGroup makes a cgroup below that of this process, and removes what killed ones of
// us have left there.
func newGroup() (*cgroup.Group, error) {
	tree, err := cgroup.Mounted()
	if err != nil {
		return nil, err
	}
	own, err := tree.Own()
	if err != nil {
		return nil, err
	}
	if err := cgroup.Sweep(own, wardPrefix); err != nil {
		return nil, err
	}
	g, err := cgroup.Create(own, wardPrefix)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: this user may not make cgroups here; in a scope of its own it may: systemd-run --user --scope -p Delegate=yes srcproxy run", err)
	}
	return g, err
}

// FD returns the descriptor of the cgroup, for who is started in it.
func (w *Ward) FD() int { return w.group.FD() }

// farewell bounds how long Close waits for the last processes to end.
const farewell = 200 * time.Millisecond

// Close removes the cgroup. Where processes outlive the one that was started, it stays
// with its rules, until a later NewWard finds it empty.
func (w *Ward) Close() error {
	var errs []error
	if w.group != nil {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if err := w.group.WaitEmpty(ctx); err == nil {
			errs = append(errs, w.group.Remove())
		} else if !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, err)
		}
		errs = append(errs, w.group.Close())
	}
	if w.probes != nil {
		w.probes.Close()
	}
	w.stop()
	w.known.stop()
	w.watches.Wait()
	dropped, err := w.plane.Dropped()
	errs = append(errs, err, w.plane.Close()) // which tells the last decisions
	if dropped > 0 && w.decisions != nil {
		_, _ = fmt.Fprintf(w.decisions, "srcproxy: %d decisions are not shown: they came faster than they could be written\n", dropped) // there is nowhere to say so
	}
	return errors.Join(errs...)
}
