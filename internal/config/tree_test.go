package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	toml "github.com/pelletier/go-toml/v2"
)

// defined is texts that define something, most of them twice, and what they are told;
// nothing where TOML allows it.
var defined = []struct{ name, text, want string }{
	{"key twice", "a = 1\na = 2", "2:1: key a is already defined, in line 1"},
	{"key twice in two spellings", "a = 1\n\"\\u0061\" = 2", "2:1: key a is already defined, in line 1"},
	{"dotted key twice", "a.b = 1\na.b = 2", "2:1: key b is already defined, in line 1"},
	{"dotted keys of one table", "a.b = 1\na.c = 2", ""},
	{"dotted key below a value", "a = 1\na.b = 2", "2:1: key a is already defined, in line 1"},
	{"dotted key below an inline table", "a = { b = 1 }\na.c = 2", "2:1: key a is already defined, in line 1"},
	{"value over a dotted key", "a.b = 1\na = 2", "2:1: key a is already defined, in line 1"},
	{"dotted key into the table of a header", "[a.b]\n[a]\nb.c = 1", "3:1: key b is already defined, in line 1"},
	{"table twice", "[a]\n[b]\n[a]", "3:2: table a already exists, in line 1"},
	{"table below, then above", "[a.b]\n[a]\nc = 1", ""},
	{"table above, below, above", "[a]\n[a.b]\n[a]", "3:2: table a already exists, in line 1"},
	{"key over a table below", "[a.b]\n[a]\nb = 1", "3:1: key b is already defined, in line 1"},
	{"table over a value", "a = 1\n[a]", "2:2: key a already exists as a value, in line 1"},
	{"table below a value", "a = 1\n[a.b]", "2:2: key a already exists as a value, in line 1"},
	{"table below an inline table", "a = { b = 1 }\n[a.c]", "2:2: key a already exists as a value, in line 1"},
	{"table below a list", "a = [{ b = 1 }]\n[a.c]", "2:2: key a already exists as a value, in line 1"},
	{"table over a dotted key", "[a]\nb.c = 1\n[a.b]", "3:2: table b already exists as defined by a dotted key, in line 2"},
	{"table below a dotted key", "[a]\nb.c = 1\n[a.b.d]", ""},
	{"table over an array", "[[a]]\n[a]", "2:2: table a already exists as an array of tables, in line 1"},
	{"array over a table", "[a]\n[[a]]", "2:3: key a already exists as a table, in line 1"},
	{"array over a dotted key", "[a]\nb.c = 1\n[[a.b]]", "3:3: key b already exists as a table, in line 2"},
	{"array over a table that a header made", "[a.b]\n[[a]]", "2:3: key a already exists as a table, in line 1"},
	{"array over a value", "a = []\n[[a]]", "2:3: key a already exists as a value, in line 1"},
	{"array below a value", "a = 1\n[[a.b]]", "2:3: key a already exists as a value, in line 1"},
	{"elements", "[[a]]\nb = 1\n[[a]]\nb = 2", ""},
	{"table twice in an element", "[[a]]\n[a.b]\n[a.b]", "3:2: table b already exists, in line 2"},
	{"table once in each element", "[[a]]\n[a.b]\n[[a]]\n[a.b]", ""},
	{"array in an element", "[[a]]\n[[a.b]]\n[[a.b]]\n[[a]]\n[a.b]", ""},
	{"inline key twice", "a = { b = 1, b = 2 }", "1:14: key b is already defined, in line 1"},
	{"inline dotted keys", "a = { b.c = 1, b.d = 2 }", ""},
	{"inline dotted key below a value", "a = { b = 1, b.c = 2 }", "1:14: key b is already defined, in line 1"},
	{"inline key over a dotted key", "a = { b.c = 1, b = 2 }", "1:16: key b is already defined, in line 1"},
	{"inline keys in a list", "a = [{ b = 1 }, { b = 2 }]", ""},
	{"inline key twice in a list", "a = [[{ b = 1 }, { c = 1, c = 2 }]]", "1:27: key c is already defined, in line 1"},
	{"inline table over inline table", "a = { b = { c = 1 }, b = { d = 2 } }", "1:22: key b is already defined, in line 1"},
	{"twice comes before what is wrong with a number", "a = 1\na = 99999999999999999999", "2:1: key a is already defined, in line 1"},
	{"syntax comes before twice", "a = 1\na = x", "2:5: unexpected character U+0078 'x' at start of value"},
	{"large number", "a = [1, 99999999999999999999]", "1:9: decimal number is too large to fit in a 64-bit signed integer"},
	{"large number in an inline table", "a = { b = 0xfffffffffffffffff }", "1:11: hexadecimal number is too large to fit in a 64-bit signed integer"},
	{"large float", "a = 1e999", `1:5: unable to parse float: strconv.ParseFloat: parsing "1e999": value out of range`},
	{"date", "a = 2026-02-30", "1:13: impossible date"},
	{"time", "a = 24:00:00", "1:5: hour cannot be greater 23"},
}

