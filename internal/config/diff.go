package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Change is what one entry of a configuration has become in another.
type Change struct {
	What     string   `json:"what"`               // "added", "removed", "changed" or "moved"
	Kind     string   `json:"kind"`               // "source", "pool", "rule", "listener", or another table or key
	Name     string   `json:"name,omitempty"`     // of the entry, where it has one
	Keys     []string `json:"keys,omitempty"`     // of what has changed
	Position string   `json:"position,omitempty"` // where it stands, or stood, as path:line
}

// The words of Change.What.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
	Moved   = "moved" // a rule that stands above or below another one than before
)

// Diff returns what is different in b, which came after a, in the order of b. Lists in
// files of their own count as part of the key that names them.
func Diff(a, b *Config) []Change {
	var out []Change
	for _, kind := range []struct{ name, table string }{{"source", "sources"}, {"pool", "pools"}} {
		out = append(out, changes(kind.name, a.named(kind.table), b.named(kind.table))...)
	}
	was, is := a.ruleEntries(), b.ruleEntries()
	pair(was, is)
	out = append(out, changes("rule", was, is)...)
	out = append(out, changes("listener", a.listenEntries(), b.listenEntries())...)
	return append(out, changes("", a.others(), b.others())...)
}

// Renamed returns, for each rule of a that is in b as well, what it is called in b, by
// what it is called in a. A rule without a name is in b when one says the same there.
func Renamed(a, b *Config) map[string]string {
	now := make(map[string]string)
	for _, e := range b.ruleEntries() {
		now[e.id] = e.name
	}
	out := make(map[string]string)
	for _, e := range a.ruleEntries() {
		if name, ok := now[e.id]; ok {
			out[e.name] = name
		}
	}
	return out
}

// entry is one element of a configuration that Diff compares.
type entry struct {
	id    string // by which it is found in the other configuration
	kind  string // empty: as the others
	name  string
	node  *node
	lists map[string]any // by key, what may come from a file of its own
}

// changes compares entries. Where they are rules their order counts.
func changes(kind string, a, b []entry) []Change {
	was := make(map[string]entry, len(a))
	for _, e := range a {
		was[e.id] = e
	}
	moved := map[string]bool{}
	if kind == "rule" {
		moved = displaced(a, b)
	}
	var out []Change
	for _, e := range b {
		old, found := was[e.id]
		delete(was, e.id)
		keys := differing(old, e)
		switch {
		case !found:
			out = append(out, e.change(Added, kind, nil))
		case len(keys) > 0 || !same(old.node, e.node):
			out = append(out, e.change(Changed, kind, keys))
		case moved[e.id]:
			out = append(out, e.change(Moved, kind, nil))
		}
	}
	for _, e := range a {
		if _, left := was[e.id]; left {
			out = append(out, e.change(Removed, kind, nil))
		}
	}
	return out
}

func (e *entry) change(what, kind string, keys []string) Change {
	return Change{what, cmp.Or(e.kind, kind), e.name, keys, e.node.position()}
}

// position returns where n stands, as path:line.
func (n *node) position() string { return fmt.Sprintf("%s:%d", n.file.path, n.file.line(n.keyAt)) }

