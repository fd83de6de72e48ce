package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	example = "../../config.toml.example"
	readme  = "../../README.md"
)

// off is a key of the example that is commented out.
var off = regexp.MustCompile(`(?m)^#(\w+ *= )`)

func TestExample(t *testing.T) {
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Table(); err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings() {
		t.Errorf("unwanted warning: %v", w)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(strings.Split(string(text), "\n"), func(l string) bool { return len(l) > 110 }); i >= 0 {
		t.Errorf("line %d is longer than 110", i+1)
	}
}

// TestExampleInFull takes every # away.
func TestExampleInFull(t *testing.T) {
	path := writeExample(t)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings() {
		t.Errorf("unwanted warning: %v", w)
	}
}

func writeExample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"config.toml":       off.ReplaceAll(text, []byte("$1")),
		"users":             []byte("crawler:$2y$10$x\n"),
		"lists/crawled.txt": []byte("a.example\n"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config.toml")
}

// TestExampleHasEveryKey compares the keys of the example with the schema; that it
// has no other keys is what Parse makes sure of.
func TestExampleHasEveryKey(t *testing.T) {
	path := writeExample(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := parseTree(newFile(path, text))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	collect(seen, root, topTable)
	for _, k := range []string{"limits", "timeouts", "dns", "log", "admin"} {
		collect(seen, root.child(k), table(k))
	}
	for _, k := range []string{"rules", "listen", "attach"} {
		for _, n := range root.child(k).items {
			collect(seen, n, table(k))
		}
	}
	for k, of := range map[string]table{"sources": sourceTable, "pools": poolTable} {
		for _, n := range root.child(k).items {
			collect(seen, n, of)
		}
	}
	for _, k := range []string{"per_source", "per_client", "per_user"} {
		collect(seen, root.child("limits").child(k), boundTable)
	}
	for _, n := range root.child("sources").items {
		if p := n.child("probe"); p != nil {
			collect(seen, p, probeTable)
		}
	}
	for of := range schema {
		for _, k := range of.names() {
			if !seen[fmt.Sprintf("%s %s", of, k)] {
				t.Errorf("the example lacks %q of table %q", k, of)
			}
		}
	}
}

func collect(seen map[string]bool, n *node, of table) {
	for _, c := range n.items {
		seen[fmt.Sprintf("%s %s", of, c.key)] = true
	}
}

// TestExampleShowsDefaults: what stands in the last part of the example are the defaults.
func TestExampleShowsDefaults(t *testing.T) {
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	d := Default()
	if c.Limits != d.Limits || c.Timeouts != d.Timeouts || c.Log != d.Log || c.PreferIPv4 != d.PreferIPv4 || !reflect.DeepEqual(c.DNS, d.DNS) {
		t.Errorf("got %+v %+v %+v %+v, want %+v %+v %+v %+v", c.Limits, c.Timeouts, c.DNS, c.Log, d.Limits, d.Timeouts, d.DNS, d.Log)
	}
}

var block = regexp.MustCompile("(?ms)^```toml\n(.*?)^```")

// TestDocuments parses the toml blocks of README.md and of docs: each is a whole
// configuration, whose users file, if it has one, is named users.
func TestDocuments(t *testing.T) {
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "users"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range append(paths, readme) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range block.FindAllSubmatchIndex(text, -1) {
			n++
			// Blank lines before it keep the numbers of the lines those of the document.
			before := bytes.Count(text[:b[2]], []byte("\n"))
			in := append(bytes.Repeat([]byte("\n"), before), text[b[2]:b[3]]...)
			if _, err := Parse(filepath.Join(dir, filepath.Base(path)), in); err != nil {
				t.Error(err)
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d blocks were found", n)
	}
}
