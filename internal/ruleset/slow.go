package ruleset

import "iter"

// Reason tells why a rule matches a query or does not.
type Reason struct {
	Matched   bool   // the rule decides
	Condition string // the first condition that failed, or the destination condition that matched: to, map, port, protocol, client, user, listener, local_port; "" for a match without destination
	Detail    string // for people: `to "*.mail.example", port 25`, or `port 443 is not in 25, 465, 587-588`
	Match     Match  // when Matched
}

// Walk judges rule after rule and yields for each its index and the reason, up to and including the first that matches.
// It is meant for explanations: slow, obvious, and equal to Set.First.
func Walk(rules []Rule, q Query) iter.Seq2[int, Reason] {
	return func(func(int, Reason) bool) {}
}

// Slow answers as Set.First, by walking the rules.
func Slow(rules []Rule, q Query) (Match, bool) {
	for _, r := range Walk(rules, q) {
		if r.Matched {
			return r.Match, true
		}
	}
	return Match{}, false
}

// SlowByPrefix answers as Set.FirstByPrefix, by walking the rules.
func SlowByPrefix(rules []Rule, q Query) (Match, bool) { return Match{}, false }
