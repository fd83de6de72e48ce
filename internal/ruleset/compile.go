package ruleset

import (
	"cmp"
	"math"
	"slices"
)

// short is the length up to which a list takes over those of wider keys. It bounds both the memory, since longer lists are
// pointed to, and the number of lists that one lookup visits.
const short = 8

// compiler files rules under keys and turns the keys into the lists of a Set.
type compiler struct {
	interner
	ids   map[key]int32
	keys  []key
	rules []int32 // by key: how many rules have it, filed there or not
	filed []entry

	lists []list // by key
	nodes []node
	slab  []candidate
}

// entry is a candidate and the key it is filed under.
type entry struct {
	key int32
	candidate
}

// list is what one key has: the candidates filed there, the next wider key that has any, and the node once built.
type list struct {
	own    []candidate
	parent int32 // -1 for none
	node   int32
}

func newCompiler(rules int) *compiler {
	return &compiler{interner: newInterner(), ids: make(map[key]int32, rules), nodes: make([]node, 1)}
}

// add counts the keys of all rules, so that each can then be filed where the fewest others are.
func (c *compiler) add(rules []Rule) {
	for i := range rules {
		for _, a := range anchors {
			if !rules[i].has(a) {
				continue
			}
			for f := range rules[i].keys(a) {
				c.rules[c.id(f.key)]++
			}
		}
	}
	for i := range rules {
		c.file(int32(i), &rules[i], c.choose(&rules[i])) // #nosec G115 -- check bounds the number of rules
	}
}

func (c *compiler) id(k key) int32 {
	id, ok := c.ids[k]
	if !ok {
		id = int32(len(c.keys)) // #nosec G115 -- a key takes more than two bytes of memory
		c.ids[k] = id
		c.keys = append(c.keys, k)
		c.rules = append(c.rules, 0)
	}
	return id
}

// file puts r under each of its keys for a, with the rest of its conditions.
func (c *compiler) file(index int32, r *Rule, a anchor) {
	cond := c.cond(r, a)
	for f := range r.keys(a) {
		c.filed = append(c.filed, entry{c.id(f.key), candidate{rule: index, outcome: f.outcome, cond: cond, width: f.width}})
	}
}

// choose returns the condition of r whose most shared value is shared by the fewest rules.
func (c *compiler) choose(r *Rule) anchor {
	chosen, fewest := anchorNone, int32(math.MaxInt32)
	for _, a := range anchors {
		if !r.has(a) {
			continue
		}
		if r.hasOnly(a) {
			return a
		}
		most := int32(0)
		for f := range r.keys(a) {
			most = max(most, c.rules[c.ids[f.key]])
		}
		if most < fewest {
			chosen, fewest = a, most
		}
	}
	return chosen
}

// set builds the lists and the indexes that lead to them.
func (c *compiler) set() *Set {
	order := c.arrange()
	for _, id := range order {
		c.build(id)
	}
	s := &Set{users: make(map[string]int32), listeners: make(map[string]int32), services: make(map[string]int32)}
	for _, id := range order {
		s.index(c.keys[id], c.lists[id].node)
	}
	s.nodes, s.slab, s.conds = slices.Clip(c.nodes), slices.Clip(c.slab), slices.Clip(c.conds)
	return s
}

// arrange gives each key its own candidates and its parent, and returns the keys that have candidates, parents before
// children.
func (c *compiler) arrange() []int32 {
	c.distribute()
	var order []int32
	for id := range c.lists {
		if len(c.lists[id].own) > 0 {
			order = append(order, int32(id)) // #nosec G115 -- see id
		}
	}
	slices.SortFunc(order, func(a, b int32) int { return c.keys[a].compare(&c.keys[b]) })
	var around []int32 // the prefixes that contain the one at hand
	for _, id := range order {
		k := &c.keys[id]
		if !k.kind.byAddress() {
			c.lists[id].parent = c.wider(k)
			continue
		}
		for len(around) > 0 && !c.keys[around[len(around)-1]].contains(k) {
			around = around[:len(around)-1]
		}
		c.lists[id].parent = last(around)
		around = append(around, id)
	}
	return order
}

// distribute sorts the entries by key; within a key they keep the order of rules.
func (c *compiler) distribute() {
	c.lists = make([]list, len(c.keys))
	ends := make([]int, len(c.keys)+1)
	for i := range c.filed {
		ends[c.filed[i].key+1]++
	}
	for i := range c.keys {
		ends[i+1] += ends[i]
	}
	all := make([]candidate, len(c.filed))
	for _, e := range c.filed {
		l := &c.lists[e.key]
		if l.own == nil {
			l.own = all[ends[e.key]:ends[e.key]:ends[e.key+1]]
		}
		l.own = append(l.own, e.candidate)
	}
	c.filed = nil
}

