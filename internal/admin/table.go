package admin

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/srcproxy/srcproxy/internal/explain"
)

// column is one of a table.
type column struct {
	title string
	right bool // numbers stand below each other
}

// cell is one field of a table.
type cell struct {
	text  string
	alarm bool // it is something that is wrong
}

func plain(text string) cell { return cell{text: text} }

// blanks stands between columns.
const blanks = 3

// table prints rows below the titles, and nothing when there are none. Columns that are
// empty in all rows are left out, and the titles where no column has one.
func table(b *strings.Builder, style explain.Style, columns []column, rows [][]cell) {
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(columns))
	last := 0
	for i, c := range columns {
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
		if widths[i] > 0 {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.title))
			last = i
		}
	}
	titles := make([]cell, len(columns))
	titled := false
	for i, c := range columns {
		titles[i] = plain(c.title)
		titled = titled || c.title != ""
	}
	if titled {
		rows = append([][]cell{titles}, rows...)
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row[:last+1] {
			if widths[i] > 0 {
				c.write(&line, style, columns[i].right, widths[i])
			}
			if widths[i] > 0 && i < last {
				line.WriteString(strings.Repeat(" ", blanks))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func (c *cell) write(b *strings.Builder, style explain.Style, right bool, width int) {
	pad := strings.Repeat(" ", width-utf8.RuneCountInString(c.text))
	text := c.text
	if c.alarm {
		text = style.Alarm(text)
	}
	if right {
		text = pad + text
	} else {
		text += pad
	}
	b.WriteString(text)
}

// health prints what is wrong.
func health(b *strings.Builder, style explain.Style, lines []string) {
	for _, l := range lines {
		b.WriteString(style.Alarm("# Health: "+l) + "\n")
	}
	if len(lines) == 0 {
		b.WriteString("# Health: fine\n")
	}
}

// firstLine returns the first line of a text that may have several.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// at writes a time as those who are awake read it.
func at(t time.Time) string {
	t = t.Local()
	if now := time.Now(); now.YearDay() == t.YearDay() && now.Year() == t.Year() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// length writes a duration with two units at most.
func length(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return units(d, time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "m")
	}
	return units(d, 24*time.Hour, "d", time.Hour, "h")
}

func units(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		s += fmt.Sprintf("%d%s", rest, smallName)
	}
	return s
}

// seconds is a duration of the API.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// amount writes a number with a prefix of the SI: 88.1 MB, 3.2 Mb/s.
func amount(n float64, unit string) string {
	if n < 0.5 {
		return "0"
	}
	for _, prefix := range []string{"", "k", "M", "G", "T"} {
		if n < 999.95 || prefix == "T" {
			if prefix == "" {
				return strconv.FormatFloat(n, 'f', 0, 64) + " " + unit
			}
			return strconv.FormatFloat(n, 'f', 1, 64) + " " + prefix + unit
		}
		n /= 1000
	}
	return ""
}

// rate writes a number per time: whole ones without a point.
func rate(n float64) string {
	if n == 0 {
		return "0"
	}
	return strconv.FormatFloat(n, 'f', 1, 64)
}

// limited writes what is used of how much.
func (u Usage) String() string {
	if u.Max == 0 {
		return strconv.Itoa(u.Used)
	}
	return fmt.Sprintf("%d of %d", u.Used, u.Max)
}
