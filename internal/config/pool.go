package config

import (
	"fmt"
	"slices"

	"github.com/srcproxy/srcproxy/dialer"
)

func (d *decoder) pools(n *node) {
	if n == nil {
		return
	}
	if n.kind != tableKind {
		d.mismatch(n)
		return
	}
	for _, c := range n.items {
		c.spec = &key{name: c.key, want: `a table: { of = ["NAME", "NAME"] }`}
		p := &dialer.Pool{Name: c.key}
		if d.define(c, "pool", dialer.Use{Pool: p}) {
			d.config.Pools = append(d.config.Pools, p)
		}
	}
	for _, p := range d.config.Pools {
		d.pool(n.child(p.Name), p)
	}
}

func (d *decoder) pool(n *node, p *dialer.Pool) {
	k := d.keys(n, poolTable)
	if k == nil {
		return
	}
	if k["of"] == nil {
		d.faultKey(n, `write of = ["NAME", "NAME"]`, "pool %q has no members", n.key)
	}
	members := make(map[*dialer.Source]bool)
	for _, e := range d.strings(k["of"]) {
		d.member(e, p, members)
	}
	pick, known := d.word(k["pick"], words(dialer.LeastConnections)...)
	p.Pick = dialer.Pick(pick)
	sure := known || k["pick"] == nil // what depends on it is looked at only then
	for _, e := range d.strings(k["by"]) {
		if i, ok := d.word(e, words(dialer.ByListener)...); ok {
			p.By = append(p.By, dialer.Key(i))
		}
	}
	p.For = d.duration(k["for"], 0, 0)
	p.Retry = d.boolean(k["retry"], false)
	if sure {
		d.weights(k["weights"], k["of"], p)
	}
	for _, name := range []string{"by", "for"} {
		if k[name] != nil && sure && p.Pick != dialer.Sticky {
			d.faultKey(k[name], `write pick = "sticky", or remove the line`, "%s does nothing with pick = %q", name, p.Pick)
		}
	}
}

// words returns the words of an enumeration up to last.
func words[E interface {
	~uint8
	fmt.Stringer
}](last E) []string {
	var out []string
	for e := E(0); e <= last; e++ {
		out = append(out, e.String())
	}
	return out
}

// member adds the source that n names to p, which has members so far.
func (d *decoder) member(n *node, p *dialer.Pool, members map[*dialer.Source]bool) {
	u, known := d.uses[n.text]
	var src *dialer.Source
	switch {
	case u.Pool == p:
		d.fault(n, "known sources: "+enumerate(d.sourceNames()), "pool %q has itself as a member", p.Name)
	case known && u.Pool != nil || slices.Contains(reserved(), n.text):
		d.fault(n, "known sources: "+enumerate(d.sourceNames()), "of: the members of a pool are sources; %q is none", n.text)
	case known:
		src = u.Source
	case looksLikeAddress(n.text):
		src, _ = d.literal(n, n.text)
	default:
		d.fault(n, d.meant(n.text, d.sourceNames(), "known sources:"), "of: no source is named %q", n.text)
	}
	if src == nil {
		return
	}
	if members[src] {
		d.fault(n, "remove it; to give one a larger share, use weights", "of: %q is a member twice", n.text)
		return
	}
	members[src] = true
	p.Of = append(p.Of, dialer.Member{Source: src})
}

// weights sets the weights of the members that stand in of.
func (d *decoder) weights(n, of *node, p *dialer.Pool) {
	if n == nil {
		return
	}
	items := d.elements(n, integerKind)
	if p.Pick == dialer.FirstUp {
		d.faultKey(n, "choose another pick, or remove the line", "weights does nothing with pick = %q", p.Pick)
		return
	}
	var all []int
	for _, e := range items {
		if v, ok := d.integer(e, 1, 1_000_000); ok {
			all = append(all, int(v))
		}
	}
	members := 1
	if of != nil && of.kind == listKind {
		members = len(of.items)
	}
	if n.kind != listKind || len(n.items) != members {
		d.fault(n, "write one weight for each member, in the order of of", "weights: there are %d for %d members", len(items), members)
		return
	}
	if len(all) != len(p.Of) {
		return // a member or weight is in error
	}
	for i := range p.Of {
		p.Of[i].Weight = all[i]
	}
}
