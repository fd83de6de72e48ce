package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// service is the server as the admin socket sees it: from other goroutines. What it reads
// of the server is either safe for that or stands in the view.
type service struct{ *server }

var _ admin.Service = service{}

// view is what is served now. It does not change; the server exchanges it.
type view struct {
	config     *config.Config
	path       string // of the file, made absolute
	dialers    Dialers
	listeners  []admin.Listener
	attached   *attach.Set // nil: there are none
	marks      *marks      // as well
	unattached error       // why nothing is attached; nil: nothing is in the way
	reloads    int
	last       *admin.Reload // nil: there was none
}

// ask is a reload that somebody waits for.
type ask struct {
	done chan outcome // has room for it
}

type outcome struct {
	reloaded admin.Reloaded
	err      error
}

// openSocket returns the socket that cfg wants, or nil where that is there already or
// cannot be had. Only one that the configuration names has to be had.
func (s *server) openSocket(cfg *config.Config) (*admin.Socket, error) {
	want := cfg.Admin.Socket
	if s.socket != nil && (s.socket.Path() == want || want == "" && s.found) {
		return nil, nil
	}
	if want != "" {
		return admin.Listen(want)
	}
	if len(s.sockets) == 0 {
		return nil, nil
	}
	l, err := admin.ListenFirst(s.sockets)
	if err != nil {
		s.log.Warn("no admin socket: status, reload and the like cannot ask this service; [admin] socket names a place for one", "err", err)
	}
	return l, nil
}

// useSocket puts l, unless it is nil, in the place of the socket that there is.
func (s *server) useSocket(cfg *config.Config, l *admin.Socket) {
	old := s.socket
	switch {
	case l != nil:
		s.socket, s.found = l, cfg.Admin.Socket == ""
		s.admin.Serve(l)
		s.log.Info("admin socket", "path", l.Path())
	case cfg.Admin.Socket == "" && !s.found:
		s.socket = nil // the one that was named is not wanted any more
	default:
		return
	}
	s.closeSocket(old)
}

func (s *server) closeSocket(l *admin.Socket) {
	if l == nil {
		return
	}
	if err := l.Close(); err != nil {
		s.log.Warn("close admin socket", "err", err)
	}
}

// show makes cfg what the admin socket tells of.
func (s *server) show(cfg *config.Config, d Dialers) {
	v := &view{config: cfg, dialers: d, listeners: s.listeners(cfg), attached: s.attached, marks: s.marks, unattached: s.unattached, reloads: s.reloads}
	v.path = cfg.Path
	if cfg.Path != "" && cfg.Path != config.CommandLine {
		if abs, err := filepath.Abs(cfg.Path); err == nil {
			v.path = abs
		}
	}
	if old := s.view.Load(); old != nil {
		v.last = old.last
		s.flows.KeepRules(namesNow(old.config, cfg))
	}
	s.view.Store(v)
}

// namesNow returns what the rules of a are called in b, with what decides besides rules.
func namesNow(a, b *config.Config) map[string]string {
	names := config.Renamed(a, b)
	names[defaultRule] = defaultRule
	for i := range b.Listen {
		if b.Listen[i].Use != nil {
			names[b.Listen[i].Name] = b.Listen[i].Name
		}
	}
	return names
}

// defaultRule is how decisions call the default.
const defaultRule = "default"

// note keeps what became of the reload that was just tried.
func (s *server) note(err error) {
	v := *s.view.Load()
	v.reloads = s.reloads
	v.last = &admin.Reload{At: time.Now()}
	if err != nil {
		v.last.Error = err.Error()
	}
	s.view.Store(&v)
}

// listeners returns what cfg listens on, with the ports that the kernel has chosen.
func (s *server) listeners(cfg *config.Config) []admin.Listener {
	out := make([]admin.Listener, 0, len(cfg.Listen))
	for i := range cfg.Listen {
		l := &cfg.Listen[i]
		row := admin.Listener{Name: l.Name, Kind: l.Kind.String(), State: admin.Up}
		for _, a := range l.Addrs {
			text := a.String()
			switch {
			case !l.Ports.IsZero():
				text = fmt.Sprintf("%v-%d", a, l.Ports.Hi)
			case l.Kind == config.UDP && s.udp[a] != nil:
				text = s.udp[a].Addr().String()
			case s.tcp[a] != nil:
				text = s.tcp[a].Addr().String()
			}
			row.Addresses = append(row.Addresses, text)
			if !a.Addr().IsUnspecified() && !s.host.Local(a.Addr()) {
				row.State, row.Reason = admin.Waiting, a.Addr().String()+" is not on this host"
			}
		}
		for a := range l.Endpoints() {
			if err := s.waiting.told[a]; err != nil {
				row.State, row.Reason = admin.Down, err.Error()
			}
		}
		row.Since = s.sinceWhen(row)
		out = append(out, row)
	}
	return out
}

// sinceWhen returns since when a listener is in its state.
func (s *server) sinceWhen(row admin.Listener) time.Time {
	if v := s.view.Load(); v != nil {
		for i := range v.listeners {
			if l := &v.listeners[i]; l.Name == row.Name && l.State == row.State {
				return l.Since
			}
		}
	}
	return time.Now()
}

