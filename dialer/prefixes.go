package dialer

import (
	"iter"
	"net/netip"

	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// A Candidate is a rule that may decide the flows to the addresses of a prefix, with
// the conditions that are still to be checked. Its slices must not be changed.
type Candidate struct {
	Rule       string // the rule's name
	Index      int    // its place from 0
	Use        Use
	SourcePort uint16
	Prefix     netip.Prefix // of the rule; not valid when it has no destination
	TCP, UDP   bool         // what the rule is for
	Ports      []PortRange  // of the destination; none: any, also an unknown one
	LocalPort  []PortRange  // none: any, also an unknown one
}

// A View says which rules Prefixes gives.
type View struct {
	// Service is the service that the rules are for. Empty leaves out all rules
	// that name one.
	Service string

	// Counts tells whether a rule counts for the addresses whose longest prefix is
	// prefix; own is the Prefix of its Candidate. Nil: all do.
	Counts func(prefix, own netip.Prefix) bool
}

// Prefixes gives the rules of t in the form for a plane that sees addresses and
// ports, but neither names nor clients. It yields each distinct prefix with the rules
// that may decide a flow to an address whose longest prefix it is; the first whose
// conditions hold decides, and where none does the default. Rules with a condition on
// the client, the user or the listener do not match there and are left out, as are names.
func (t *Table) Prefixes(v View) iter.Seq2[netip.Prefix, []Candidate] {
	prefixes, err := ruleset.Prefixes(t.rules, ruleset.View(v))
	if err != nil {
		panic(err) // NewTable has compiled them
	}
	return func(yield func(netip.Prefix, []Candidate) bool) {
		for p, list := range prefixes {
			candidates := make([]Candidate, len(list))
			for i := range list {
				candidates[i] = t.candidate(&list[i])
			}
			if !yield(p, candidates) {
				return
			}
		}
	}
}

func (t *Table) candidate(c *ruleset.Candidate) Candidate {
	h := &t.heads[c.Rule]
	return Candidate{
		Rule:       h.name,
		Index:      c.Rule,
		Use:        t.uses[c.Outcome].Use,
		SourcePort: h.port,
		Prefix:     c.Prefix,
		TCP:        c.Protocol == 0 || c.Protocol&ruleset.TCP != 0,
		UDP:        c.Protocol == 0 || c.Protocol&ruleset.UDP != 0,
		Ports:      portRanges(c.Ports),
		LocalPort:  portRanges(c.LocalPorts),
	}
}

func portRanges(in []ruleset.PortRange) []PortRange {
	var out []PortRange
	for _, r := range in {
		out = append(out, PortRange(r))
	}
	return out
}

// Default returns what decides the flows that no rule matches.
func (t *Table) Default() Use { return t.otherwise.Use }
