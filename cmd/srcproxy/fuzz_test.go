package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/srcproxy/srcproxy/internal/config"
)

func FuzzDestination(f *testing.F) {
	for _, s := range []string{"example.com:443", "[2001:db8::1]:25", "192.0.2.1", "[::1", "a:b:c", "http://x", ":1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, dst, err := destination(s)
		if err != nil {
			return
		}
		if (name == "") != dst.Addr().IsValid() {
			t.Errorf("%q: got the name %q and the address %v", s, name, dst.Addr())
		}
		if strings.ContainsAny(name, " /:[]@") {
			t.Errorf("%q: got the name %q", s, name)
		}
	})
}

// FuzzQuote looks for text that does not come out of TOML as it went in.
func FuzzQuote(f *testing.F) {
	f.Add("a \"b\" \\c\\ \t\x01\x7f ü €")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || s == "" || s == "default" {
			return // not a name that TOML or a rule can have
		}
		cfg, err := config.Parse("x", []byte("default = \"kernel\"\n[[rules]]\nname = "+quote(s)+"\nuse = \"deny\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Rules[0].Name; got != s {
			t.Errorf("got %q, want %q", got, s)
		}
	})
}