// showListeners tells the admin socket which listeners have their address now.
func (s *server) showListeners() {
	v := *s.view.Load()
	v.listeners = s.listeners(v.config)
	s.view.Store(&v)
}

// Configuration implements admin.Service.
func (s service) Configuration() (path, sum string) {
	v := s.view.Load()
	return v.path, v.config.Sum()
}

// Status implements admin.Service.
func (s service) Status() admin.Status {
	v := s.view.Load()
	st := admin.Status{
		Version:       s.version,
		PID:           os.Getpid(),
		Config:        v.path,
		State:         admin.Running,
		Started:       s.started,
		UptimeSeconds: time.Since(s.started).Seconds(),
		Reloads:       v.reloads,
		LastReload:    v.last,
		Listeners:     append([]admin.Listener{}, v.listeners...),
		Attachments:   s.attachments(v),
		Connections:   admin.Usage{Used: s.shared.Connections.Len(), Max: v.config.Limits.Connections},
		UDPFlows:      admin.Usage{Used: s.engine.Stats().Flows, Max: v.config.Limits.UDPFlows},
		Descriptors:   admin.Usage{Max: s.maxFiles},
	}
	if s.ctx.Err() != nil {
		st.State = admin.Draining
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		st.Descriptors.Used = len(fds)
	}
	return st
}

// Sources implements admin.Service.
func (s service) Sources() []egress.Status { return s.sources.Status() }

// Pools implements admin.Service.
func (s service) Pools() []admin.Pool {
	var out []admin.Pool
	for _, p := range s.view.Load().config.Pools {
		row := admin.Pool{Name: p.Name, Pick: p.Pick.String()}
		for _, m := range p.Of {
			row.Of = append(row.Of, m.Source.Name)
		}
		out = append(out, row)
	}
	return out
}

// Rules implements admin.Service.
func (s service) Rules() []admin.Rule {
	cfg := s.view.Load().config
	out := make([]admin.Rule, 0, len(cfg.Rules)+1)
	taken := make(map[string]bool, len(cfg.Rules))
	for i := range cfg.Rules {
		r := &cfg.Rules[i]
		row := admin.Rule{Number: i + 1, Name: r.Name, Use: r.Use.String()}
		if row.Name == "" {
			row.Name = fmt.Sprintf("rule %d", i+1)
		}
		if r.Map != nil {
			row.Use = "map"
		}
		row.Position = cfg.Position("rule", row.Name)
		taken[row.Name] = true
		out = append(out, row)
	}
	out = append(out, admin.Rule{Name: defaultRule, Use: cfg.Default.String(), Position: cfg.Position("default", "")})
	for i := range cfg.Listen {
		l := &cfg.Listen[i]
		if l.Use != nil && !taken[l.Name] { // of two with one name the counts cannot be told apart
			out = append(out, admin.Rule{Name: l.Name, Use: l.Use.String(), Position: cfg.Position("listener", l.Name)})
		}
	}
	return out
}

// Reload implements admin.Service.
func (s service) Reload(ctx context.Context) (admin.Reloaded, error) {
	a := ask{done: make(chan outcome, 1)}
	select {
	case s.asks <- a:
	case <-s.ctx.Done():
		return admin.Reloaded{}, admin.ErrDraining
	case <-ctx.Done():
		return admin.Reloaded{}, context.Cause(ctx)
	}
	o := <-a.done
	return o.reloaded, o.err
}

// Explain implements admin.Service.
func (s service) Explain(ctx context.Context, q *admin.Question) (*explain.Answer, error) {
	v := s.view.Load()
	var at *config.Listener
	for i := range v.config.Listen {
		if l := &v.config.Listen[i]; l.Name == q.Flow.Listener {
			at = l
		}
	}
	if at == nil && q.Flow.Listener != "" {
		return nil, fmt.Errorf("there is no listener %q", q.Flow.Listener)
	}
	e, err := v.dialers.Explainer(at, s.host.Now())
	if err != nil {
		return nil, err
	}
	return e.Explain(ctx, explain.Question(*q)), nil
}

// answer does what was asked.
func (s *server) answer(a ask, load func() (*config.Config, error)) {
	before := s.view.Load().config
	err := s.reload(load)
	now := s.view.Load()
	o := outcome{reloaded: admin.Reloaded{Reloads: s.reloads, Config: now.path, Changes: []admin.Change{}}, err: err}
	if err == nil {
		for _, c := range config.Diff(before, now.config) {
			o.reloaded.Changes = append(o.reloaded.Changes, admin.Change(c))
		}
	}
	a.done <- o
}

// sample keeps the figures of the last minute.
func (s *server) sample(ctx context.Context) {
	tick := time.NewTicker(flows.SampleEvery)
	defer tick.Stop()
	for {
		s.flows.Sample()
		if v := s.view.Load(); v != nil {
			s.decisions.note(v.attached)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// endAdmin stops to answer.
func (s *server) endAdmin() {
	s.closeSocket(s.socket)
	if err := s.admin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		s.log.Warn("stop admin", "err", err)
	}
}
