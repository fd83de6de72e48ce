package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
)

// A Plan is the nearest equivalent of a configuration that the kernel applies alone, for
// what the programs of this host send.
type Plan struct {
	Kind string `json:"kind"` // "nft", "iproute" or "networkd"
	Text string `json:"text"` // what to load or to run, with comments

	// Gaps are what the kernel cannot do, in the order of the rules.
	Gaps []Gap `json:"gaps"`
}

// A Gap is something of the configuration that a plan lacks.
type Gap struct {
	Rule     string `json:"rule"` // its name, "default", or that of a listener
	Position string `json:"position,omitempty"`
	Text     string `json:"text"`
	Partly   bool   `json:"partly"` // the rest of the rule is in the plan

	order int // of the rule
}

// planner turns rules into what a kernel can do.
type planner struct {
	cfg   *config.Config
	rules []kernelRule
	gaps  []Gap
}

// kernelRule is a rule of which the kernel can check all conditions.
type kernelRule struct {
	name, position string
	number         int // from 1; 0 is the default, -1 none of the configuration
	order          int // among all that can have gaps

	// dests are the destinations, of which the longest prefix decides. With any they
	// are those of both families.
	dests []dest
	any   bool

	ports, localPorts []dialer.PortRange
	protocol          string
}

// dest is a destination, and what becomes of flows there.
type dest struct {
	prefix netip.Prefix
	to     target
}

// target is where flows leave from. It is comparable.
type target struct {
	use  dialer.Use
	port uint16 // the local port; 0: free
}

func newPlanner(cfg *config.Config) *planner {
	p := &planner{cfg: cfg}
	for i := range cfg.Rules {
		p.rule(&cfg.Rules[i], i)
	}
	d := kernelRule{name: "default", position: cfg.Position("default", ""), any: true, order: len(cfg.Rules)}
	d.dests = anywhere(target{use: cfg.Default})
	p.rules = append(p.rules, d)
	for i := range cfg.Listen {
		if l := &cfg.Listen[i]; l.Use != nil {
			k := kernelRule{name: l.Name, position: cfg.Position("listener", l.Name), order: len(cfg.Rules) + 1}
			p.gap(&k, false, "a forward with a use of its own needs a program that listens")
		}
	}
	return p
}

func anywhere(t target) []dest {
	return []dest{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), t}, {netip.PrefixFrom(netip.IPv6Unspecified(), 0), t}}
}

// gap notes once what the plan lacks of k.
func (p *planner) gap(k *kernelRule, partly bool, format string, args ...any) {
	g := Gap{Rule: k.name, Position: k.position, Text: fmt.Sprintf(format, args...), Partly: partly, order: k.order}
	if !slices.Contains(p.gaps, g) {
		p.gaps = append(p.gaps, g)
	}
}

// found returns the gaps in the order of the rules.
func (p *planner) found() []Gap {
	gaps := append([]Gap{}, p.gaps...) // [] in JSON, also when there are none
	slices.SortStableFunc(gaps, func(a, b Gap) int { return a.order - b.order })
	return gaps
}

// rule adds a rule, or says why it is left out.
func (p *planner) rule(r *dialer.Rule, i int) {
	k := kernelRule{name: ruleName(r.Name, i), number: i + 1, order: i, ports: r.Ports, localPorts: r.LocalPort, protocol: r.Protocol}
	k.position = p.cfg.Position("rule", k.name)
	if words := unknown(r); words != nil {
		p.gap(&k, false, "the kernel does not know the %s of a flow", strings.Join(words, " and the "))
		return
	}
	names := p.destinations(&k, r)
	if len(names) > 0 {
		p.gap(&k, len(k.dests) > 0, "the kernel sees addresses, no names: %s", listed(names))
	}
	if slices.ContainsFunc(k.dests, func(d dest) bool { return d.to.use == (dialer.Use{}) && d.prefix.Addr().Is4() && !k.any }) {
		p.gap(&k, true, "IPv6 addresses that carry a denied one to a gateway (NAT64, 6to4) are let through")
	}
	if len(k.dests) > 0 {
		p.rules = append(p.rules, k)
	}
}

// unknown returns the conditions of r that only srcproxy can check.
func unknown(r *dialer.Rule) []string {
	var words []string
	for _, c := range []struct {
		word string
		set  bool
	}{
		{"client", r.Client != nil},
		{"user", r.User != nil},
		{"listener", r.Listener != nil},
		{"service", r.Service != nil},
	} {
		if c.set {
			words = append(words, c.word)
		}
	}
	return words
}

