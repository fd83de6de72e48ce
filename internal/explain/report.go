package explain

import (
	"fmt"
	"strings"
)

// maxFindings bounds what is printed; one mistake can have many consequences.
const maxFindings = 50

// Text returns the report for people, with a line feed at its end. Findings look as
// the errors of a compiler do, with the cures as commands below them.
func (r *Report) Text(s Style) string {
	var b strings.Builder
	for i := range r.Findings {
		if i == maxFindings {
			fmt.Fprintf(&b, "and %d more\n", len(r.Findings)-i)
			break
		}
		r.Findings[i].write(&b, s)
	}
	if r.Summary != "" {
		b.WriteString(r.verdict(s) + "\n")
	}
	return b.String()
}

// verdict is the last line.
func (r *Report) verdict(s Style) string {
	path := r.Path
	if path == "" {
		path = "built-in configuration"
	}
	bySeverity := make(map[Severity]int)
	for _, f := range r.Findings {
		bySeverity[f.Severity]++
	}
	word, p := "fine", green
	switch {
	case bySeverity[Error] > 0:
		word, p = count(bySeverity[Error], "error"), red
	case bySeverity[Warning] > 0:
		word, p = count(bySeverity[Warning], "warning"), yellow
	}
	return fmt.Sprintf("%s: %s (%s)", path, s.paint(p, word), r.Summary)
}

func (f *Finding) write(b *strings.Builder, s Style) {
	if f.Position != "" {
		b.WriteString(f.Position + ": ")
	}
	switch f.Severity {
	case Warning:
		b.WriteString(s.paint(yellow, "warning: "))
	case Note:
		b.WriteString(s.paint(faint, "note: "))
	}
	p := plain
	if f.Severity == Error {
		p = red
	}
	b.WriteString(s.paint(p, f.Text) + "\n")
	if f.Excerpt != "" {
		b.WriteString(f.Excerpt + "\n")
	}
	if f.Hint != "" {
		b.WriteString("    " + f.Hint + "\n")
	}
	for _, c := range f.Cure {
		b.WriteString("      " + c + "\n")
	}
}
