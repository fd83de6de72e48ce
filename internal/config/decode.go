package config

import (
	"fmt"
	"hash"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/srcproxy/srcproxy/dialer"
)

// decoder reads the tree of one file into a Config and collects what is wrong.
type decoder struct {
	file     *file
	config   *Config
	errs     errorList
	moved    bool // a `default` was found where it does not belong
	names    []string
	uses     map[string]dialer.Use
	literals map[netip.Addr]*dialer.Source
	leads    map[int]*node // `to` of the listener at that place
	senders  []endpoint    // what forwards with a fixed port send from
	sum      hash.Hash     // of all that is read

	words       []string // see useWords
	sourceWords []string // see sourceNames
	compared    int      // names that meant has looked at
}

// fault reports what is wrong at the value of n, and what to do.
func (d *decoder) fault(n *node, hint, format string, args ...any) {
	d.report(n, n.at, nil, hint, format, args...)
}

// faultKey does so at the key of n.
func (d *decoder) faultKey(n *node, hint, format string, args ...any) {
	d.report(n, n.keyAt, nil, hint, format, args...)
}

// report reports what is wrong at an offset of the file of n, with the cause if it is
// another error.
func (d *decoder) report(n *node, offset int, cause error, hint, format string, args ...any) {
	if len(d.errs) == maxCollected {
		return
	}
	e := n.file.place(offset)
	e.Message, e.Hint, e.Err = shorten(fmt.Sprintf(format, args...)), shorten(hint), cause
	if n.file != d.file {
		e.order = n.order
	}
	d.errs = append(d.errs, e)
}

// shorten cuts what repeats an absurdly long value.
func shorten(s string) string {
	const most = 500
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// tree returns the root of the tree of the file, or as an *Error the first mistake in
// its encoding or syntax.
func (f *file) tree() (*node, error) {
	if i := invalidUTF8(f.text); i >= 0 {
		e := f.place(i)
		e.Message, e.Hint = "the file is not UTF-8", "save it in UTF-8"
		return nil, e
	}
	return parseTree(f)
}

// syntaxError returns an Error at an offset, with a guess at the cure.
func (f *file) syntaxError(offset int, message string) error {
	e := f.place(offset)
	e.Message = shorten(message)
	e.Hint = shorten(syntaxHint(e))
	return e
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// syntaxHint guesses what the author of a line that is not TOML meant.
func syntaxHint(e *Error) string {
	name, value, found := strings.Cut(e.Text, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case strings.HasPrefix(e.Text, "\ufeff"):
		return "save the file without a byte order mark"
	case strings.Contains(e.Message, "already"):
		return "remove one of the two"
	case found && strings.ContainsAny(name, "*/:") && !strings.ContainsAny(name, `"'[{`):
		return fmt.Sprintf("quote the key: %q = %s", name, value)
	case found && value != "" && !strings.ContainsAny(value, `"'[]{}#`) && !strings.ContainsAny(name, `"'[{`):
		return fmt.Sprintf("quote the text: %s = %q", name, value)
	case strings.Contains(e.Message, "new lines"):
		return "close the quotes at the end of the text"
	case strings.Contains(e.Message, "escape"):
		return `write \\ for a backslash, or put the text in single quotes`
	case found && value == "":
		return "write a value after the equals sign"
	}
	return ""
}

// text returns a string, and whether n is one that is not empty.
func (d *decoder) text(n *node) (string, bool) {
	switch {
	case n == nil:
		return "", false
	case n.kind != textKind:
		d.mismatch(n)
		return "", false
	case n.text == "":
		d.fault(n, "write a value, or leave the key out", "%s is empty", n.spec.name)
		return "", false
	}
	return n.text, true
}

// word returns the place of a string among words.
func (d *decoder) word(n *node, words ...string) (int, bool) {
	s, ok := d.text(n)
	if !ok {
		return 0, false
	}
	i := slices.Index(words, s)
	if i < 0 {
		d.fault(n, d.meant(s, words, "one of:"), "%s: %q is not known", n.spec.name, s)
	}
	return i, i >= 0
}

func (d *decoder) boolean(n *node, otherwise bool) bool {
	if n == nil {
		return otherwise
	}
	if n.kind != boolKind {
		d.mismatch(n)
		return otherwise
	}
	return n.text == "true"
}

// integer returns an integer between lowest and highest.
func (d *decoder) integer(n *node, lowest, highest int64) (int64, bool) {
	if n == nil {
		return 0, false
	}
	if n.kind != integerKind {
		d.mismatch(n)
		return 0, false
	}
	v, err := strconv.ParseInt(strings.TrimPrefix(n.text, "+"), 0, 64)
	if err != nil || v < lowest || v > highest {
		d.fault(n, "", "%s: %s is not between %d and %d", n.spec.name, n.text, lowest, highest)
		return 0, false
	}
	return v, true
}

// duration returns a duration between lowest and longest, or otherwise.
func (d *decoder) duration(n *node, lowest, otherwise time.Duration) time.Duration {
	if n == nil {
		return otherwise
	}
	if n.kind == integerKind {
		d.fault(n, fmt.Sprintf("write %s = %q for seconds", n.spec.name, n.text+"s"), "%s: want %s, got %s", n.spec.name, n.spec.want, n.kind)
		return otherwise
	}
	s, ok := d.text(n)
	if !ok {
		return otherwise
	}
	v, err := time.ParseDuration(s)
	switch {
	case err != nil:
		d.fault(n, durationHint(s), "%s: %q is not a duration", n.spec.name, s)
	case v < lowest:
		d.fault(n, "", "%s: %s is too short; the least is %s", n.spec.name, s, lowest)
	case v > longest:
		d.fault(n, "", "%s: %s is too long; the most is %s", n.spec.name, s, longest)
	default:
		return v
	}
	return otherwise
}

// longest is the longest duration: some 20 days, what TCP_USER_TIMEOUT, an int of
// milliseconds, can hold.
const longest = 480 * time.Hour

func durationHint(s string) string {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(days)); err == nil && n < 1000 {
			return fmt.Sprintf("write days as hours: \"%dh\"", n*24)
		}
	}
	if _, err := strconv.Atoi(s); err == nil {
		return fmt.Sprintf("write the unit: %q", s+"s")
	}
	return `units are ms, s, m and h: "500ms", "30s", "1h30m"`
}

// strings returns the elements of a string or a list of strings, those of "file:"
// elements read from their file. A list that is empty is reported: as a condition it
// would hold for everything.
func (d *decoder) strings(n *node) []*node {
	return d.elements(n, textKind)
}

// elements returns the elements of a value or a list of values. Those that are of
// none of the kinds are reported.
func (d *decoder) elements(n *node, kinds ...kind) []*node {
	if n == nil {
		return nil
	}
	items := []*node{n}
	if n.kind == listKind {
		items = n.items
		if len(items) == 0 {
			d.fault(n, "write an element, or leave the key out", "%s is an empty list", n.spec.name)
		}
	}
	var out []*node
	for _, c := range items {
		c.spec = n.spec
		switch {
		case !slices.Contains(kinds, c.kind):
			d.mismatch(c)
		case c.kind == textKind && strings.HasPrefix(c.text, filePrefix):
			out = append(out, d.listFile(c)...)
		case c.kind == textKind && c.text == "":
			d.fault(c, "remove it", "%s has an empty element", n.spec.name)
		default:
			out = append(out, c)
		}
	}
	return out
}

// path returns a file name relative to the directory of the configuration file.
func (d *decoder) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.file.path), name)
}
