package ruleset

import (
	"iter"
	"net/netip"
	"slices"
)

// Candidate is a rule that may decide a flow to an address of some prefix, with the conditions still to be checked. Its
// slices belong to the compilation: they are sorted, shared and not to be changed.
type Candidate struct {
	Rule       int          // index in the list
	Outcome    int32        // of the rule, or of its longest map key that contains the prefix
	Prefix     netip.Prefix // the longest prefix of the rule around the addresses; not valid when it has no destination
	Protocol   Protocol     // zero: any
	Ports      []PortRange  // none: any
	LocalPorts []PortRange  // none: any
}

// View says which rules Prefixes compiles. The zero View takes all that have no service.
type View struct {
	// Service is the service that the hook is for, empty for none: a rule that names others does not match.
	Service string
	// Counts tells whether a rule counts for the addresses whose longest prefix is prefix; own is the Prefix of its
	// Candidate. Nil: all do.
	Counts func(prefix, own netip.Prefix) bool
}

// Prefixes compiles rules for a kernel hook. It yields each distinct prefix with every rule that may decide a flow to an
// address whose longest prefix it is: those whose prefix contains it, in order, up to one that has no further condition.
// The first whose conditions hold decides. Rules without a destination stand under 0.0.0.0/0 and ::/0. What a hook does
// not know makes a rule not match: rules with conditions on client, user or listener and targets that are names are left
// out. The lists are as long as nesting makes them: n rules under a default prefix are repeated under each other prefix.
func Prefixes(rules []Rule, v View) (iter.Seq2[netip.Prefix, []Candidate], error) {
	if err := check(rules); err != nil {
		return nil, err
	}
	c := newCompiler(len(rules))
	anywhere := make([]bool, len(rules))
	for i := range rules {
		r := rules[i].addressed(v.Service)
		anywhere[i] = len(rules[i].To) == 0 && rules[i].Map == nil
		c.file(int32(i), &r, anchorMap) // #nosec G115 -- check bounds the number of rules
	}
	order := c.arrange()
	return func(yield func(netip.Prefix, []Candidate) bool) {
		for _, id := range order {
			if !yield(c.keys[id].prefix, c.candidates(id, anywhere, v.Counts)) {
				return
			}
		}
	}, nil
}

// addressed returns r with its destination as a Map of prefixes, empty when it cannot match in a hook.
func (r *Rule) addressed(service string) Rule {
	k := Rule{Ports: r.Ports, Protocol: r.Protocol, LocalPorts: r.LocalPorts, Map: make(map[Target]int32)}
	switch {
	case len(r.Client)+len(r.Users)+len(r.Listeners) > 0:
	case len(r.Services) > 0 && !slices.Contains(r.Services, service):
	case len(r.To) > 0 && r.Map != nil:
		k.Map = r.common()
	case r.Map != nil:
		for t, outcome := range r.Map {
			k.destination(t, outcome)
		}
	case len(r.To) > 0:
		for _, t := range r.To {
			k.destination(t, r.Outcome)
		}
	default:
		k.destination(Target{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, r.Outcome)
		k.destination(Target{Prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}, r.Outcome)
	}
	return k
}

func (r *Rule) destination(t Target, outcome int32) {
	if t.Prefix.IsValid() {
		r.Map[t] = outcome
	}
}

// common returns the prefixes that lie in both To and Map, with the outcome of the longest map key around each.
func (r *Rule) common() map[Target]int32 {
	var to, keys goals
	for _, t := range r.To {
		to.insertTarget(t, 0)
	}
	for t, outcome := range r.Map {
		keys.insertTarget(t, outcome)
	}
	m := make(map[Target]int32)
	meet := func(t Target) {
		if !t.Prefix.IsValid() {
			return
		}
		_, inTo := to.around(t.Prefix)
		g, inKeys := keys.around(t.Prefix)
		if inTo && inKeys {
			m[t] = g.outcome
		}
	}
	for _, t := range r.To {
		meet(t)
	}
	for t := range r.Map {
		meet(t)
	}
	return m
}

func (g *goals) insertTarget(t Target, outcome int32) {
	if t.Prefix.IsValid() {
		g.insert(t.Prefix, outcome)
	}
}

// candidates returns all that a key has and inherits, without the rules that do not count there.
func (c *compiler) candidates(id int32, anywhere []bool, counts func(prefix, own netip.Prefix) bool) []Candidate {
	all := slices.Clone(c.lists[id].own)
	for up := c.lists[id].parent; up >= 0; up = c.lists[up].parent {
		all = merge(all, c.lists[up].own)
	}
	prefix := c.keys[id].prefix
	own := func(k candidate) netip.Prefix {
		if anywhere[k.rule] {
			return netip.Prefix{}
		}
		return netip.PrefixFrom(prefix.Addr(), int(k.width)).Masked()
	}
	if counts != nil {
		all = slices.DeleteFunc(all, func(k candidate) bool { return !counts(prefix, own(k)) })
	}
	all = c.prune(all, true)
	list := make([]Candidate, len(all))
	for i, k := range all {
		cond := &c.conds[k.cond]
		list[i] = Candidate{Rule: int(k.rule), Outcome: k.outcome, Prefix: own(k), Protocol: cond.protocol, Ports: cond.ports, LocalPorts: cond.localPorts}
	}
	return list
}
