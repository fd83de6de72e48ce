package ruleset

import "strings"

// names finds the value of the pattern that covers a name most closely: the name itself, else its longest suffix. The
// zero names is empty.
type names struct {
	exact  map[string]int32
	below  map[string]int32
	labels int // the most labels a key of below has: longer suffixes of a name need not be tried
}

func (n *names) insertExact(name string, v int32) {
	if n.exact == nil {
		n.exact = make(map[string]int32)
	}
	n.exact[name] = v
}

func (n *names) insertBelow(name string, v int32) {
	if n.below == nil {
		n.below = make(map[string]int32)
	}
	n.below[name] = v
	n.labels = max(n.labels, 1+strings.Count(name, "."))
}

// lookup returns 0 where no pattern covers name.
func (n *names) lookup(name string) int32 {
	v, _ := n.find(name)
	return v
}

func (n *names) find(name string) (int32, bool) {
	if v, ok := n.exact[name]; ok {
		return v, true
	}
	for suffix, ok := longest(name, n.labels); ok; suffix, ok = parent(suffix) {
		if v, ok := n.below[suffix]; ok {
			return v, true
		}
	}
	return 0, false
}

// longest returns the longest suffix of name that has at most the given number of labels and something before it.
func longest(name string, labels int) (string, bool) {
	at := len(name)
	for range labels {
		dot := strings.LastIndexByte(name[:at], '.')
		if dot <= 0 {
			break
		}
		at = dot
	}
	if at == len(name) {
		return "", false
	}
	return name[at+1:], true
}

// parent returns what follows the first label of name.
func parent(name string) (string, bool) {
	_, rest, ok := strings.Cut(name, ".")
	return rest, ok
}