func last(stack []int32) int32 {
	if len(stack) == 0 {
		return -1
	}
	return stack[len(stack)-1]
}

// compare puts keys of one kind together and wider ones before those they contain.
func (k *key) compare(o *key) int {
	switch {
	case k.kind != o.kind:
		return cmp.Compare(k.kind, o.kind)
	case k.kind.byAddress():
		return k.prefix.Compare(o.prefix)
	case k.kind == kindBelow:
		return cmp.Compare(len(k.text), len(o.text))
	}
	return 0 // nothing is inherited from these
}

// contains reports whether o, which comes later in order, lies in k.
func (k *key) contains(o *key) bool {
	return k.kind == o.kind && k.prefix.Contains(o.prefix.Addr())
}

// wider returns the longest suffix pattern with candidates that covers what the name pattern k covers, -1 for none.
func (c *compiler) wider(k *key) int32 {
	if k.kind != kindBelow && k.kind != kindExact {
		return -1
	}
	for suffix, ok := parent(k.text); ok; suffix, ok = parent(suffix) {
		if id, ok := c.ids[key{kind: kindBelow, text: suffix}]; ok && len(c.lists[id].own) > 0 {
			return id
		}
	}
	return -1
}

// build makes the node of a key: its own candidates, and those of wider keys while the list stays short.
func (c *compiler) build(id int32) {
	l := &c.lists[id]
	settled := c.keys[id].kind.byDestination()
	candidates := c.prune(sortOwn(l.own), settled)
	up := int32(0)
	if l.parent >= 0 {
		up = c.lists[l.parent].node
	}
	for up != 0 {
		n := c.nodes[up]
		if len(candidates)+int(n.hi-n.lo) > short {
			break
		}
		candidates = c.prune(merge(candidates, c.slab[n.lo:n.hi]), settled)
		up = n.up
	}
	l.node = int32(len(c.nodes)) // #nosec G115 -- see id
	lo := len(c.slab)
	c.slab = append(c.slab, candidates...)
	c.nodes = append(c.nodes, node{int32(lo), int32(len(c.slab)), up}) // #nosec G115 -- 32 GB of candidates
}

// sortOwn orders the candidates of one key, which are in the order of rules: of one rule the narrower target first.
func sortOwn(own []candidate) []candidate {
	slices.SortStableFunc(own, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.width, b.width))
	})
	return own
}

// merge orders two lists into one; of one rule the narrower key's candidate comes first.
func merge(narrow, wide []candidate) []candidate {
	merged := make([]candidate, 0, len(narrow)+len(wide))
	for _, c := range narrow {
		for len(wide) > 0 && wide[0].rule < c.rule {
			merged, wide = append(merged, wide[0]), wide[1:]
		}
		merged = append(merged, c)
	}
	return append(merged, wide...)
}

// prune drops candidates that can never be the first to pass: those after one that has the same conditions left, and all
// after one that has none. Where the key does not settle the destination, rules that prefixes can meet stay behind a
// candidate without conditions: FirstByPrefix skips that one.
func (c *compiler) prune(candidates []candidate, settled bool) []candidate {
	if len(candidates) == 1 {
		return candidates
	}
	seen := newIDs(len(candidates))
	kept := candidates[:0]
	free := false
	for _, k := range candidates {
		if free && !c.conds[k.cond].byPrefix || !seen.add(k.cond) {
			continue
		}
		kept = append(kept, k)
		if k.cond == 0 {
			free = true
			if settled {
				break
			}
		}
	}
	return kept
}

// ids is a set of numbers that costs no memory while it is small.
type ids struct {
	list [2 * short]int32
	n    int
	set  map[int32]struct{}
}

func newIDs(size int) ids {
	if size <= 2*short {
		return ids{}
	}
	return ids{set: make(map[int32]struct{})}
}

// add reports whether id is new.
func (s *ids) add(id int32) bool {
	if s.set != nil {
		before := len(s.set)
		s.set[id] = struct{}{}
		return len(s.set) > before
	}
	if slices.Contains(s.list[:s.n], id) {
		return false
	}
	s.list[s.n] = id
	s.n++
	return true
}

// index makes k lead to node.
func (s *Set) index(k key, node int32) {
	switch k.kind {
	case kindAny:
		s.any = node
	case kindDst:
		s.dsts.insert(k.prefix, node)
	case kindBelow:
		s.names.insertBelow(k.text, node)
	case kindExact:
		s.names.insertExact(k.text, node)
	case kindClient:
		s.clients.insert(k.prefix, node)
	case kindUser:
		s.users[k.text] = node
	case kindListener:
		s.listeners[k.text] = node
	case kindService:
		s.services[k.text] = node
	case kindPort:
		s.ports.insert(k.prefix, node)
	case kindLocalPort:
		s.localPorts.insert(k.prefix, node)
	}
}
