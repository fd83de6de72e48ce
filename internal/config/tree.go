package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// tree builds the nodes of a file, and finds what is defined twice: keys, tables, and
// tables over values. It takes and refuses what toml.Unmarshal does, but in a time
// that grows with the file; Unmarshal looks through all keys before for each key.
type tree struct {
	file   *file
	parser unstable.Parser
	root   *node
}

// parseTree returns the root of the tree, or as an *Error the first mistake.
func parseTree(f *file) (*node, error) {
	t := tree{file: f, root: &node{kind: tableKind, file: f, origin: byHeader}}
	t.parser.Reset(f.text)
	current := t.root
	for t.parser.NextExpression() {
		e := t.parser.Expression()
		var err error
		if e.Kind == unstable.KeyValue {
			err = t.pair(current, e)
		} else {
			current, err = t.header(e)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := t.parser.Error(); err != nil {
		return nil, t.syntax(err)
	}
	return t.root, nil
}

// syntax returns an error of the parser with its place.
func (t *tree) syntax(err error) error {
	if at := (*unstable.ParserError)(nil); errors.As(err, &at) {
		return t.file.syntaxError(int(t.parser.Range(at.Highlight).Offset), at.Message)
	}
	return t.file.syntaxError(0, err.Error())
}

// header returns the table that a header opens.
func (t *tree) header(e *unstable.Node) (*node, error) {
	n, keys := t.root, e.Key()
	first := keys
	first.Next()
	for keys.Next() {
		k := keys.Node()
		c := n.child(string(k.Data))
		switch {
		case keys.IsLast() && e.Kind == unstable.ArrayTable:
			return t.element(n, c, k, first.Node())
		case keys.IsLast():
			return t.table(n, c, k, first.Node())
		case c == nil:
			c = t.add(n, tableKind, byPath, k)
		case c.origin == byValue:
			return nil, t.twice(first.Node(), c, "key %s already exists as a value")
		case c.kind == listKind:
			c = c.items[len(c.items)-1]
		}
		n = c
	}
	return n, nil
}

// table opens the table k of n, where c stands under k so far.
func (t *tree) table(n, c *node, k, first *unstable.Node) (*node, error) {
	switch {
	case c == nil:
		return t.add(n, tableKind, byHeader, k), nil
	case c.origin == byValue:
		return nil, t.twice(first, c, "key %s already exists as a value")
	case c.origin == byDots:
		return nil, t.twice(first, c, "table %s already exists as defined by a dotted key")
	case c.kind == listKind:
		return nil, t.twice(first, c, "table %s already exists as an array of tables")
	case c.origin == byHeader:
		return nil, t.twice(first, c, "table %s already exists")
	}
	at := start(k)
	c.origin, c.keyAt, c.at, c.order = byHeader, at, at, at
	return c, nil
}

// element opens a further table of the list k of n, where c stands under k so far.
func (t *tree) element(n, c *node, k, first *unstable.Node) (*node, error) {
	switch {
	case c == nil:
		c = t.add(n, listKind, byHeader, k)
	case c.origin == byValue:
		return nil, t.twice(first, c, "key %s already exists as a value")
	case c.kind == tableKind:
		return nil, t.twice(first, c, "key %s already exists as a table")
	}
	table := t.node(tableKind, byHeader, k)
	c.items = append(c.items, table)
	return table, nil
}

// pair adds a key with its value to the table n.
func (t *tree) pair(n *node, e *unstable.Node) error {
	if err := t.keyValue(n, e); err != nil {
		return err
	}
	return t.scalars(e.Value())
}

func (t *tree) keyValue(n *node, e *unstable.Node) error {
	keys := e.Key()
	first := keys
	first.Next()
	for keys.Next() {
		k := keys.Node()
		c := n.child(string(k.Data))
		switch {
		case c != nil && (keys.IsLast() || c.origin != byDots):
			return t.twice(first.Node(), c, "key %s is already defined")
		case keys.IsLast():
			return t.value(n, e.Value(), k)
		case c == nil:
			c = t.add(n, tableKind, byDots, k)
		}
		n = c
	}
	return nil
}

// twice reports at the key first that what it defines is there, as c.
func (t *tree) twice(first *unstable.Node, c *node, format string) error {
	return t.file.syntaxError(start(first), fmt.Sprintf(format+", in line %d", c.key, t.file.line(c.keyAt)))
}

// add makes a node under k in n.
func (t *tree) add(n *node, of kind, by origin, k *unstable.Node) *node {
	c := t.node(of, by, k)
	n.add(c)
	return c
}

func (t *tree) node(of kind, by origin, k *unstable.Node) *node {
	at := start(k)
	return &node{kind: of, key: string(k.Data), file: t.file, keyAt: at, at: at, order: at, origin: by}
}

// value adds the value v under k to n.
func (t *tree) value(n *node, v, k *unstable.Node) error {
	c := t.scalar(v, t.afterEquals(k))
	c.key, c.keyAt = string(k.Data), start(k)
	n.add(c)
	return t.content(c, v)
}

// afterEquals returns where the value of the key k begins. Lists have no position of
// their own.
func (t *tree) afterEquals(k *unstable.Node) int {
	rest := t.file.text[start(k)+int(k.Raw.Length):]
	value := bytes.TrimLeft(rest, " \t")
	value = bytes.TrimPrefix(value, []byte("="))
	value = bytes.TrimLeft(value, " \t")
	return len(t.file.text) - len(value)
}

// scalar returns the node of a value without what it holds. It stands at the offset
// at unless it says so itself.
func (t *tree) scalar(v *unstable.Node, at int) *node {
	if v.Raw.Length > 0 {
		at = start(v)
	}
	return &node{kind: kindOf(v.Kind), text: string(v.Data), file: t.file, keyAt: at, at: at, order: at}
}

// content adds the elements of a list, or the keys of an inline table, to n.
func (t *tree) content(n *node, v *unstable.Node) error {
	for it := v.Children(); it.Next(); {
		c := it.Node()
		var err error
		switch v.Kind {
		case unstable.InlineTable:
			err = t.keyValue(n, c)
		case unstable.Array:
			e := t.scalar(c, n.at)
			n.items = append(n.items, e)
			err = t.content(e, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scalars looks into the numbers and dates of a value, of which the parser knows the
// form only: 99999999999999999999 and 2026-02-30 are in error.
func (t *tree) scalars(v *unstable.Node) error {
	switch v.Kind {
	case unstable.Array, unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if err := t.scalars(it.Node()); err != nil {
				return err
			}
		}
		return nil
	case unstable.KeyValue:
		return t.scalars(v.Value())
	case unstable.String, unstable.Bool:
		return nil
	}
	return t.number(v)
}

// number asks toml.Unmarshal about one number or date.
func (t *tree) number(v *unstable.Node) error {
	const before = "v = "
	var value map[string]any
	err := toml.Unmarshal(append([]byte(before), v.Data...), &value)
	at := (*toml.DecodeError)(nil)
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &at):
		return t.file.syntaxError(start(v), err.Error())
	}
	_, column := at.Position()
	return t.file.syntaxError(start(v)+column-1-len(before), strings.TrimPrefix(at.Error(), "toml: "))
}

func start(n *unstable.Node) int { return int(n.Raw.Offset) }
