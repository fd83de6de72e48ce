//go:build linux

package cgroupbpf

import "fmt"

// A Counter says what one rule has decided.
type Counter struct {
	Rule      string // its name, "default" for the default
	Connects  uint64 // calls of connect(2) that it let through
	Datagrams uint64 // datagrams with a destination of their own that it let through
	Refused   uint64 // calls that it refused, or that had no source
}

func (c Counter) plus(n hooksCounter) Counter {
	c.Connects += n.Connects
	c.Datagrams += n.Datagrams
	c.Refused += n.Refused
	return c
}

// Counters returns what the rules have decided since Load, in the order of the rules and with the default at the end. A rule
// keeps its counts over Set as long as it keeps its name. It returns none before the first Set.
func (p *Plane) Counters() ([]Counter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return nil, nil
	}
	return p.counters(p.now)
}

func (p *Plane) counters(g *generation) ([]Counter, error) {
	sums, err := g.sums()
	if err != nil {
		return nil, err
	}
	var list []Counter
	for i, name := range g.rules.names {
		if name == "" {
			continue // it has no address that it could match
		}
		c := p.past[name]
		c.Rule = name
		list = append(list, c.plus(sums[i]))
	}
	return list, nil
}

// sums adds up the rows of all processors.
func (g *generation) sums() ([]hooksCounter, error) {
	sums := make([]hooksCounter, len(g.rules.names))
	m := g.maps[hooksMapCounters]
	for i := range m.MaxEntries() {
		var n hooksCounter
		if err := m.Lookup(i, &n); err != nil {
			return nil, fmt.Errorf("read the counters of the kernel plane: %w", err)
		}
		s := &sums[int(i)%len(sums)]
		s.Connects += n.Connects
		s.Datagrams += n.Datagrams
		s.Refused += n.Refused
	}
	return sums, nil
}

// keepCounters takes over what the rules of g have counted.
func (p *Plane) keepCounters(g *generation) error {
	list, err := p.counters(g)
	if err != nil {
		return err
	}
	for _, c := range list {
		p.past[c.Rule] = c
	}
	return nil
}
