package explain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/internal/host"
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
			s.table(&b, "   ", addressRows(w.Addresses, a.dialled()))
		}
	}
	if a.Refusal != "" {
		b.WriteString("\n   " + s.paint(red, "refused: "+a.Refusal) + "\n")
	}
	if a.Offline != "" {
		b.WriteString("\n" + s.paint(faint, "computed offline: "+a.Offline) + "\n")
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
	if a.Attach != "" {
		asked = append(asked, "by a program of "+a.Attach)
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

// addressRows returns the rows of the addresses, each with what is said below it. Where
// others are dialled, those that are not are skipped.
func addressRows(list []Address, dialled bool) [][]cell {
	rows := make([][]cell, 0, len(list))
	for i := range list {
		rows = append(rows, list[i].cells(dialled))
		rows = append(rows, list[i].below()...)
	}
	return rows
}

// dialled reports whether connections were tried.
func (a *Answer) dialled() bool {
	for _, w := range a.Walks {
		for _, d := range w.Addresses {
			if d.Dialled != nil {
				return true
			}
		}
	}
	return false
}

func (a *Address) cells(dialled bool) []cell {
	name := cell{a.Addr.String(), plain}
	if a.Refusal != "" {
		return []cell{name, {"refused by " + a.by() + ": " + a.Refusal, red}}
	}
	from, source := "from "+a.From.String(), a.Source
	switch {
	case !a.From.IsValid() && a.Alone != nil && a.Alone.Addr.IsValid():
		from = "from " + a.Alone.Addr.String()
	case !a.From.IsValid():
		from, source = "from the kernel's choice", ""
	case source == a.From.String():
		source = ""
	}
	end := a.dialled()
	if dialled && !a.passable() {
		end = cell{"skipped", faint}
	}
	return []cell{name, {from, plain}, {source, plain}, {a.ports(), plain}, {a.Pool.text(), faint}, a.Way.cell(), end}
}

func (w *Way) cell() cell {
	switch {
	case w == nil:
		return cell{}
	case w.Refusal != "":
		return cell{w.Refusal, red}
	case w.Type == host.RouteLocal:
		return cell{"stays on this host", plain}
	case w.Assumed:
		return cell{w.String() + ", no route", red}
	}
	return cell{w.String(), plain}
}

// below returns what is said below the row of the address, under its source.
func (a *Address) below() [][]cell {
	var rows [][]cell
	add := func(p paint, format string, args ...any) {
		rows = append(rows, []cell{{}, {fmt.Sprintf(format, args...), p}})
	}
	switch k := a.Alone; {
	case k == nil, a.Way != nil && a.Way.Refusal != "" && a.Way.Refusal == k.Refusal: // said above
	case k.Refusal != "":
		add(faint, "the kernel alone: %s", k.Refusal)
	case !a.From.IsValid():
		add(faint, "the kernel's choice: %s", k.Text)
	case k.Addr == a.From:
		add(faint, "the kernel alone: the same, %s", k.Text)
	default:
		add(faint, "the kernel alone: %v, %s", k.Addr, k.Text)
	}
	if a.Way == nil {
		return rows
	}
	if a.Way.Rule != "" && a.From.IsValid() {
		add(faint, "by ip rule %s", a.Way.Rule)
	}
	if w := a.Way.Fault; w != nil {
		cure := ""
		if w.Cure != nil {
			cure = ". Cure:"
		}
		add(yellow, "warning: %s%s", w.Text, cure)
		if w.Hint != "" {
			add(plain, "%s", w.Hint)
		}
		for _, c := range w.Cure {
			add(plain, "  %s", c)
		}
	}
	return rows
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
	took := milliseconds(d.Seconds)
	switch {
	case d.Err != "":
		return cell{fmt.Sprintf("failed after %s: %s", took, d.Err), red}
	case a.From.IsValid():
		return cell{fmt.Sprintf("connected in %s from port %d", took, d.Local.Port()), green}
	}
	return cell{fmt.Sprintf("connected in %s from %v", took, d.Local), green}
}

// milliseconds returns "0.4 ms" or "21 ms".
func milliseconds(seconds float64) string {
	const few = 0.01
	if seconds < few {
		return fmt.Sprintf("%.1f ms", seconds*1000)
	}
	return fmt.Sprintf("%.0f ms", seconds*1000)
}