func TestDefinedTwice(t *testing.T) {
	for _, c := range defined {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if _, err := newFile("", []byte(c.text)).tree(); err != nil {
				line, _, _ := strings.Cut(err.Error(), "\n")
				got = strings.TrimPrefix(line, ":")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			twin(t, []byte(c.text))
		})
	}
}

// twin compares the tree of a text with what toml.Unmarshal makes of it.
func twin(t *testing.T, text []byte) {
	t.Helper()
	var want map[string]any
	wantErr := toml.Unmarshal(text, &want)
	root, err := newFile("", text).tree()
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("got %v, want %v", err, wantErr)
	}
	if err == nil {
		if diff := difference(root, want); diff != "" {
			t.Fatal(diff)
		}
		return
	}
	var at *toml.DecodeError
	if !errors.As(wantErr, &at) {
		t.Fatalf("got %v, want %v", err, wantErr)
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	if invalidUTF8(text) >= 0 {
		return // is said before anything else
	}
	if m := message(at); !strings.HasPrefix(e.Message, m) {
		t.Errorf("got %q, want %q", e.Message, m)
	}
	line, column := at.Position()
	f := newFile("", text)
	wantAt := f.starts[line-1] + column - 1
	if w := f.place(wantAt); (e.Line != w.Line || e.Column != w.Column) && !bytes.ContainsRune(text[wantAt:e.order], '{') {
		t.Errorf("got %d:%d, want %d:%d: %s", e.Line, e.Column, w.Line, w.Column, e.Message)
	}
}

// message returns a message of toml.Unmarshal in the words of ours.
func message(e *toml.DecodeError) string {
	m := strings.TrimPrefix(e.Error(), "toml: ")
	m = strings.TrimSuffix(m, ", but should be an array table")
	m = strings.Replace(m, "should be a table, not a value", "already exists as a value", 1)
	m = strings.Replace(m, "already exists as a kv-table", "already exists as a table", 1)
	return strings.TrimSuffix(shorten(m), "...")
}

// difference returns where a tree and the value of toml.Unmarshal differ.
func difference(n *node, want any) string {
	differ := fmt.Sprintf("%s: got %s %q, want %v", n.key, n.kind, n.text, want)
	switch want := want.(type) {
	case map[string]any:
		if n.kind != tableKind || len(n.items) != len(want) || len(n.byKey) != len(want) {
			return differ
		}
		for _, c := range n.items {
			v, ok := want[c.key]
			if !ok || n.child(c.key) != c {
				return fmt.Sprintf("%s: got key %q, want %v", n.key, c.key, want)
			}
			if d := difference(c, v); d != "" {
				return d
			}
		}
		return ""
	case []any:
		if n.kind != listKind || len(n.items) != len(want) {
			return differ
		}
		for i, c := range n.items {
			if d := difference(c, want[i]); d != "" {
				return d
			}
		}
		return ""
	case string:
		if n.kind == textKind && n.text == want {
			return ""
		}
	case bool:
		if n.kind == boolKind && n.text == fmt.Sprint(want) {
			return ""
		}
	case int64:
		if n.kind == integerKind {
			return ""
		}
	default:
		if n.kind == otherKind {
			return ""
		}
	}
	return differ
}

// FuzzTree: the tree is what toml.Unmarshal makes of a text, and so are the errors.
func FuzzTree(f *testing.F) {
	text, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, c := range defined {
		f.Add([]byte(c.text))
	}
	for _, b := range badSyntax() {
		f.Add([]byte(b.text))
	}
	f.Fuzz(twin)
}

// twins is what TestTwin makes texts of: few keys, so that they meet.
var twins = []string{
	"[a]\n", "[b]\n", "[a.b]\n", "[a.b.c]\n", "[[a]]\n", "[[b]]\n", "[[a.b]]\n", "[[a.b.c]]\n", "[b.a]\n",
	"a = 1\n", "b = 'x'\n", "a.b = 1\n", "a.c = 2\n", "b.a = 1\n", "a.b.c = 3\n", "c = 2026-01-02\n",
	"a = { b = 1 }\n", "a = { b.c = 1, b.a = 2 }\n", "b = { a = 1, a.b = 2 }\n", "b = [{ a = 1 }, { a = 2 }]\n",
	"c = [[], [{ b = 1, b = 1 }]]\n", "c = true\n",
}

// TestTwin compares tree and twin over all texts of three lines, and some longer ones.
func TestTwin(t *testing.T) {
	n := len(twins)
	for i := range n * n * n {
		twin(t, []byte(twins[i%n]+twins[i/n%n]+twins[i/n/n]))
	}
	for i := range 5_000 {
		var text []byte
		for x := uint64(i+1) * 0x9e3779b97f4a7c15; len(text) < 60; x = x<<13 ^ x>>7 ^ x {
			text = append(text, twins[x>>20%uint64(n)]...)
		}
		twin(t, text)
	}
}