// listed returns the first few of names.
func listed(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// destinations sets the destinations of k that are prefixes, and returns those that are
// names. A rule with both a list and a map is for what is in both.
func (p *planner) destinations(k *kernelRule, r *dialer.Rule) (names []string) {
	var to []netip.Prefix
	for _, m := range r.To {
		if m.Prefix().IsValid() {
			to = append(to, m.Prefix())
		} else {
			names = append(names, m.String())
		}
	}
	keys := make([]dest, 0, len(r.Map))
	for _, m := range sortedKeys(r.Map) {
		if m.Prefix().IsValid() {
			keys = append(keys, dest{m.Prefix(), target{r.Map[m], r.SourcePort}})
		} else {
			names = append(names, m.String())
		}
	}
	own := target{r.Use, r.SourcePort}
	switch {
	case r.Map != nil && r.To != nil:
		k.dests = common(to, keys)
	case r.Map != nil:
		k.dests = keys
	case r.To != nil:
		for _, prefix := range to {
			k.dests = append(k.dests, dest{prefix, own})
		}
	default:
		k.any, k.dests = true, anywhere(own)
	}
	slices.SortFunc(k.dests, func(a, b dest) int { return comparePrefixes(a.prefix, b.prefix) })
	k.dests = slices.CompactFunc(k.dests, func(a, b dest) bool { return a.prefix == b.prefix })
	return names
}

// common returns the prefixes that lie in both to and keys, with the target of the
// longest key around each.
func common(to []netip.Prefix, keys []dest) []dest {
	var out []dest
	meet := func(prefix netip.Prefix) {
		inTo := slices.ContainsFunc(to, func(t netip.Prefix) bool { return covers(t, prefix) })
		if d, ok := longest(keys, prefix); ok && inTo {
			out = append(out, dest{prefix, d.to})
		}
	}
	for _, prefix := range to {
		meet(prefix)
	}
	for _, k := range keys {
		meet(k.prefix)
	}
	return out
}

// longest returns the longest of the prefixes of list that covers q.
func longest(list []dest, q netip.Prefix) (dest, bool) {
	var best dest
	for _, d := range list {
		if covers(d.prefix, q) && (!best.prefix.IsValid() || d.prefix.Bits() > best.prefix.Bits()) {
			best = d
		}
	}
	return best, best.prefix.IsValid()
}

// covers reports whether p contains all of q.
func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }

// comparePrefixes sorts by family, address and length: a prefix comes before those that
// it covers.
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// header is the comment at the top of a plan.
func (p *planner) header(kind, how string) string {
	var b strings.Builder
	path := p.cfg.Path
	if path == "" {
		path = "the built-in configuration"
	}
	fmt.Fprintf(&b, "# Made from %s by: srcproxy plan --%s\n", oneLine(path), kind)
	for line := range strings.Lines(how) {
		b.WriteString("# " + line)
	}
	missing, partly := 0, 0
	gaps := p.found()
	for _, g := range gaps {
		if g.Partly {
			partly++
		} else {
			missing++
		}
	}
	fmt.Fprintf(&b, "#\n# What it cannot express: %d; in part: %d.\n", missing, partly)
	for _, g := range gaps {
		where := g.Rule
		if g.Position != "" {
			where += " (" + g.Position + ")"
		}
		part := ""
		if g.Partly {
			part = "in part: "
		}
		fmt.Fprintf(&b, "#   %s: %s%s\n", oneLine(where), part, oneLine(g.Text))
	}
	return b.String()
}

// title is the comment above a rule.
func (k *kernelRule) title() string {
	s := "# " + oneLine(k.name)
	if k.number > 0 {
		s = fmt.Sprintf("# %d: %s", k.number, oneLine(k.name))
	}
	if k.position != "" {
		s += "   " + oneLine(k.position)
	}
	return s
}

// oneLine keeps a comment in its line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// sourceOf returns the address of the family that s gives, the first where it has
// several. It is not valid where s has none, or where it changes.
func sourceOf(s *dialer.Source, is4 bool) netip.Addr {
	for _, a := range append([]netip.Addr{s.Prefix.Addr(), s.First}, s.Addrs...) {
		if a.IsValid() && a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}
