package ruleset

import (
	"slices"
	"strings"
)

// targets is the To list or the Map of a rule, where the rule is not filed under it.
type targets struct {
	id         int     // tells interned ones apart, from 1
	list       []keyed // while few: the first that matches decides
	names      names   // else the outcomes by name,
	prefixes   goals   // and by address
	prefixable bool    // some target is a prefix
}

// keyed is one target with its outcome, which means nothing in a To list.
type keyed struct {
	target  Target
	outcome int32
}

// newTargets wants the list sorted by Target.compare.
func newTargets(list []keyed, id int) *targets {
	t := &targets{id: id}
	for _, k := range list {
		t.prefixable = t.prefixable || k.target.Prefix.IsValid()
	}
	if len(list) <= few {
		t.list = list
		return t
	}
	// From the widest to the narrowest: of ".a.example" and "a.example" the latter stays for the name itself.
	for _, k := range slices.Backward(list) {
		t.insert(k.target, k.outcome)
	}
	return t
}

func (t *targets) insert(k Target, outcome int32) {
	if k.Prefix.IsValid() {
		t.prefixes.insert(k.Prefix, outcome)
		return
	}
	if k.Scope != Below {
		t.names.insertExact(k.Name, outcome)
	}
	if k.Scope != Exact {
		t.names.insertBelow(k.Name, outcome)
	}
}

// canPrefix reports whether prefixes alone can meet t. Nil is no condition.
func (t *targets) canPrefix() bool { return t == nil || t.prefixable }

func (t *targets) number() int {
	if t == nil {
		return 0
	}
	return t.id
}

// meet reports whether q meets t and adds to a by what; keys says that the outcome is that of the target.
func (t *targets) meet(q *Query, a *answer, keys bool) bool {
	by, g, ok := t.find(q)
	if !ok {
		return false
	}
	switch {
	case by == ByName:
		a.by = ByName
	case a.by == ByAny:
		a.by, a.bits = ByPrefix, g.bits
	case a.by == ByPrefix:
		a.bits = max(a.bits, g.bits)
	}
	if keys {
		a.outcome = g.outcome
	}
	return true
}

func (t *targets) find(q *Query) (By, goal, bool) {
	if t.list != nil {
		return t.findListed(q)
	}
	if q.Name != "" {
		if outcome, ok := t.names.find(q.Name); ok {
			return ByName, goal{outcome: outcome}, true
		}
	}
	g, ok := t.prefixes.lookup(q.Dst)
	return ByPrefix, g, ok
}

func (t *targets) findListed(q *Query) (By, goal, bool) {
	for i := range t.list {
		k := &t.list[i]
		switch {
		case k.target.Prefix.IsValid():
			if k.target.Prefix.Contains(q.Dst) {
				return ByPrefix, goal{k.outcome, uint8(k.target.Prefix.Bits())}, true // #nosec G115 -- at most 128
			}
		case covers(&k.target, q.Name):
			return ByName, goal{outcome: k.outcome}, true
		}
	}
	return ByAny, goal{}, false
}

func covers(t *Target, name string) bool {
	if name == t.Name {
		return t.Scope != Below
	}
	dot := len(name) - len(t.Name) - 1
	return t.Scope != Exact && dot > 0 && name[dot] == '.' && strings.HasSuffix(name, t.Name)
}
