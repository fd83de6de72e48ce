package admin

import (
	"fmt"
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// count adds what live flows and sources tell.
func (s *Status) count(live []*flows.Flow, sources []egress.Status) {
	byListener := make(map[string]int)
	for _, f := range live {
		byListener[f.Listener]++
	}
	for i := range s.Listeners {
		s.Listeners[i].Flows = byListener[s.Listeners[i].Name]
	}
	for i := range sources {
		switch sources[i].State {
		case egress.Up:
			s.Sources.Up++
		case egress.Down:
			s.Sources.Down++
		case egress.Waiting:
			s.Sources.Waiting++
		case egress.Broken:
			s.Sources.Broken++
		}
	}
	s.Health = s.health(sources)
}

func newSources(states []egress.Status, way func(*egress.Status) string, stats []flows.SourceStats, u use, pools []Pool) Sources {
	byName := make(map[string]*flows.SourceStats, len(stats))
	for i := range stats {
		byName[stats[i].Name] = &stats[i]
	}
	s := Sources{Sources: []Source{}, Pools: []Pool{}}
	for i := range states {
		st := &states[i]
		n := len(s.Sources)
		if n == 0 || s.Sources[n-1].Name != st.Name {
			s.Sources = append(s.Sources, newSource(st.Name, byName[st.Name]))
			delete(byName, st.Name)
			n++
		}
		a := Address{Address: st.Addr, State: st.State.String(), Reason: st.Reason, Since: st.Since}
		if st.State == egress.Up {
			a.Egress = way(st)
		}
		s.Sources[n-1].Addresses = append(s.Sources[n-1].Addresses, a)
	}
	for i := range stats {
		st := &stats[i]
		// The kernel's choice, and sources that are no longer configured.
		if byName[st.Name] != nil && (st.Live > 0 || st.Minute != flows.Traffic{}) {
			s.Sources = append(s.Sources, newSource(st.Name, st))
		}
	}
	for i := range s.Sources {
		u.add(&s.Sources[i])
	}
	for _, p := range pools {
		if p.firstUp() {
			p.Uses = firstUp(p.Of, states)
		}
		s.Pools = append(s.Pools, p)
	}
	s.Health = s.health()
	return s
}

// use is what sources have taken of what they may have.
type use struct {
	ports  []egress.PortUse
	places func(source string) Usage // nil: nothing is limited
}

func (u *use) add(s *Source) {
	if i := slices.IndexFunc(u.ports, func(p egress.PortUse) bool { return p.Source == s.Name }); i >= 0 {
		s.Ports = &u.ports[i]
	}
	if u.places == nil {
		return
	}
	if p := u.places(s.Name); p.Max > 0 {
		s.Places = &p
	}
}

func newSource(name string, stats *flows.SourceStats) Source {
	s := Source{Name: name}
	if stats == nil {
		return s
	}
	m, seconds := stats.Minute, stats.Span.Seconds()
	s.Connections = stats.Live
	s.NewPerSecond = float64(m.Opened) / seconds
	s.InBitsPerSecond = float64(m.In) * 8 / seconds
	s.OutBitsPerSecond = float64(m.Out) * 8 / seconds
	s.FailedPerMinute = float64(m.Failed) * 60 / max(seconds, 60)
	s.Total = Total{stats.Total.Opened, stats.Total.Failed, stats.Total.In, stats.Total.Out}
	return s
}

// firstUp reports whether the pool takes the first source that is up.
func (p *Pool) firstUp() bool { return p.Pick == "first-up" }

// firstUp returns the first of the sources that has an address which is up.
func firstUp(of []string, states []egress.Status) string {
	up := make(map[string]bool)
	for i := range states {
		up[states[i].Name] = up[states[i].Name] || states[i].State == egress.Up
	}
	for _, name := range of {
		if up[name] {
			return name
		}
	}
	return ""
}

func newRules(rules []Rule, stats []flows.RuleStats, attached map[string]uint64) Rules {
	byName := make(map[string]*flows.RuleStats, len(stats))
	for i := range stats {
		byName[stats[i].Name] = &stats[i]
	}
	for i := range rules {
		if rules[i].Number > 0 || rules[i].Name == "default" { // and no forward
			rules[i].Attached = attached[rules[i].Name]
		}
		if st := byName[rules[i].Name]; st != nil {
			rules[i].Hits, rules[i].Denied, rules[i].LastHit = st.Hits, st.Denied, st.Last
		}
	}
	return Rules{Rules: rules}
}

func newConn(f *flows.Flow) Conn {
	return Conn{
		ID:         f.ID,
		Network:    f.Network,
		Client:     f.Client,
		Listener:   f.Listener,
		User:       flows.Clean(f.User),
		Session:    flows.Clean(f.Session),
		Dst:        f.Dst,
		Name:       flows.Clean(f.Name),
		Rule:       f.Rule,
		Source:     f.Source,
		Src:        f.Src,
		BytesIn:    f.Down.Load(),
		BytesOut:   f.Up.Load(),
		Started:    f.Start,
		AgeSeconds: time.Since(f.Start).Seconds(),
	}
}

// health says what is wrong with the program.
func (s *Status) health(sources []egress.Status) []string {
	out := []string{}
	if s.State != Running {
		out = append(out, "the service is ending: it takes no new flows")
	}
	if r := s.LastReload; r != nil && r.Error != "" {
		out = append(out, fmt.Sprintf("the last reload failed at %s, and the configuration is the one before: %s", at(r.At), firstLine(r.Error)))
	}
	for i := range s.Listeners {
		if l := &s.Listeners[i]; l.State != Up {
			out = append(out, trouble("listener "+l.Name, l.State, l.Since, l.Reason))
		}
	}
	out = append(out, s.attachedHealth()...)
	for i := range sources {
		if st := &sources[i]; st.State != egress.Up {
			out = append(out, trouble(st.Name, st.State.String(), st.Since, st.Reason))
		}
	}
	for _, u := range []struct {
		name string
		Usage
	}{{"connections", s.Connections}, {"udp_flows", s.UDPFlows}, {"descriptors", s.Descriptors}} {
		if u.Max > 0 && u.Used*10 >= u.Max*9 {
			out = append(out, fmt.Sprintf("%s: %d of %d are used", u.name, u.Used, u.Max))
		}
	}
	return out
}

// health says what is wrong with the sources, and what pools do about it.
func (s *Sources) health() []string {
	out := []string{}
	for i := range s.Sources {
		src := &s.Sources[i]
		for _, a := range src.Addresses {
			if a.State != egress.Up.String() {
				out = append(out, trouble(src.Name, a.State, a.Since, a.Reason))
			}
		}
		if p := src.Places; p != nil && p.Used*10 >= p.Max*9 {
			out = append(out, fmt.Sprintf("%s: %d of the %d flows of its limit are there", src.Name, p.Used, p.Max))
		}
		if u := src.Ports; u != nil && u.Budget > 0 && u.Flows*10 >= u.Budget*9 {
			out = append(out, fmt.Sprintf("%s: %d of the %d ports of %v to %v (%s) are used", src.Name, u.Flows, u.Budget, u.Addr, u.Dst, u.Network))
		}
	}
	for _, p := range s.Pools {
		switch {
		case !p.firstUp() || p.Uses == p.Of[0]:
		case p.Uses == "":
			out = append(out, fmt.Sprintf("pool %s has no source that is up", p.Name))
		default:
			out = append(out, fmt.Sprintf("pool %s uses %s", p.Name, p.Uses))
		}
	}
	return out
}

func trouble(what, state string, since time.Time, reason string) string {
	text := fmt.Sprintf("%s is %s since %s", what, state, at(since))
	if reason != "" {
		text += ": " + firstLine(reason)
	}
	return text
}
