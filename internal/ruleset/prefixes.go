package ruleset

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// tree finds the value of the longest prefix that contains an address. The zero tree is empty.
type tree struct{ table bart.Table[int32] }

func (t *tree) insert(p netip.Prefix, v int32) { t.table.Insert(p, v) }

// lookup returns 0 where no prefix contains a.
func (t *tree) lookup(a netip.Addr) int32 {
	v, _ := t.table.Lookup(a)
	return v
}

// goals finds the longest prefix of a rule's targets, and its outcome.
type goals struct{ table bart.Table[goal] }

type goal struct {
	outcome int32
	bits    uint8
}

func (g *goals) insert(p netip.Prefix, outcome int32) {
	g.table.Insert(p, goal{outcome: outcome, bits: uint8(p.Bits())}) // #nosec G115 -- at most 128
}

func (g *goals) lookup(a netip.Addr) (goal, bool) { return g.table.Lookup(a) }

// around returns the longest of the prefixes that contains all of p.
func (g *goals) around(p netip.Prefix) (goal, bool) { return g.table.LookupPrefix(p) }

// prefixSet tells whether an address lies in one of many prefixes: a list while they are few.
type prefixSet struct {
	list  []netip.Prefix
	table *bart.Lite
}

func newPrefixSet(list []netip.Prefix) prefixSet {
	if len(list) <= few {
		return prefixSet{list: list}
	}
	t := new(bart.Lite)
	for _, p := range list {
		t.Insert(p)
	}
	return prefixSet{table: t}
}

func (s *prefixSet) contains(a netip.Addr) bool {
	if s.table != nil {
		return s.table.Contains(a)
	}
	for _, p := range s.list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
