package admin

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/srcproxy/srcproxy/internal/explain"
)

// Text returns the status for people, as all Text methods here with a line feed at its
// end.
func (s *Status) Text(style explain.Style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "srcproxy %s, pid %d, %s for %s, %s\n", s.Version, s.PID, s.State, length(seconds(s.UptimeSeconds)), orBuiltIn(s.Config))
	lines := [][]cell{
		{plain("reloads"), plain(s.reloads())},
		{plain("sources"), plain(s.Sources.String())},
		{plain("connections"), plain(s.Connections.String())},
		{plain("udp flows"), plain(s.UDPFlows.String())},
		{plain("descriptors"), plain(s.Descriptors.String())},
	}
	for _, l := range lines {
		fmt.Fprintf(&b, "  %-12s %s\n", l[0].text, l[1].text)
	}
	b.WriteByte('\n')
	rows := make([][]cell, 0, len(s.Listeners))
	for i := range s.Listeners {
		l := &s.Listeners[i]
		rows = append(rows, []cell{
			plain(l.Name),
			plain(l.Kind),
			plain(strings.Join(l.Addresses, ", ")),
			state(l.State, l.Since),
			plain(strconv.Itoa(l.Flows)),
		})
	}
	table(&b, style, []column{{title: "LISTENER"}, {title: "KIND"}, {title: "ADDRESS"}, {title: "STATE"}, {"FLOWS", true}}, rows)
	s.attached(&b, style)
	health(&b, style, s.Health)
	return b.String()
}

func (s *Status) reloads() string {
	switch r := s.LastReload; {
	case r == nil:
		return "none"
	case r.Error != "":
		return fmt.Sprintf("%d, the last failed at %s", s.Reloads, at(r.At))
	default:
		return fmt.Sprintf("%d, the last at %s", s.Reloads, at(r.At))
	}
}

