package config

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse: no text makes Parse panic; errors lie inside the file and are in its
// order; what Parse lets through compiles, and its warnings lie inside the file too.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, b := range badFiles() {
		f.Add([]byte(b.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Contains(text, []byte(filePrefix)) || bytes.Contains(text, []byte("users")) || bytes.Contains(text, []byte(`\`)) {
			return // must not open whatever file the fuzzer thinks of
		}
		c, err := Parse("c.toml", text)
		if err != nil {
			inside(t, text, err)
			return
		}
		if _, err := c.Table(); err != nil {
			t.Fatalf("Table: %v", err)
		}
		for _, w := range c.Warnings() {
			inside(t, text, (*Error)(&w))
		}
	})
}

func inside(t *testing.T, text []byte, err error) {
	t.Helper()
	var list errorList
	if !errors.As(err, &list) {
		var one *Error
		if !errors.As(err, &one) {
			t.Fatalf("%T: %v", err, err)
		}
		list = errorList{one}
	}
	lines := strings.Split(string(text), "\n")
	line := 0
	for _, e := range list {
		if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > utf8.RuneCountInString(lines[e.Line-1])+1 {
			t.Fatalf("outside of the file: %d:%d: %v", e.Line, e.Column, e)
		}
		if e.Line < line {
			t.Fatalf("not in the order of the file: %v", err)
		}
		line = e.Line
		if e.Message == "" {
			t.Fatalf("no message at %d:%d", e.Line, e.Column)
		}
		_ = e.Error() // for panics
	}
}

// FuzzSuggest: the distance is what its definition says it is.
func FuzzSuggest(f *testing.F) {
	f.Add("roundrobin", "round-robin")
	f.Add("", "x")
	f.Add("ab", "ba")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 8 || len(b) > 8 {
			return
		}
		if got, want := distance(a, b), slowDistance(a, b); got != want {
			t.Errorf("distance(%q, %q): got %d, want %d", a, b, got, want)
		}
	})
}

// slowDistance is distance by its recursive definition.
func slowDistance(a, b string) int {
	if a == "" || b == "" {
		return len(a) + len(b)
	}
	n, m := len(a)-1, len(b)-1
	exchange := slowDistance(a[:n], b[:m])
	if a[n] != b[m] {
		exchange++
	}
	d := min(slowDistance(a[:n], b)+1, slowDistance(a, b[:m])+1, exchange)
	if n > 0 && m > 0 && a[n] == b[m-1] && a[n-1] == b[m] {
		d = min(d, slowDistance(a[:n-1], b[:m-1])+1)
	}
	return d
}
