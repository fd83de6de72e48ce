package ruleset

import "math"

// Set is a compiled list of rules. It never changes and is safe for concurrent use. The zero Set holds no rule.
//
// Each index leads from a value of the query to a node, 0 being none. The nodes share one slab of candidates.
type Set struct {
	any        int32 // node of the rules that have no condition to be filed under
	names      names
	dsts       tree
	clients    tree
	ports      tree
	localPorts tree
	users      map[string]int32
	listeners  map[string]int32
	services   map[string]int32

	nodes []node
	slab  []candidate
	conds []cond

	firstAddressRule int
}

// node is the list of one key, slab[lo:hi] in rule order, followed by the lists of wider keys that did not fit into it.
type node struct{ lo, hi, up int32 }

// candidate is a rule under one of its keys.
type candidate struct {
	rule    int32
	outcome int32 // of the rule or of the map key it is filed under
	cond    int32 // index of the conditions still to be checked, 0 for none
	width   uint8 // under an address its prefix length, under a name its Scope
}

// Compile checks and copies rules and returns their Set. The error names the rule by its index and the condition at
// fault.
func Compile(rules []Rule) (*Set, error) {
	if err := check(rules); err != nil {
		return nil, err
	}
	c := newCompiler(len(rules))
	c.add(rules)
	s := c.set()
	s.firstAddressRule = firstAddressRule(rules)
	return s, nil
}

// First returns the first rule that matches q. It does not allocate.
func (s *Set) First(q Query) (Match, bool) {
	q.Dst, q.Client = addr(q.Dst), addr(q.Client)
	f := search{set: s, query: &q, rule: math.MaxInt32}
	f.scan(s.any, ByAny)
	f.scanConditions()
	// Names come before prefixes: of one rule that is met by both, the first found is kept.
	f.scan(s.names.lookup(q.Name), ByName)
	f.scan(s.dsts.lookup(q.Dst), ByPrefix)
	return f.match()
}

// FirstByPrefix returns the first rule that matches q with its whole destination condition met by prefixes, as if the name
// were not known and rules without a destination did not exist. By is always ByPrefix. It does not allocate.
func (s *Set) FirstByPrefix(q Query) (Match, bool) {
	q.Dst, q.Client, q.Name = addr(q.Dst), addr(q.Client), ""
	f := search{set: s, query: &q, byPrefix: true, rule: math.MaxInt32}
	f.scanConditions()
	f.scan(s.dsts.lookup(q.Dst), ByPrefix)
	return f.match()
}

// FirstAddressRule returns the index of the first rule that has a prefix in To or Map, or the number of rules when there is
// none. When First, asked with a name and no address, matches at or before that index, no address can change the answer.
func (s *Set) FirstAddressRule() int { return s.firstAddressRule }

func firstAddressRule(rules []Rule) int {
	for i := range rules {
		r := &rules[i]
		for _, t := range r.To {
			if t.Prefix.IsValid() {
				return i
			}
		}
		for t := range r.Map {
			if t.Prefix.IsValid() {
				return i
			}
		}
	}
	return len(rules)
}

// search is the state of one lookup: the lowest rule found so far.
type search struct {
	set      *Set
	query    *Query
	byPrefix bool // only what prefixes met counts
	rule     int32
	answer   answer
}

// answer is what the conditions of one rule have been met by.
type answer struct {
	by      By
	bits    uint8 // with ByPrefix the longest prefix length
	outcome int32
}

// scanConditions scans the rules that are filed under something else than their destination.
func (f *search) scanConditions() {
	s, q := f.set, f.query
	f.scan(s.users[q.User], ByAny)
	f.scan(s.listeners[q.Listener], ByAny)
	f.scan(s.services[q.Service], ByAny)
	f.scan(s.clients.lookup(q.Client), ByAny)
	f.scan(s.ports.lookup(portAddr(q.Port)), ByAny)
	f.scan(s.localPorts.lookup(portAddr(q.LocalPort)), ByAny)
}

// scan looks for a rule lower than the one found so far, in the list of a node and of the wider keys above it. What the
// node's key itself has met is by. Narrow keys come first, so that of one rule the longest prefix is kept.
func (f *search) scan(n int32, by By) {
	for n != 0 {
		here := f.set.nodes[n]
		for i := here.lo; i < here.hi; i++ {
			if c := &f.set.slab[i]; c.rule >= f.rule || f.take(c, by) {
				break
			}
		}
		n = here.up
	}
}

// take keeps c as the answer if its remaining conditions hold.
func (f *search) take(c *candidate, by By) bool {
	a := answer{by: by, outcome: c.outcome}
	if by == ByPrefix {
		a.bits = c.width
	}
	if c.cond != 0 && !f.set.conds[c.cond].holds(f.query, &a) {
		return false
	}
	if f.byPrefix && a.by != ByPrefix {
		return false
	}
	f.rule, f.answer = c.rule, a
	return true
}

// match returns what was found.
func (f *search) match() (Match, bool) {
	if f.rule == math.MaxInt32 {
		return Match{}, false
	}
	m := Match{Rule: int(f.rule), Outcome: f.answer.outcome, By: f.answer.by}
	if m.By == ByPrefix {
		m.Prefix, _ = f.query.Dst.Prefix(int(f.answer.bits)) // a length that was read from a prefix of this family
	}
	return m, true
}
