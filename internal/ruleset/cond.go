package ruleset

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// few is the length up to which a list is searched from the front.
const few = 8

// cond is the conditions of a rule that its anchor does not settle.
type cond struct {
	protocol   Protocol
	ports      []PortRange
	localPorts []PortRange
	client     *prefixSet
	users      *stringSet
	listeners  *stringSet
	services   *stringSet
	to, keys   *targets
	byPrefix   bool // prefixes alone can meet the destination: FirstByPrefix has to look at it
}

// holds reports whether q meets c, and adds to a what the destination was met by.
func (c *cond) holds(q *Query, a *answer) bool {
	return (c.protocol == 0 || c.protocol&q.Protocol != 0) &&
		(c.ports == nil || inRanges(c.ports, q.Port)) &&
		(c.localPorts == nil || inRanges(c.localPorts, q.LocalPort)) &&
		(c.client == nil || c.client.contains(q.Client)) &&
		(c.users == nil || c.users.contains(q.User)) &&
		(c.listeners == nil || c.listeners.contains(q.Listener)) &&
		(c.services == nil || c.services.contains(q.Service)) &&
		(c.to == nil || c.to.meet(q, a, false)) &&
		(c.keys == nil || c.keys.meet(q, a, true))
}

// inRanges wants ranges sorted and apart, as mergeRanges gives them.
func inRanges(ranges []PortRange, port uint16) bool {
	i, found := slices.BinarySearchFunc(ranges, port, func(r PortRange, port uint16) int {
		switch {
		case r.Hi < port:
			return -1
		case r.Lo > port:
			return 1
		}
		return 0
	})
	return found && ranges[i].Contains(port)
}

// mergeRanges returns the same ports as sorted ranges that do not touch.
func mergeRanges(ranges []PortRange) []PortRange {
	if len(ranges) == 0 {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b PortRange) int { return cmp.Compare(a.Lo, b.Lo) })
	merged := sorted[:1]
	for _, r := range sorted[1:] {
		last := &merged[len(merged)-1]
		if int(r.Lo) > int(last.Hi)+1 {
			merged = append(merged, r)
			continue
		}
		last.Hi = max(last.Hi, r.Hi)
	}
	return merged
}

// stringSet is a list of strings while they are few.
type stringSet struct {
	list []string
	set  map[string]struct{}
}

func newStringSet(list []string) *stringSet {
	if len(list) <= few {
		return &stringSet{list: list}
	}
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return &stringSet{set: set}
}

func (s *stringSet) contains(v string) bool {
	if s.set == nil {
		return slices.Contains(s.list, v)
	}
	_, ok := s.set[v]
	return ok
}

// interner gives equal conditions of different rules one place. Equal lists of targets are shared as well, since they
// may be long.
type interner struct {
	conds   []cond // the first is unused
	ids     map[string]int32
	targets map[string]*targets
	key     []byte
}

func newInterner() interner {
	return interner{conds: make([]cond, 1), ids: make(map[string]int32), targets: make(map[string]*targets)}
}

// cond returns the index of what is left of r when it is filed under a, 0 when nothing is.
func (n *interner) cond(r *Rule, a anchor) int32 {
	c := cond{protocol: r.Protocol}
	if a != anchorTo {
		c.to = n.intern(listed(r.To))
	}
	if a != anchorMap {
		c.keys = n.intern(paired(r.Map))
	}
	c.byPrefix = (c.to != nil || c.keys != nil) && c.to.canPrefix() && c.keys.canPrefix()
	rest := *r
	rest.without(a)
	if c.protocol == 0 && c.to == nil && c.keys == nil && rest.unconditional() {
		return 0
	}
	rest.normalize()
	n.key = rest.appendKey(n.key[:0], c.to.number(), c.keys.number())
	id, ok := n.ids[string(n.key)]
	if !ok {
		c.fill(&rest)
		id = int32(len(n.conds)) // #nosec G115 -- check bounds the number of rules
		n.conds = append(n.conds, c)
		n.ids[string(n.key)] = id
	}
	return id
}