// differing returns the keys under which a and b say something different.
func differing(a, b entry) []string {
	if a.node == nil || a.node.kind != tableKind || b.node.kind != tableKind {
		return nil
	}
	var keys []string
	for _, n := range [...]*node{b.node, a.node} {
		for _, c := range n.items {
			other := a.node.child(c.key) == nil || b.node.child(c.key) == nil
			if other || !same(a.node.child(c.key), b.node.child(c.key)) || !reflect.DeepEqual(a.lists[c.key], b.lists[c.key]) {
				keys = append(keys, c.key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// same reports whether two values say the same. The order of a table's keys does not
// matter.
func same(a, b *node) bool {
	if a.kind != b.kind || a.text != b.text || len(a.items) != len(b.items) {
		return false
	}
	for i, c := range a.items {
		d := b.items[i]
		if a.kind == tableKind {
			d = b.child(c.key)
		}
		if d == nil || !same(c, d) {
			return false
		}
	}
	return true
}

// named returns the entries of a table of tables.
func (c *Config) named(table string) []entry {
	if c.root == nil || c.root.child(table) == nil {
		return nil
	}
	var out []entry
	for _, n := range c.root.child(table).items {
		out = append(out, entry{id: n.key, name: n.key, node: n})
	}
	return out
}

// ruleEntries returns the rules. One without a name is known by what it says.
func (c *Config) ruleEntries() []entry {
	out := make([]entry, 0, len(c.Rules))
	taken := make(map[string]int)
	for i := range c.Rules {
		r := &c.Rules[i]
		e := entry{id: "name " + r.Name, name: r.Name}
		if r.Name == "" {
			e.name = fmt.Sprintf("rule %d", i+1)
		}
		e.node = c.marks[mark{"rule", e.name}]
		if e.node == nil {
			continue // made without a file
		}
		if r.Name == "" {
			var b strings.Builder
			e.node.write(&b)
			e.id = "says " + b.String()
			taken[e.id]++
			e.id = fmt.Sprintf("%s %d", e.id, taken[e.id])
		}
		e.lists = map[string]any{
			"to": r.To, "port": r.Ports, "client": r.Client, "user": r.User, "listener": r.Listener, "local_port": r.LocalPort,
		}
		out = append(out, e)
	}
	return out
}

// pair takes two rules without a name for one that has changed, when they have the same
// place and neither says what another one does in the other configuration.
func pair(a, b []entry) {
	ids := make(map[string]bool, len(b))
	for _, e := range b {
		ids[e.id] = true
	}
	left := make(map[string]string) // ids by name
	for _, e := range a {
		if !ids[e.id] {
			left[e.name] = e.id
		}
		ids[e.id] = false
	}
	for i := range b {
		if id, ok := left[b[i].name]; ok && ids[b[i].id] {
			b[i].id = id
		}
	}
}

// write writes what n says. Tables with the same keys in another order differ.
func (n *node) write(b *strings.Builder) {
	fmt.Fprintf(b, "%d %q %q (", n.kind, n.key, n.text)
	for _, c := range n.items {
		c.write(b)
	}
	b.WriteByte(')')
}

func (c *Config) listenEntries() []entry {
	out := make([]entry, 0, len(c.Listen))
	for i := range c.Listen {
		l := &c.Listen[i]
		if n := c.marks[mark{"listener", l.Name}]; n != nil {
			lists := map[string]any{"allow": l.Allow, "users": l.Users, "inbound_from": l.InboundFrom}
			out = append(out, entry{id: l.Name, name: l.Name, node: n, lists: lists})
		}
	}
	return out
}

// others returns what stands on the top besides.
func (c *Config) others() []entry {
	if c.root == nil {
		return nil
	}
	var out []entry
	for _, n := range c.root.items {
		switch n.key {
		case "sources", "pools", "rules", "listen":
		default:
			out = append(out, entry{id: n.key, kind: n.key, node: n})
		}
	}
	return out
}

// displaced returns the entries of b, by id, that stand in another order in a. It leaves
// as many as it can in their place: those of a longest increasing subsequence.
func displaced(a, b []entry) map[string]bool {
	at := make(map[string]int, len(a))
	for i, e := range a {
		at[e.id] = i
	}
	var common []int // of b, with a place in a
	for i, e := range b {
		if _, ok := at[e.id]; ok {
			common = append(common, i)
		}
	}
	place := func(i int) int { return at[b[i].id] }
	var ends []int // ends[n] is the end of the subsequence of n+1 entries whose place is lowest
	before := make(map[int]int, len(common))
	for _, i := range common {
		n, _ := slices.BinarySearchFunc(ends, place(i), func(j, p int) int { return cmp.Compare(place(j), p) })
		if n > 0 {
			before[i] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, i)
		}
		ends[n] = i
	}
	out := make(map[string]bool, len(common))
	for _, i := range common {
		out[b[i].id] = true
	}
	if len(ends) == 0 {
		return out
	}
	for i, ok := ends[len(ends)-1], true; ok; i, ok = before[i] {
		delete(out, b[i].id)
	}
	return out
}
