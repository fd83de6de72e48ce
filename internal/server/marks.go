package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

// marks knows where the marks lead that [[attach]] entries give to sockets
// (wildcard_port), and follows the routing. Its methods are safe for concurrent use.
type marks struct {
	host  *host.Host
	state dialer.State
	log   *slog.Logger

	config  atomic.Pointer[config.Config]
	routing atomic.Pointer[host.Marks] // nil: not known, and then no mark leads anywhere

	spent atomic.Int64 // nanoseconds, on looks since the last pause

	mu    sync.Mutex
	found map[string][]mark // by the name of the [[attach]]
}

// mark is what was found about one mark and address.
type mark struct {
	explain.Marked
	fault *explain.Fault // nil: it leads there

	told string    // the fault that the log has; empty: none
	at   time.Time // since when
}

// faultPause is the least time between two lines about one mark that does not lead: on a
// router the destinations to which it does not are others all the time.
const faultPause = time.Minute

// oneLine is a fault with its cure.
func oneLine(f *explain.Fault) string {
	switch {
	case len(f.Cure) > 0:
		return f.Text + " (cure: " + strings.Join(f.Cure, " && ") + ")"
	case f.Hint != "":
		return f.Text + " (" + f.Hint + ")"
	}
	return f.Text
}

// configure takes the configuration that is to be served, and looks at the routing where
// that matters for it.
func (m *marks) configure(cfg *config.Config) {
	m.config.Store(cfg)
	m.look()
}

// look reads the routing. Routers have many routes: where no mark needs them they are
// not read.
func (m *marks) look() {
	if !slices.ContainsFunc(m.config.Load().Attach, func(a config.Attach) bool { return a.Mark }) {
		m.routing.Store(nil)
		return
	}
	defer m.spend(time.Now())
	routing, err := host.ReadMarks()
	if err != nil {
		m.log.Warn("where marks lead could not be found out", "err", err)
	}
	m.routing.Store(routing)
}

func (m *marks) spend(since time.Time) { m.spent.Add(int64(time.Since(since))) }

// ways returns where the marks of rules lead; name is that of the [[attach]].
func (m *marks) ways(name string, r *cgroupbpf.Rules) []cgroupbpf.Way {
	routing := m.routing.Load()
	if routing == nil {
		m.tell(name, nil)
		return nil
	}
	defer m.spend(time.Now())
	ways, list := markWays(m.config.Load(), r, m.state, m.host.Now(), routing)
	m.tell(name, list)
	return ways
}

// markWays asks for all marks of rules.
func markWays(cfg *config.Config, r *cgroupbpf.Rules, state dialer.State, now *host.Snapshot, routing *host.Marks) ([]cgroupbpf.Way, []mark) {
	var ways []cgroupbpf.Way
	var list []mark
	for _, m := range r.Marks(state) {
		if !now.Local(m.Addr) {
			continue // that is said elsewhere
		}
		answer := routing.Leads(host.MarkQuery{Mark: m.Source.Mark, Src: m.Addr, Within: m.Within})
		for dst, leads := range answer.Leads {
			ways = append(ways, cgroupbpf.Way{Mark: m.Source.Mark, Src: m.Addr, Dst: dst, Leads: leads})
		}
		one := mark{Marked: explain.Marked{Source: m.Source, Addr: m.Addr, Gateway: cfg.Options(m.Source.Name).Gateway(m.Addr.Is4())}}
		one.fault = one.Fault(now, routing.Policy(), answer)
		list = append(list, one)
	}
	return ways, list
}

// tell logs what is new.
func (m *marks) tell(name string, list []mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range list {
		x := &list[i]
		x.told, x.at = toldOfMark(m.found[name], x)
		switch {
		case x.fault == nil && x.told != "":
			x.told = ""
			m.log.Info("a mark leads to its source", "attach", name, "source", x.Source.Name, "addr", x.Addr.String())
		case x.fault != nil && x.told != x.fault.Text && (x.told == "" || time.Since(x.at) >= faultPause):
			x.told, x.at = x.fault.Text, time.Now()
			m.log.Warn("a mark does not lead to its source: such connects are refused", "attach", name, "source", x.Source.Name, "err", oneLine(x.fault))
		}
	}
	m.found[name] = list
}

// toldOfMark returns what the log has about the mark and address of x.
func toldOfMark(list []mark, x *mark) (told string, at time.Time) {
	for _, y := range list {
		if y.Addr == x.Addr && y.Source.Mark == x.Source.Mark {
			return y.told, y.at
		}
	}
	return "", time.Time{}
}

// texts returns the faults of an [[attach]].
func (m *marks) texts(name string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, x := range m.found[name] {
		if x.fault != nil {
			out = append(out, oneLine(x.fault))
		}
	}
	return out
}

// On a router the routes change all the time, so looks may take a tenth of the time, and
// what they did not take for a second at once.
const (
	marksFactor = 10
	marksSlack  = time.Second
	marksPause  = cgroupbpf.WaysHold / 3 // the longest
)

// follow looks whenever the routing has changed, and refreshes what the kernel plane
// knows, until ctx is done.
func (m *marks) follow(ctx context.Context, refresh func()) {
	renew := time.NewTicker(cgroupbpf.WaysHold / 3)
	defer renew.Stop()
	var next time.Time
	for {
		changed := m.host.RoutesChanged()
		m.look()
		if m.routing.Load() != nil {
			refresh()
		}
		if slack := time.Now().Add(-marksSlack); next.Before(slack) {
			next = slack
		}
		next = next.Add(marksFactor * time.Duration(m.spent.Swap(0)))
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(time.Until(next), marksPause)):
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-renew.C:
		}
	}
}

// MarkFindings returns which marks of an [[attach]] do not lead to their sources on this
// host.
func MarkFindings(cfg *config.Config, a *config.Attach) ([]explain.Finding, error) {
	if !a.Mark {
		return nil, nil
	}
	rules, err := rulesFor(cfg, a, nil)
	if err != nil {
		return nil, nil // Entries has told it
	}
	now, err := host.Read()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	routing, err := host.ReadMarks()
	if err != nil {
		return nil, fmt.Errorf("read the routing of this host: %w", err)
	}
	var found []explain.Finding
	_, list := markWays(cfg, rules, &egress.State{Host: now}, now, routing)
	for _, x := range list {
		if x.fault == nil {
			continue
		}
		found = append(found, explain.Finding{
			Severity: explain.Warning,
			Position: cfg.Position("attach", a.Name()),
			Text:     fmt.Sprintf("attach %s: %s: the connect of a socket that holds a port is refused", a.Name(), x.fault.Text),
			Hint:     x.fault.Hint,
			Cure:     x.fault.Cure,
		})
	}
	return found, nil
}
