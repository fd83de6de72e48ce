package explain

import (
	"strings"
	"unicode/utf8"
)

// A Style says how text looks. The zero value is plain.
type Style struct {
	Color bool // with the control sequences of ECMA-48
}

// paint is a colour, as the parameter of SGR.
type paint string

const (
	plain  paint = ""
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
	faint  paint = "2"
)

func (s Style) paint(p paint, text string) string {
	if !s.Color || p == plain || text == "" {
		return text
	}
	return "\x1b[" + string(p) + "m" + text + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text  string
	paint paint
}

// table prints rows with aligned columns, indented. Columns that are empty in all rows
// take no room.
func (s Style) table(b *strings.Builder, indent string, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for len(widths) < len(row) {
			widths = append(widths, 0)
		}
		for i, c := range row[:lastColumn(row)] { // the last one may be as long as it likes
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		b.WriteString(strings.TrimRight(indent+s.row(row, widths), " "))
		b.WriteByte('\n')
	}
}

// lastColumn returns the place of the last cell that is not empty, or 0.
func lastColumn(row []cell) int {
	for i := len(row) - 1; i > 0; i-- {
		if row[i].text != "" {
			return i
		}
	}
	return 0
}

func (s Style) row(row []cell, widths []int) string {
	var b strings.Builder
	blank := 0
	for i, c := range row {
		if c.text != "" {
			b.WriteString(strings.Repeat(" ", blank))
			b.WriteString(s.paint(c.paint, c.text))
			blank = 0
		}
		if widths[i] > 0 {
			blank += widths[i] - utf8.RuneCountInString(c.text) + 3
		}
	}
	return b.String()
}

// Alarm returns text as something that is wrong.
func (s Style) Alarm(text string) string { return s.paint(red, text) }
