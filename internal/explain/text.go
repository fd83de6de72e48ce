package explain

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Text returns the answer for people, with a line feed at its end.
func (a *Answer) Text(s Style) string {
	var b strings.Builder
	b.WriteString(a.title() + "\n")
	for i := range a.Walks {
		w := &a.Walks[i]
		if len(a.Walks) > 1 {
			fmt.Fprintf(&b, "%sfor %s:\n", gap(i), w.addresses())
		}
		s.table(&b, "", w.rows(s))
		if len(w.Addresses) > 0 {
			b.WriteByte('\n')
			s.table(&b, "   ", addressRows(w.Addresses))
		}
	}
	if a.Refusal != "" {
		b.WriteString("\n   " + s.paint(red, "refused: "+a.Refusal) + "\n")
	}
	return b.String()
}

// gap stands before the walks but the first.
func gap(i int) string {
	if i == 0 {
		return ""
	}
	return "\n"
}

// title is what was asked.
func (a *Answer) title() string {
	var b strings.Builder
	b.WriteString(a.Destination + " " + a.Protocol)
	var asked []string
	if a.Client.IsValid() {
		asked = append(asked, "by "+a.Client.String())
	}
	if a.User != "" {
		asked = append(asked, "as "+strconv.Quote(a.User))
	}
	if a.Session != "" {
		asked = append(asked, "in session "+strconv.Quote(a.Session))
	}
	if a.Listener != "" {
		asked = append(asked, "at "+a.Listener)
	}
	if a.LocalPort != 0 {
		asked = append(asked, fmt.Sprintf("from port %d", a.LocalPort))
	}
	if asked != nil {
		b.WriteString(", asked " + strings.Join(asked, " "))
	}
	return b.String()
}

func (w *Walk) addresses() string {
	words := make([]string, len(w.Addresses))
	for i, a := range w.Addresses {
		words[i] = a.Addr.String()
	}
	return strings.Join(words, ", ")
}

func (w *Walk) rows(Style) [][]cell {
	var rows [][]cell
	if w.Above > 0 {
		rows = append(rows, []cell{{"   …", faint}, {rules(w.Above, "does", "do") + " not match", faint}})
	}
	for _, s := range w.Steps {
		rows = append(rows, s.cells())
	}
	if w.Below > 0 {
		rows = append(rows, []cell{{"   …", faint}, {rules(w.Below, "is", "are") + " not reached", faint}})
	}
	return rows
}

func rules(n int, one, many string) string {
	if n == 1 {
		return "1 more rule " + one
	}
	return fmt.Sprintf("%d more rules %s", n, many)
}

func (s *Step) cells() []cell {
	number := "-"
	if s.Number > 0 {
		number = strconv.Itoa(s.Number)
	}
	text, p := string(s.Verdict), faint
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	use := ""
	if s.Verdict == Matches {
		p, use = green, "use "+s.Use
	}
	return []cell{{fmt.Sprintf("%4s", number), plain}, {s.Rule, plain}, {text, p}, {use, plain}, {s.Position, faint}}
}

func addressRows(list []Address) [][]cell {
	rows := make([][]cell, 0, len(list))
	for i := range list {
		rows = append(rows, list[i].cells())
	}
	return rows
}

func (a *Address) cells() []cell {
	name := cell{a.Addr.String(), plain}
	if a.Refusal != "" {
		return []cell{name, {"refused by " + a.by() + ": " + a.Refusal, red}}
	}
	from := "from the kernel's choice"
	if a.From.IsValid() {
		from = "from " + a.From.String()
	}
	source := a.Source
	if source == "kernel" || source == a.From.String() {
		source = ""
	}
	return []cell{name, {from, plain}, {source, plain}, {a.ports(), plain}, {a.Pool.text(), faint}, a.dialled()}
}

// by names what refused.
func (a *Address) by() string {
	if a.Rule == "default" {
		return a.Rule
	}
	return strconv.Quote(a.Rule)
}

func (a *Address) ports() string {
	switch {
	case a.Port != 0:
		return fmt.Sprintf("port %d", a.Port)
	case a.Ports != "":
		return "ports " + a.Ports
	}
	return ""
}

func (p *Pick) text() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("pool %s: %s, member %d of %d", p.Pool, p.How, p.Member, p.Of)
}

func (a *Address) dialled() cell {
	d := a.Dialled
	if d == nil {
		return cell{}
	}
	took := time.Duration(d.Seconds * float64(time.Second)).Round(time.Millisecond)
	switch {
	case d.Err != "":
		return cell{fmt.Sprintf("failed after %v: %s", took, d.Err), red}
	case a.From.IsValid():
		return cell{fmt.Sprintf("connected in %v from port %d", took, d.Local.Port()), green}
	}
	return cell{fmt.Sprintf("connected in %v from %v", took, d.Local), green}
}
