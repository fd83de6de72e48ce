package server

import (
	"log/slog"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// What an attachment may write to the log: its programs must not crowd out the lines of
// others, which wait in the same backlog.
const (
	linesPerSecond = 1000
	linesAtOnce    = maxBacklog / 4
)

// decisions logs what the hooks have decided. It is safe for concurrent use.
type decisions struct {
	flows *flows.Registry
	log   *slog.Logger

	mu sync.Mutex
	by map[string]*telling // by what the rules are attached to
}

// telling is what was told of one attachment.
type telling struct {
	limit *rate.Limiter
	left  uint64 // decisions that were left out
	noted uint64 // of all that are not logged, how many the log has told of
}

// of is called under the lock.
func (d *decisions) of(name string) *telling {
	t := d.by[name]
	if t == nil {
		t = &telling{limit: rate.NewLimiter(linesPerSecond, linesAtOnce)}
		d.by[name] = t
	}
	return t
}

// told logs one decision, or counts it.
func (d *decisions) told(name string, e *cgroupbpf.Event) {
	if d.takes(name) {
		d.flows.LogDecision(decisionOf(name, e))
	}
}

func (d *decisions) takes(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.of(name)
	if !t.limit.Allow() {
		t.left++
		return false
	}
	return true
}

// unlogged returns how many decisions of an attachment are in no line.
func (d *decisions) unlogged(s attach.Status) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.Untold + d.of(s.Name).left
}

// note tells how many decisions were left out since it told so last. Set may be nil.
func (d *decisions) note(set *attach.Set) {
	if set == nil {
		return
	}
	for _, s := range set.Status() {
		n := d.unlogged(s)
		d.mu.Lock()
		t := d.of(s.Name)
		more := n - min(n, t.noted) // it was attached anew when it is less
		t.noted = n
		d.mu.Unlock()
		if more > 0 {
			d.log.Warn("decisions not logged", "attach", s.Name, "decisions", more)
		}
	}
}

// decisionOf returns what e tells.
func decisionOf(attached string, e *cgroupbpf.Event) *flows.Decision {
	d := &flows.Decision{
		Time: e.Time, Attach: attached, Program: e.Program, PID: e.PID, UID: e.UID, Protocol: e.Protocol,
		Dst: e.Dst, Rule: e.Rule, Source: e.Source, Port: e.LocalPort, Err: e.Err,
	}
	if e.Src.IsValid() {
		d.Src = netip.AddrPortFrom(e.Src, e.LocalPort)
	}
	return d
}
