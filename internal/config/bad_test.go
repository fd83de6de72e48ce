package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// badFile is a file with a mistake, and what its author is told.
type badFile struct{ name, text, want string }

// badFiles is all of them.
func badFiles() []badFile {
	return slices.Concat(badSyntax(), badSource(), badPool(), badRule(), badMap(), badListen(), badProxy(), badForward(), badPorts(), badShare(), badAttach(), badDNS(), badProbe(), badWay(), badLimit(), badAdmin())
}

// TestBadFiles compares the errors letter for letter. The files they name are in
// testdata.
func TestBadFiles(t *testing.T) {
	for _, f := range badFiles() {
		t.Run(f.name, func(t *testing.T) {
			c, err := Parse("testdata/config.toml", []byte(f.text))
			if err == nil {
				t.Fatalf("no error, but %+v", c)
			}
			if diff := cmp.Diff(f.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s\ngot:\n%s", diff, err)
			}
		})
	}
}

func TestErrorFields(t *testing.T) {
	_, err := Parse("c.toml", []byte("default = \"wan\"\n[sources]\nwan = \"198.51.100.10\"\n[[rules]]\nto = \"file:none\"\nuse = \"wna\"\n"))
	var got *Error
	if !errors.As(err, &got) {
		t.Fatalf("got %T, want an *Error", err)
	}
	want := &Error{Path: "c.toml", Line: 5, Column: 6, Text: `to = "file:none"`, Message: "to: cannot read none: no such file or directory"}
	if got.Path != want.Path || got.Line != want.Line || got.Column != want.Column || got.Text != want.Text || got.Message != want.Message {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("errors.Is does not find fs.ErrNotExist")
	}
	if _, err := Load("testdata/none.toml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load: got %v, want fs.ErrNotExist", err)
	}
}

// TestManyErrors: one mistake in each of many lines is told for the first of them.
func TestManyErrors(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("default = \"kernel\"\n[sources]\n")
	for i := range 50 {
		b.WriteString("s" + strings.Repeat("x", i) + " = \"here\"\n")
	}
	_, err := Parse("c.toml", b.Bytes())
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if n := strings.Count(text, "is not an address"); n != maxErrors {
		t.Errorf("tells %d errors, want %d", n, maxErrors)
	}
	if !strings.HasSuffix(text, "\nand 30 more") {
		t.Errorf("does not end in the number of the others: %q", text[len(text)-20:])
	}
}

// TestLongLine: an error shows the part of the line that it is about.
func TestLongLine(t *testing.T) {
	list := strings.Repeat(`"a.example", `, 1000)
	_, err := Parse("c.toml", []byte("default = \"kernel\"\n[[rules]]\nto = ["+list+"\"*\", "+list+"\"b.example\"]\nuse = \"deny\"\n"))
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 4 {
		t.Fatalf("got %d lines:\n%v", len(lines), err)
	}
	if n := len(lines[1]); n > maxText+4 {
		t.Errorf("shows %d bytes of the line", n)
	}
	if caret := strings.Index(lines[2], "^"); !strings.HasPrefix(lines[1][caret:], `"*"`) {
		t.Errorf("the caret does not point at the mistake:\n%v", err)
	}
}

// TestOrderAcrossFiles: the mistakes in a list stand where the list is named.
func TestOrderAcrossFiles(t *testing.T) {
	_, err := Parse("testdata/config.toml", []byte(`default = "kernel" # and so that this file is longer than the list:
[log]
level = "loud"
[[rules]]
to = "file:lists/bad.txt"
use = "wna"
`))
	var list errorList
	if !errors.As(err, &list) {
		t.Fatalf("got %v, want several errors", err)
	}
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprintf("%s:%d", e.Path, e.Line))
	}
	want := []string{"testdata/config.toml:3", "testdata/lists/bad.txt:3", "testdata/lists/bad.txt:4", "testdata/config.toml:6"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestUDPBesideWildcard: a UDP listener on all addresses leaves the port of one of
// them to a fixed sender.
func TestUDPBesideWildcard(t *testing.T) {
	_, err := Parse("c.toml", []byte(`default = "kernel"
[[listen]]
udp = ":5060"
to = "203.0.113.5:5060"
use = "198.51.100.30"
source_port = 5060
allow = "192.0.2.0/24"
`))
	if err != nil {
		t.Error(err)
	}
}
