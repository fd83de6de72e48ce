package config

import (
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// SourceOptions is what a source's table says of its life. A dialer knows nothing of it.
type SourceOptions struct {
	Hold  time.Duration // how long flows outlive the address; zero: they end at once
	Probe *Probe        // nil: none

	// Limit is what may leave from it. Where a field is zero, that of Limits.PerSource counts.
	Limit Bound
}

// Options returns those of the source of that name; the zero value where it has none.
func (c *Config) Options(source string) SourceOptions { return c.SourceOptions[source] }

// options reads them.
func (d *decoder) options(k map[string]*node, s *dialer.Source) {
	o := SourceOptions{
		Hold:  d.duration(k["hold"], 0, 0),
		Probe: d.probe(k["probe"], s),
		Limit: d.boundOf(k["limit"], k["new_per_second"]),
	}
	if o == (SourceOptions{}) {
		return
	}
	if d.config.SourceOptions == nil {
		d.config.SourceOptions = make(map[string]SourceOptions)
	}
	d.config.SourceOptions[s.Name] = o
}

// AllSources returns every source that flows may leave from: the named ones in the order
// of the file, whether they are used or not, and after them those that stand as an
// address in a pool, a rule, a listener, an [[attach]] or the default, by address.
func (c *Config) AllSources() []*dialer.Source {
	out := slices.Clone(c.Sources)
	seen := make(map[*dialer.Source]bool, len(out))
	for _, s := range out {
		seen[s] = true
	}
	for _, u := range c.uses() {
		for _, s := range sourcesOf(u) {
			if !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out[len(c.Sources):], func(a, b *dialer.Source) int { return a.Addrs[0].Compare(b.Addrs[0]) })
	return out
}

// uses returns every use that the file has.
func (c *Config) uses() []dialer.Use {
	uses := []dialer.Use{c.Default}
	for _, p := range c.Pools {
		uses = append(uses, dialer.Use{Pool: p})
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		uses = append(uses, r.Use)
		for _, u := range r.Map {
			uses = append(uses, u)
		}
	}
	for i := range c.Listen {
		if u := c.Listen[i].Use; u != nil {
			uses = append(uses, *u)
		}
	}
	for i := range c.Attach {
		if u := c.Attach[i].Use; u != nil {
			uses = append(uses, *u)
		}
	}
	return uses
}

// sourcesOf returns the sources that flows may leave from by u.
func sourcesOf(u dialer.Use) []*dialer.Source {
	var out []*dialer.Source
	if u.Source != nil {
		out = append(out, u.Source)
	}
	if u.Pool != nil {
		for _, m := range u.Pool.Of {
			out = append(out, m.Source)
		}
	}
	return out
}
