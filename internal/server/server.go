package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/inbound"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// Options say what to run, and where it talks to. All but Load may be left out.
type Options struct {
	// Load returns the configuration: once at the start and again for each reload.
	Load func() (*config.Config, error)

	// Reload asks for a reload with each value. Send on a channel with room for one,
	// so that requests during a reload become one.
	Reload <-chan os.Signal

	// Stderr gets the log; nil discards it. Terminal makes it text where the
	// configuration does not say.
	Stderr   io.Writer
	Terminal bool

	// Sockets are the places of the admin socket where the configuration does not say,
	// the best one first; see admin.Paths. None: there is no socket then.
	Sockets []string

	// Version is what the admin socket tells.
	Version string

	// Ready is called once all listeners accept, with their addresses.
	Ready func(*config.Config, []net.Addr)
}

// Run serves until ctx ends; then it drains and returns nil. An error means that it
// could not start, and nothing is left of it.
func Run(ctx context.Context, o Options) error {
	cfg, err := o.Load()
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	level := new(slog.LevelVar)
	handler := logHandler(&o, cfg.Log.Format, level)
	lines := newBacklog(orElse(o.Stderr, io.Discard), handler)
	defer lines.close()
	s, err := newServer(life, slog.New(handler(lines)), level)
	if err != nil {
		return err
	}
	s.sockets, s.version = o.Sockets, o.Version
	defer func() { end(); s.watches.Wait() }()
	defer s.endAdmin()
	defer s.detach()
	if err := s.apply(cfg); err != nil {
		return err
	}
	s.log.Info("ready")
	if o.Ready != nil {
		o.Ready(cfg, s.addrs())
	}
	for {
		changed := s.host.Changed()
		retry := s.arrive()
		s.showListeners()
		select {
		case <-changed:
			s.engine.HoldPorts()
		case <-retry:
		case <-o.Reload:
			_ = s.reload(o.Load) // it has logged the error
		case a := <-s.asks:
			s.answer(a, o.Load)
		case <-ctx.Done():
			s.drain()
			return nil
		}
	}
}

// server is the running program. Only the goroutine of Run uses it; for the others there
// is service.
type server struct {
	life     context.Context // ends when the program does
	ctx      context.Context
	stop     context.CancelFunc // ends ctx: nothing new is let in
	log      *slog.Logger
	level    *slog.LevelVar
	host     *host.Host
	sources  *egress.Sources
	probes   *egress.Probes
	watches  sync.WaitGroup // of host and sources; they end with the life of the server
	maxFiles int            // that the process may open
	flows    *flows.Registry
	shared   *inbound.Shared
	engine   *udprelay.Engine
	tcp      map[netip.AddrPort]*inbound.Listener
	udp      map[netip.AddrPort]*udprelay.Forward
	waiting  waiting
	users    map[string]*inbound.Users // by what stands in their file
	names    *egress.Resolver
	retired  sync.WaitGroup // listeners that are closed, but whose flows live on
	drainIn  time.Duration
	reloads  int

	attached   *attach.Set // nil: there has been no [[attach]]
	marks      *marks      // as well
	unattached error       // why this host cannot hold rules that it should; nil: it does
	known      *resolved   // the names in its rules; nil: they do not count

	decisions decisions // that the hooks tell of

	started time.Time
	version string
	admin   *admin.Server
	sockets []string      // where the admin socket may be
	socket  *admin.Socket // nil: there is none
	found   bool          // socket is one of sockets
	asks    chan ask
	view    atomic.Pointer[view]
}

func newServer(ctx context.Context, log *slog.Logger, level *slog.LevelVar) (*server, error) {
	s := &server{
		life:  ctx,
		log:   log,
		level: level,
		tcp:   make(map[netip.AddrPort]*inbound.Listener),
		udp:   make(map[netip.AddrPort]*udprelay.Forward),

		started: time.Now(),
		asks:    make(chan ask),
	}
	s.ctx, s.stop = context.WithCancel(ctx)
	h, err := host.Watch(ctx, s.log)
	if err != nil {
		return nil, fmt.Errorf("watch the addresses of this host: %w", err)
	}
	limit, err := host.MaxOpenFiles()
	if err != nil {
		return nil, err
	}
	s.watches.Go(h.Wait)
	s.host, s.maxFiles = h, limit
	s.flows = &flows.Registry{Log: s.log, Denied: dialer.ErrDenied}
	s.decisions = decisions{flows: s.flows, log: s.log, by: make(map[string]*telling)}
	s.watches.Go(func() { s.sample(ctx) })
	s.sources = &egress.Sources{Host: h, Log: s.log, EndFlows: s.endFlows, EndSockets: s.endSockets, Way: s.way}
	s.probes = &egress.Probes{Host: h, Sources: s.sources}
	s.shared = &inbound.Shared{
		Flows:       s.flows,
		Descriptors: inbound.NewDescriptors(limit),
		Log:         s.log,
		Sources:     s.sources,
	}
	s.engine = &udprelay.Engine{Flows: s.flows, Limits: &s.shared.Limits, Sources: s.sources, Log: s.log}
	s.watches.Go(func() { s.sources.Run(ctx) })
	s.admin = &admin.Server{Service: service{s}, Flows: s.flows, Log: s.log}
	return s, nil
}

// logHandler returns the maker of handlers in the format that is wanted.
func logHandler(o *Options, format string, level slog.Leveler) func(io.Writer) slog.Handler {
	ho := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && o.Terminal {
		return func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, ho) }
	}
	return func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, ho) }
}

// addrs returns the addresses on which the program listens.
func (s *server) addrs() []net.Addr {
	var out []net.Addr
	for _, l := range s.tcp {
		out = append(out, l.Addr())
	}
	for _, f := range s.udp {
		out = append(out, f.Addr())
	}
	return out
}

// reload takes the configuration anew. One that cannot be used changes nothing.
func (s *server) reload(load func() (*config.Config, error)) error {
	s.reloads++
	cfg, err := load()
	if err == nil {
		err = s.apply(cfg)
	}
	s.note(err)
	if err != nil {
		s.log.Error("reload failed", "reloads", s.reloads, "err", err)
		return err
	}
	s.log.Info("reloaded", "reloads", s.reloads)
	return nil
}

// drain ends the program: nothing new is let in, TCP flows get their time to end, and
// what is left then is ended. UDP conversations have no end of their own; they go on
// as long as the drain takes.
func (s *server) drain() {
	s.log.Info("draining", "flows", s.flows.Len())
	for _, l := range s.tcp {
		s.retire(l)
	}
	s.stop()
	for _, f := range s.udp {
		f.Drain()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.retired.Wait()
	}()
	s.await(ended)
	if err := s.engine.Close(); err != nil {
		s.log.Warn("stop udp", "err", err)
	}
	s.probes.Close()
	s.log.Info("stopped")
}

// await waits for the flows to end, and ends them when their time is over. A dial that
// succeeds just then opens one more: so it does that again until none is left.
func (s *server) await(ended <-chan struct{}) {
	timer := time.NewTimer(s.drainIn)
	defer timer.Stop()
	for {
		select {
		case <-ended:
			return
		case <-timer.C:
			s.flows.CloseAll(flows.ErrDrained)
			timer.Reset(50 * time.Millisecond)
		}
	}
}

// retire closes a listener and lets its flows go on.
func (s *server) retire(l *inbound.Listener) {
	if err := l.Close(); err != nil {
		s.log.Warn("close listener", "addr", l.Addr().String(), "err", err)
	}
	s.retired.Go(l.Wait)
}
