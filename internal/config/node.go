package config

import (
	"bytes"

	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is the kind of a value.
type kind uint8

const (
	textKind kind = iota
	integerKind
	boolKind
	otherKind // floats and dates, which no key takes
	listKind
	tableKind
)

// String returns the kind as a message names it.
func (k kind) String() string {
	return [...]string{"text", "an integer", "true or false", "a float or a date", "a list", "a table"}[k]
}

// node is one value of the file, and the key it stands under.
type node struct {
	kind  kind
	text  string  // of a scalar: as written, but for strings, whose quotes and escapes are gone
	items []*node // of a list, or of a table in the order of the file

	key    string
	spec   *key  // what the schema says of the key
	file   *file // where it stands
	keyAt  int   // offset of the key, or of the header
	at     int   // offset of the value; of a table, the key's
	order  int   // offset in the configuration file
	header bool  // written as [key] or [[key]]
	dotted bool  // made by a key with a dot in it
	byKey  map[string]*node
}

// child returns what stands under k in a table, or nil.
func (n *node) child(k string) *node { return n.byKey[k] }

func (n *node) add(c *node) {
	if n.byKey == nil {
		n.byKey = make(map[string]*node)
	}
	n.byKey[c.key] = c
	n.items = append(n.items, c)
}

// tree builds the nodes of a file. The text has been through toml.Unmarshal, so it
// obeys the syntax and defines nothing twice.
type tree struct {
	file   *file
	parser unstable.Parser
	root   *node
}

func parseTree(f *file) (*node, error) {
	t := tree{file: f, root: &node{kind: tableKind, file: f}}
	t.parser.Reset(f.text)
	current := t.root
	for t.parser.NextExpression() {
		e := t.parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			current = t.header(e)
		case unstable.KeyValue:
			t.keyValue(current, e)
		}
	}
	return t.root, t.parser.Error()
}

// header returns the table that a header opens.
func (t *tree) header(e *unstable.Node) *node {
	n, keys := t.root, e.Key()
	for keys.Next() {
		k := keys.Node()
		c := t.descend(n, k)
		if keys.IsLast() {
			c.keyAt, c.at, c.order, c.header, c.dotted = start(k), start(k), start(k), true, false
			if e.Kind == unstable.ArrayTable {
				c = t.element(c, k)
			}
		} else if c.kind == listKind && len(c.items) > 0 {
			c = c.items[len(c.items)-1]
		}
		n = c
	}
	return n
}

// descend returns the table or list under k, and makes a table where nothing is.
func (t *tree) descend(n *node, k *unstable.Node) *node {
	if c := n.child(string(k.Data)); c != nil {
		return c
	}
	c := t.node(tableKind, k)
	c.dotted = true
	n.add(c)
	return c
}

// element appends a table to a list made by [[key]].
func (t *tree) element(list *node, k *unstable.Node) *node {
	list.kind, list.byKey = listKind, nil
	c := t.node(tableKind, k)
	c.header = true
	list.items = append(list.items, c)
	return c
}

func (t *tree) node(of kind, k *unstable.Node) *node {
	at := start(k)
	return &node{kind: of, key: string(k.Data), file: t.file, keyAt: at, at: at, order: at}
}

func (t *tree) keyValue(n *node, e *unstable.Node) {
	for keys := e.Key(); keys.Next(); {
		k := keys.Node()
		if !keys.IsLast() {
			n = t.descend(n, k)
			continue
		}
		c := t.value(e.Value(), t.afterEquals(k))
		c.key, c.keyAt = string(k.Data), start(k)
		n.add(c)
	}
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

// value returns the node of a value, which stands at the offset at unless it says so
// itself.
func (t *tree) value(v *unstable.Node, at int) *node {
	if v.Raw.Length > 0 {
		at = start(v)
	}
	n := &node{kind: kindOf(v.Kind), text: string(v.Data), file: t.file, keyAt: at, at: at, order: at}
	for it := v.Children(); it.Next(); {
		c := it.Node()
		switch {
		case v.Kind == unstable.InlineTable:
			t.keyValue(n, c)
		case v.Kind == unstable.Array && c.Kind != unstable.Comment:
			n.items = append(n.items, t.value(c, at))
		}
	}
	return n
}

func kindOf(k unstable.Kind) kind {
	switch k {
	case unstable.String:
		return textKind
	case unstable.Integer:
		return integerKind
	case unstable.Bool:
		return boolKind
	case unstable.Array:
		return listKind
	case unstable.InlineTable:
		return tableKind
	}
	return otherKind
}

func start(n *unstable.Node) int { return int(n.Raw.Offset) }