// without clears the condition that a settles. To and Map are left to the caller.
func (r *Rule) without(a anchor) {
	switch a {
	case anchorClient:
		r.Client = nil
	case anchorUser:
		r.Users = nil
	case anchorListener:
		r.Listeners = nil
	case anchorService:
		r.Services = nil
	case anchorPort:
		r.Ports = nil
	case anchorLocalPort:
		r.LocalPorts = nil
	}
}

// unconditional looks at all but protocol and destination.
func (r *Rule) unconditional() bool {
	return len(r.Ports)+len(r.LocalPorts)+len(r.Client)+len(r.Users)+len(r.Listeners)+len(r.Services) == 0
}

// normalize replaces the lists by copies that are equal when they mean the same.
func (r *Rule) normalize() {
	r.Ports, r.LocalPorts = mergeRanges(r.Ports), mergeRanges(r.LocalPorts)
	r.Client = slices.Compact(slices.SortedFunc(slices.Values(r.Client), netip.Prefix.Compare))
	r.Users = slices.Compact(slices.Sorted(slices.Values(r.Users)))
	r.Listeners = slices.Compact(slices.Sorted(slices.Values(r.Listeners)))
	r.Services = slices.Compact(slices.Sorted(slices.Values(r.Services)))
}

// fill takes over the normalized lists of r.
func (c *cond) fill(r *Rule) {
	c.ports, c.localPorts = r.Ports, r.LocalPorts
	if len(r.Client) > 0 {
		s := newPrefixSet(r.Client)
		c.client = &s
	}
	if len(r.Users) > 0 {
		c.users = newStringSet(r.Users)
	}
	if len(r.Listeners) > 0 {
		c.listeners = newStringSet(r.Listeners)
	}
	if len(r.Services) > 0 {
		c.services = newStringSet(r.Services)
	}
}

// appendKey appends a text that two normalized rules share only if they have the same conditions.
func (r *Rule) appendKey(b []byte, to, keys int) []byte {
	b = append(b, byte(r.Protocol))
	b = binary.AppendUvarint(b, uint64(to))
	b = binary.AppendUvarint(b, uint64(keys))
	for _, ranges := range [][]PortRange{r.Ports, r.LocalPorts} {
		b = binary.AppendUvarint(b, uint64(len(ranges)))
		for _, p := range ranges {
			b = binary.BigEndian.AppendUint16(b, p.Lo)
			b = binary.BigEndian.AppendUint16(b, p.Hi)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(r.Client)))
	for _, p := range r.Client {
		b = appendPrefix(b, p)
	}
	for _, list := range [][]string{r.Users, r.Listeners, r.Services} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = appendString(b, s)
		}
	}
	return b
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	a := p.Addr().AsSlice()
	b = append(b, byte(len(a)), byte(p.Bits())) // #nosec G115 -- at most 128
	return append(b, a...)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func listed(to []Target) []keyed {
	list := make([]keyed, len(to))
	for i, t := range to {
		list[i].target = t
	}
	return list
}

func paired(m map[Target]int32) []keyed {
	list := make([]keyed, 0, len(m))
	for t, outcome := range m {
		list = append(list, keyed{t, outcome})
	}
	return list
}

// intern returns the compiled form of list, nil when it is empty.
func (n *interner) intern(list []keyed) *targets {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b keyed) int { return a.target.compare(b.target) })
	list = slices.Compact(list)
	n.key = n.key[:0]
	for _, k := range list {
		n.key = append(n.key, byte(k.target.Scope))
		n.key = appendString(n.key, k.target.Name)
		n.key = appendPrefix(n.key, k.target.Prefix)
		n.key = binary.AppendVarint(n.key, int64(k.outcome))
	}
	t, ok := n.targets[string(n.key)]
	if !ok {
		t = newTargets(list, 1+len(n.targets))
		n.targets[string(n.key)] = t
	}
	return t
}
