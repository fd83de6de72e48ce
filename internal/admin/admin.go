// Package admin is how one talks to the running program: an HTTP API on a unix socket,
// the client of it that the commands are, and the tables that they print.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// Service is the running program. Its methods are safe for concurrent use; those without
// a context do not wait.
type Service interface {
	// Status returns all of it that Flows and Sources do not tell.
	Status() Status

	// Sources returns the state of each source.
	Sources() []egress.Status

	// Way returns how packets from a source leave this host for the rest of the world:
	// "eth0 via 198.51.100.1". It is empty when they do not.
	Way(*egress.Status) string

	// Ports returns how the sources of live flows use their local ports.
	Ports() []egress.PortUse

	// Places returns the flows that a source has and may have under its limit.
	Places(source string) Usage

	// Pools returns the pools, without what they use.
	Pools() []Pool

	// Rules returns the rules in their order, without their counts.
	Rules() []Rule

	// Attached returns how many calls of attached programs each rule has decided since the
	// rules were loaded there.
	Attached() map[string]uint64

	// Configuration returns the path of the file that is served, made absolute, and its sum.
	Configuration() (path, sum string)

	// Reload takes the configuration anew and waits for the outcome. The error is what
	// is wrong with it; then nothing has changed. ErrDraining says that the program ends.
	Reload(ctx context.Context) (Reloaded, error)

	// Explain answers for the configuration that is served. The error is about the
	// question.
	Explain(ctx context.Context, q *Question) (*explain.Answer, error)
}

// Flows are the live flows and what was counted of those before. A *flows.Registry is
// one.
type Flows interface {
	All() []*flows.Flow
	Get(id uint64) *flows.Flow
	Sources() []flows.SourceStats
	Rules() []flows.RuleStats
	KeepRules(names map[string]string)
}

var _ Flows = (*flows.Registry)(nil)

// ErrDraining says that the program ends and takes no configuration any more.
var ErrDraining = errors.New("the service is ending: it takes no configuration any more")

// How long the parts of a request may take. Nobody is to hold a connection for ever.
const (
	headerTime = 5 * time.Second
	answerTime = 2 * time.Minute // a reload may read large files, and explain may dial
	idleTime   = time.Minute
	closeTime  = time.Second // for the requests that are under way at the end
)

// A Server answers the requests. Set Service, Flows and Log before Serve.
type Server struct {
	Service Service
	Flows   Flows
	Log     *slog.Logger

	setUp   sync.Once
	http    *http.Server
	running sync.WaitGroup

	mu    sync.Mutex
	reset map[string]uint64 // what Attached was when the counts were reset; its counters only grow
}

// Serve starts to answer on l, besides on those where it does so already, and returns
// at once. Closing l ends that, but for the requests under way.
func (s *Server) Serve(l net.Listener) {
	s.prepare()
	s.running.Go(func() {
		err := s.http.Serve(l)
		if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.Log.Warn("admin socket", "err", err)
		}
	})
}

func (s *Server) prepare() {
	s.setUp.Do(func() {
		s.http = &http.Server{
			Handler:           s.Handler(),
			ReadHeaderTimeout: headerTime,
			ReadTimeout:       headerTime,
			WriteTimeout:      answerTime,
			IdleTimeout:       idleTime,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
		}
	})
}

// Close closes all listeners, waits a moment for the requests under way, and ends the
// rest.
func (s *Server) Close() error {
	s.prepare()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	s.running.Wait()
	return err
}
