package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// SourceOptions is what a source's table says of its life. A dialer knows nothing of it.
type SourceOptions struct {
	Hold time.Duration // how long flows outlive the address; zero: they end at once

	// Gateway4 and Gateway6 are where packets are to leave by. Where they are not valid
	// that is any gateway behind the link that has the address.
	Gateway4, Gateway6 netip.Addr

	Probe *Probe // nil: none

	// Limit is what may leave from it. Where a field is zero, that of Limits.PerSource counts.
	Limit Bound
}

// Gateway returns the gateway of a family.
func (o SourceOptions) Gateway(is4 bool) netip.Addr {
	if is4 {
		return o.Gateway4
	}
	return o.Gateway6
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
	d.gateways(k["gateway"], s, &o)
	if o == (SourceOptions{}) {
		return
	}
	if d.config.SourceOptions == nil {
		d.config.SourceOptions = make(map[string]SourceOptions)
	}
	d.config.SourceOptions[s.Name] = o
}

// gateways reads an address, or a list of one per family.
func (d *decoder) gateways(n *node, s *dialer.Source, o *SourceOptions) {
	for _, e := range d.elements(n, textKind) {
		a, ok := d.address(e, e.text)
		if !ok {
			continue
		}
		into := &o.Gateway6
		if a.Is4() {
			into = &o.Gateway4
		}
		switch {
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			d.fault(e, "write the address of the router: ip route show default", "%s: %s is no router", n.spec.name, a)
		case into.IsValid():
			d.fault(e, "leave one of them out", "%s: a second %s address; a source has one gateway per family", n.spec.name, family(a.Is4()))
		case !has(dialer.Use{Source: s}, a.Is4()):
			d.fault(e, "name a router of that family", "%s: source %q has no %s address, and %s is one", n.spec.name, s.Name, family(a.Is4()), a)
		default:
			*into = a
		}
	}
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
