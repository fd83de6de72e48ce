package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func badAdmin() []badFile {
	long := strings.Repeat("x", 99)
	return []badFile{
		{"admin with an unknown key", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
[admin]
sockets = "admin.sock"
`, `testdata/config.toml:5:1: [admin] has no key "sockets"
    sockets = "admin.sock"
    ^
    did you mean "socket"?`},
		{"admin as a text", `default = "kernel"
admin = "admin.sock"
[[listen]]
mixed = "127.0.0.1:1080"
`, `testdata/config.toml:2:9: admin: want a table: [admin], got text
    admin = "admin.sock"
            ^`},
		{"empty socket", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
[admin]
socket = ""
`, `testdata/config.toml:5:10: socket is empty
    socket = ""
             ^
    write a value, or leave the key out`},
		{"long socket", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
[admin]
socket = "` + long + `"
`, `testdata/config.toml:5:10: socket: the path has 108 bytes, and a unix socket's has at most 107
    socket = "` + long + `"
             ^
    choose a shorter one: "/run/srcproxy/admin.sock"`},
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	for _, tt := range []struct{ name, text, want string }{
		{"none", "default = \"kernel\"\n[admin]\n", ""},
		{"relative", "[admin]\nsocket = \"admin.sock\"\n", filepath.Join(dir, "admin.sock")},
		{"absolute", "[admin]\nsocket = \"/run/a.sock\"\n", "/run/a.sock"},
		{"mistakes elsewhere", "defaullt = 3\n[admin]\nsocket = \"/run/a.sock\"\nsockets = 7\n", "/run/a.sock"},
		{"a mistake there", "[admin]\nsocket = 3\n", ""},
		{"no table", "admin = 3\n", ""},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Socket(path); got != tt.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	if err := os.WriteFile(path, []byte("default =\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Socket(path); err == nil || !strings.Contains(err.Error(), "config.toml:1:") {
		t.Errorf("no TOML: got %v", err)
	}
}

// TestSum: the files that are named count as well.
func TestSum(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum := func() string {
		t.Helper()
		c, err := Load(filepath.Join(dir, "config.toml"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Sum()
	}
	text := "default = \"kernel\"\n[[rules]]\nto = \"file:list\"\nuse = \"deny\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n"
	write("config.toml", text)
	write("list", "a.example\n")
	first := sum()
	if again := sum(); again != first || len(first) != 64 {
		t.Errorf("got %q and %q, want the same hash", first, again)
	}
	write("list", "b.example\n")
	second := sum()
	write("config.toml", text+"\n")
	if third := sum(); first == second || second == third {
		t.Errorf("got %q, %q, %q, want three hashes", first, second, third)
	}
	if s := Default().Sum(); s != "" {
		t.Errorf("the built-in configuration has the sum %q", s)
	}
}
