package explain

import (
	"strings"
	"unicode/utf8"
)

// The columns of a diagnosis.
const (
	gradeWidth   = 6
	subjectWidth = 13   // at least
	textWidth    = 84   // where lines are broken, but for commands
	cureIndent   = "  " // of commands below the text
)

// Text returns the diagnosis for people, with a line feed at its end: a line or more for
// each test, and the cures as commands below.
func (d *Diagnosis) Text(s Style) string {
	width := subjectWidth
	for _, t := range d.Tests {
		width = max(width, utf8.RuneCountInString(t.Subject)+2)
	}
	var b strings.Builder
	for i := range d.Tests {
		d.Tests[i].write(&b, s, width)
	}
	return b.String()
}

// paint is the colour of a grade.
func (g Grade) paint() paint {
	switch g {
	case Failing:
		return red
	case Doubt:
		return yellow
	}
	return green
}

// write writes a test whose text begins behind a subject of that width.
func (t *Test) write(b *strings.Builder, s Style, width int) {
	text := t.Text
	if len(t.Cure) > 0 && t.Hint == "" {
		text += ". Cure:"
	}
	indent := strings.Repeat(" ", gradeWidth+width)
	b.WriteString(s.paint(t.Grade.paint(), string(t.Grade)))
	b.WriteString(strings.Repeat(" ", gradeWidth-len(t.Grade)))
	b.WriteString(t.Subject + strings.Repeat(" ", width-utf8.RuneCountInString(t.Subject)))
	b.WriteString(strings.Join(broken(text), "\n"+indent) + "\n")
	if t.Hint != "" {
		b.WriteString(indent + strings.Join(broken(t.Hint), "\n"+indent) + "\n")
	}
	for _, c := range t.Cure {
		b.WriteString(indent + cureIndent + c.Run + "\n")
	}
}

// broken breaks text into lines of textWidth, where it has spaces.
func broken(text string) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
