package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// large is files that are long in one way each, as the text before, and the line of
// each i.
var large = []struct{ name, before, line string }{
	{"map", "[[rules]]\n[rules.map]\n", "\"n%d.example\" = \"deny\"\n"},
	{"rules", "", "[[rules]]\nto = \"n%d.example\"\nuse = \"deny\"\n"},
	{"list", "[[rules]]\nto = \"file:list\"\nuse = \"deny\"\n", "# %d\n"},
	{"headers", "", "[sources.s%d]\nip = \"198.51.100.10\"\n"},
	{"pool", "[pools]\np = { of = \"file:list\" }\n", "# %d\n"},
	{"use that is not there", "", "[sources.s%[1]d]\nip = \"198.51.100.10\"\n[[rules]]\nuse = \"t%[1]d\"\n"},
}

// lines returns n lines.
func lines(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// parseLarge parses a file with n lines, and a list beside it with n addresses.
func parseLarge(tb testing.TB, dir, text string, n int) {
	tb.Helper()
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
	}
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte(list.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	_, err := Parse(filepath.Join(dir, "c.toml"), []byte(text))
	if wrong := strings.Contains(text, "use = \"t"); (err != nil) != wrong {
		tb.Fatal(err)
	}
}

// TestLarge: the time grows as the file does. The bound is some ten times what is
// needed with the race detector, and less than it takes to look at all pairs of lines.
func TestLarge(t *testing.T) {
	const n, most = 100_000, 60 * time.Second
	for _, l := range large {
		t.Run(l.name, func(t *testing.T) {
			text := "default = \"kernel\"\n" + l.before + lines(n, l.line)
			before := processorTime(t)
			parseLarge(t, t.TempDir(), text, n)
			took := processorTime(t) - before
			t.Logf("%v for %d lines", took, strings.Count(text, "\n"))
			if took > most {
				t.Errorf("took %v, want at most %v", took, most)
			}
		})
	}
}

// processorTime returns what the process has used, which does not depend on what else
// the machine does.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkParse(b *testing.B) {
	const n = 100_000
	for _, l := range large {
		b.Run(l.name, func(b *testing.B) {
			dir := b.TempDir()
			text := "default = \"kernel\"\n" + l.before + lines(n, l.line)
			b.ReportAllocs()
			for b.Loop() {
				parseLarge(b, dir, text, n)
			}
		})
	}
}
