package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrors bounds how many errors of one file are told; one mistake can cause many.
const maxErrors = 20

// maxCollected bounds how many are looked at: each takes a walk along its line.
const maxCollected = 1000

// maxText bounds in characters how much of a line an error shows.
const maxText = 160

// An Error is one mistake in the configuration file, or in a list that it names.
type Error struct {
	Path    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Text    string // the line
	Message string // what is wrong
	Hint    string // what to do; may be empty
	Err     error  // the cause, when it is a file that cannot be read

	order int // where in the configuration file it comes from
}

// Error returns path, line, column and message; below them the line with a caret
// under the column, and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Message)
	if e.Text != "" {
		text, column := window([]rune(e.Text), e.Column-1)
		fmt.Fprintf(&b, "\n    %s\n    %s^", string(text), string(indent(text[:column])))
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n    %s", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause, so that errors.Is finds fs.ErrNotExist.
func (e *Error) Unwrap() error { return e.Err }

// window returns the part of a long line around column, and the column in it. What a
// terminal would not print in one cell is replaced.
func window(text []rune, column int) ([]rune, int) {
	column = min(max(column, 0), len(text))
	if from := column - maxText/2; from > 0 && len(text) > maxText {
		text, column = text[from:], column-from
	}
	text = slices.Clone(text[:min(len(text), maxText)])
	for i, r := range text {
		if r != '\t' && !unicode.IsPrint(r) {
			text[i] = utf8.RuneError
		}
	}
	return text, column
}

// indent returns blanks as wide as text; tabs stay, since only the terminal knows
// their width.
func indent(text []rune) []rune {
	out := slices.Repeat([]rune{' '}, len(text))
	for i, r := range text {
		if r == '\t' {
			out[i] = '\t'
		}
	}
	return out
}

// errorList is the mistakes of one file, in its order.
type errorList []*Error

func (l errorList) Error() string {
	var b strings.Builder
	for i, e := range l {
		if i == maxErrors {
			fmt.Fprintf(&b, "\nand %d more", len(l)-maxErrors)
			if len(l) == maxCollected {
				b.WriteString(" or above")
			}
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

func (l errorList) Unwrap() []error {
	out := make([]error, len(l))
	for i, e := range l {
		out[i] = e
	}
	return out
}

// err returns the list as an error: nil, the only *Error, or all of them.
func (l errorList) err() error {
	switch len(l) {
	case 0:
		return nil
	case 1:
		return l[0]
	}
	slices.SortStableFunc(l, func(a, b *Error) int { return cmp.Compare(a.order, b.order) })
	return l
}

// A Warning is something that the file allows and its author may not have meant. It
// has the fields and the format of an Error.
type Warning Error

// String returns the warning in the format of an Error.
func (w Warning) String() string { return (*Error)(&w).Error() }

// file is a text in which errors have a place.
type file struct {
	path   string
	text   []byte
	shown  string // the text once more: errors share it
	starts []int  // where the lines begin
}

func newFile(path string, text []byte) *file {
	f := &file{path: path, text: text, shown: string(text), starts: []int{0}}
	for i, c := range text {
		if c == '\n' {
			f.starts = append(f.starts, i+1)
		}
	}
	return f
}

// line returns the number of the line that holds the byte at offset, from 1.
func (f *file) line(offset int) int {
	i, exact := slices.BinarySearch(f.starts, offset)
	if exact {
		return i + 1
	}
	return i
}

// place returns an Error that points at the character at offset.
func (f *file) place(offset int) *Error {
	offset = min(max(offset, 0), len(f.text))
	for offset > 0 && offset < len(f.text) && !utf8.RuneStart(f.text[offset]) {
		offset-- // go-toml may point into the middle of a character
	}
	line := f.line(offset)
	start := f.starts[line-1]
	text, _, _ := strings.Cut(f.shown[start:], "\n")
	return &Error{
		Path:   f.path,
		Line:   line,
		Column: utf8.RuneCount(f.text[start:offset]) + 1,
		Text:   strings.TrimSuffix(text, "\r"),
		order:  offset,
	}
}
