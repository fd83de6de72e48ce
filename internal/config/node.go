package config

import "github.com/pelletier/go-toml/v2/unstable"

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
	origin origin
	byKey  map[string]*node
}

// origin is how a value came to be. It decides what may be added below the value.
type origin uint8

const (
	byValue  origin = iota // by an equals sign, or as an element: nothing can be added
	byDots                 // a table on the way of a key with dots: more such keys, and headers below it
	byPath                 // a table on the way of a header: its own header, and headers below it
	byHeader               // by its own [key] or [[key]]
)

// dotted reports a table that no header and no braces opened: a dot in a key made it.
func (n *node) dotted() bool { return n.origin == byDots || n.origin == byPath }

// child returns what stands under k in a table, or nil.
func (n *node) child(k string) *node { return n.byKey[k] }

func (n *node) add(c *node) {
	if n.byKey == nil {
		n.byKey = make(map[string]*node)
	}
	n.byKey[c.key] = c
	n.items = append(n.items, c)
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
