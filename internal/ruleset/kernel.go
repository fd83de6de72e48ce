package ruleset

import (
	"iter"
	"net/netip"
)

// Candidate is a rule that may decide a flow to an address of some prefix, with the conditions still to be checked.
type Candidate struct {
	Rule       int         // index in the list
	Outcome    int32       // of the rule, or of its longest map key that contains the prefix
	Protocol   Protocol    // zero: any
	Ports      []PortRange // none: any
	LocalPorts []PortRange // none: any
}

// Prefixes yields each distinct prefix of rules, and both default prefixes, with every rule that may decide a flow to an
// address whose longest prefix it is, in order. Within a list the first candidate whose conditions hold decides. Rules
// with conditions on client, user or listener and targets that are names are left out: a kernel hook does not know them.
func Prefixes(rules []Rule) iter.Seq2[netip.Prefix, []Candidate] {
	return func(func(netip.Prefix, []Candidate) bool) {}
}
