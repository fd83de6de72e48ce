package flows

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// RuleStats is what a Registry has counted of one rule.
type RuleStats struct {
	Name   string
	Hits   uint64    // flows that it decided, those among them that were refused, too
	Denied uint64    // flows that it denied
	Last   time.Time // of the last hit
}

// ruleCount is RuleStats while it counts. The lock of the registry guards it.
type ruleCount struct {
	hits, denied uint64
	last         time.Time
}

// Count counts one more flow that has no entry of its own here: as a hit of a rule, and
// as opened from a source or, with an error, as failed. Empty names are not counted.
func (r *Registry) Count(rule, source string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hit(rule, time.Now(), err)
	switch m := r.meter(source); {
	case m == nil:
	case err == nil:
		m.total.Opened++
	default:
		m.total.Failed++
	}
}

// hit counts a flow that the rule decided.
func (r *Registry) hit(rule string, now time.Time, err error) {
	if rule == "" {
		return
	}
	c := r.rules[rule]
	if c == nil {
		if r.rules == nil {
			r.rules = make(map[string]*ruleCount)
		}
		c = new(ruleCount)
		r.rules[rule] = c
	}
	c.hits++
	c.last = now
	if r.Denied != nil && errors.Is(err, r.Denied) {
		c.denied++
	}
}

// Rules returns what was counted of each rule, by name.
func (r *Registry) Rules() []RuleStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]RuleStats, 0, len(r.rules))
	for _, name := range slices.Sorted(maps.Keys(r.rules)) {
		c := r.rules[name]
		out = append(out, RuleStats{name, c.hits, c.denied, c.last})
	}
	return out
}

// KeepRules keeps the counts of the rules in names under the names that they have there,
// and forgets all others.
func (r *Registry) KeepRules(names map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[string]*ruleCount, len(names))
	for was, is := range names {
		if c := r.rules[was]; c != nil {
			kept[is] = c
		}
	}
	r.rules = kept
}