// String returns "3 up, 1 down".
func (c SourceCounts) String() string {
	var words []string
	for _, x := range []struct {
		n    int
		word string
	}{{c.Up, "up"}, {c.Down, "down"}, {c.Waiting, "waiting"}, {c.Broken, "broken"}} {
		if x.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	if words == nil {
		return "none"
	}
	return strings.Join(words, ", ")
}

// state writes a state, and for how long it has been one that is wrong.
func state(word string, since time.Time) cell {
	if word == Up || word == "" {
		return plain(word)
	}
	return cell{strings.ToUpper(word) + " " + length(time.Since(since)), true}
}

// Text returns a row for each address of a source; the figures stand in its first.
func (s *Sources) Text(style explain.Style) string {
	var rows [][]cell
	for i := range s.Sources {
		rows = append(rows, s.Sources[i].rows()...)
	}
	columns := []column{
		{title: "SOURCE"},
		{title: "ADDRESS"},
		{title: "STATE"},
		{"CONNS", true},
		{"NEW/s", true},
		{"IN", true},
		{"OUT", true},
		{"FAILED/min", true},
		{"PORTS", true},
		{title: "EGRESS"},
	}
	var b strings.Builder
	if len(rows) == 0 {
		b.WriteString("no sources are configured\n")
	}
	table(&b, style, columns, rows)
	health(&b, style, s.Health)
	return b.String()
}

func (s *Source) rows() [][]cell {
	figures := []cell{
		plain(strconv.Itoa(s.Connections)),
		plain(rate(s.NewPerSecond)),
		plain(amount(s.InBitsPerSecond, "b/s")),
		plain(amount(s.OutBitsPerSecond, "b/s")),
		plain(rate(s.FailedPerMinute)),
		plain(s.ports()),
	}
	addresses := s.Addresses
	if len(addresses) == 0 {
		addresses = []Address{{}}
	}
	var rows [][]cell
	name := s.Name
	for _, a := range addresses {
		row := append([]cell{plain(name), plain(a.Address), state(a.State, a.Since)}, figures...)
		rows = append(rows, append(row, plain(cmp.Or(firstLine(a.Reason), a.Egress))))
		name, figures = "", make([]cell, len(figures))
	}
	return rows
}

// ports is the flows to the destination that has the most, of the ports that there are
// for it.
func (s *Source) ports() string {
	switch u := s.Ports; {
	case u == nil:
		return "0"
	case u.Budget == 0:
		return strconv.Itoa(u.Flows)
	default:
		return fmt.Sprintf("%d/%d", u.Flows, u.Budget)
	}
}

// Text returns a row for each rule.
func (r *Rules) Text(style explain.Style) string {
	rows := make([][]cell, 0, len(r.Rules))
	for i := range r.Rules {
		rule := &r.Rules[i]
		number, last := "-", "-"
		if rule.Number > 0 {
			number = strconv.Itoa(rule.Number)
		}
		if !rule.LastHit.IsZero() {
			last = at(rule.LastHit)
		}
		hits, denied := strconv.FormatUint(rule.Hits, 10), strconv.FormatUint(rule.Denied, 10)
		attached := ""
		if rule.Attached > 0 {
			attached = strconv.FormatUint(rule.Attached, 10)
		}
		rows = append(rows, []cell{
			plain(number), plain(rule.Name), plain(rule.Use), plain(hits), plain(denied), plain(last), plain(attached), plain(rule.Position),
		})
	}
	columns := []column{
		{"#", true}, {title: "RULE"}, {title: "USE"}, {"HITS", true}, {"DENIED", true}, {title: "LAST HIT"}, {"ATTACHED", true}, {title: "AT"},
	}
	var b strings.Builder
	table(&b, style, columns, rows)
	return b.String()
}

// Text returns a row for each flow.
func (c *Conns) Text(style explain.Style) string {
	rows := make([][]cell, 0, len(c.Conns))
	for i := range c.Conns {
		rows = append(rows, c.Conns[i].row())
	}
	columns := []column{
		{"ID", true},
		{title: "CLIENT"},
		{title: "LISTENER"},
		{title: "USER"},
		{title: "PROTO"},
		{title: "DST"},
		{title: "NAME"},
		{title: "RULE"},
		{title: "SOURCE"},
		{title: "SRC"},
		{"IN", true},
		{"OUT", true},
		{"AGE", true},
	}
	var b strings.Builder
	if len(rows) == 0 {
		b.WriteString("no flow is live\n")
	}
	table(&b, style, columns, rows)
	return b.String()
}

func (c *Conn) row() []cell {
	user := c.User
	if c.Session != "" {
		user += "-" + c.Session
	}
	return []cell{
		plain(strconv.FormatUint(c.ID, 10)),
		plain(addrPort(c.Client)),
		plain(c.Listener),
		plain(user),
		plain(c.Network),
		plain(addrPort(c.Dst)),
		plain(c.Name),
		plain(c.Rule),
		plain(c.Source),
		plain(addrPort(c.Src)),
		plain(amount(float64(c.BytesIn), "B")),
		plain(amount(float64(c.BytesOut), "B")),
		plain(length(seconds(c.AgeSeconds))),
	}
}

func addrPort(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid():
		return ""
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
}

// Closed says that the flow was ended.
func (c *Conn) Closed() string {
	to := addrPort(c.Dst)
	if c.Name != "" {
		to = c.Name + " " + to
	}
	if to != "" {
		to = " to " + strings.TrimSpace(to)
	}
	return fmt.Sprintf("closed %d: %s from %s%s\n", c.ID, c.Network, addrPort(c.Client), to)
}

// Text says that the configuration is in force, and with changes, what is new in it.
func (r *Reloaded) Text(style explain.Style, changes bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "reloaded %s: ", orBuiltIn(r.Config))
	switch len(r.Changes) {
	case 0:
		b.WriteString("nothing has changed\n")
	case 1:
		b.WriteString("1 change\n")
	default:
		fmt.Fprintf(&b, "%d changes\n", len(r.Changes))
	}
	if !changes {
		return b.String()
	}
	rows := make([][]cell, 0, len(r.Changes))
	for _, c := range r.Changes {
		rows = append(rows, []cell{plain("  " + c.What), plain(c.Kind), plain(c.Name), plain(strings.Join(c.Keys, ", ")), plain(c.Position)})
	}
	table(&b, style, make([]column, 5), rows)
	return b.String()
}

// Fine reports whether nothing is wrong.
func (s *Status) Fine() bool { return len(s.Health) == 0 }

// Fine reports whether all addresses are up.
func (s *Sources) Fine() bool { return len(s.Health) == 0 }
