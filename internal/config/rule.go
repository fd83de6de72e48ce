package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

func (d *decoder) rules(n *node) {
	for i, c := range d.tables(n, ruleTable) {
		d.config.Rules = append(d.config.Rules, d.rule(c, i))
	}
}

// tables returns the elements of a list of tables.
func (d *decoder) tables(n *node, t table) []*node {
	if n == nil {
		return nil
	}
	if n.kind != listKind {
		d.mismatch(n)
		return nil
	}
	var out []*node
	for _, c := range n.items {
		c.spec = n.spec
		if c.kind != tableKind {
			d.mismatch(c)
			continue
		}
		out = append(out, c)
	}
	return out
}

func (d *decoder) rule(n *node, i int) dialer.Rule {
	k := d.keys(n, ruleTable)
	var r dialer.Rule
	r.Name, _ = d.text(k["name"])
	d.ruleName(n, k["name"], r.Name, i)
	for _, e := range d.strings(k["to"]) {
		if m, ok := d.match(e, e.text); ok {
			r.To = append(r.To, m)
		}
	}
	r.Ports = d.portRanges(k["port"])
	if p, ok := d.word(k["protocol"], "tcp", "udp"); ok {
		r.Protocol = []string{"tcp", "udp"}[p]
	}
	r.Client = d.prefixes(k["client"])
	r.User = texts(d.strings(k["user"]))
	r.Listener = texts(d.strings(k["listener"]))
	r.LocalPort = d.portRanges(k["local_port"])
	for _, e := range d.strings(k["service"]) {
		if s, ok := d.service(e); ok {
			r.Service = append(r.Service, s)
		}
	}
	r.SourcePort = d.port(k["source_port"])
	d.outcome(n, k, &r)
	return r
}

func texts(nodes []*node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.text)
	}
	return out
}

// ruleName notes where a rule stands. Logs and metrics know rules by their name, so
// that each has its own.
func (d *decoder) ruleName(n, name *node, s string, i int) {
	at := n
	if s == "" {
		s = fmt.Sprintf("rule %d", i+1)
	}
	if name != nil {
		at = name
	}
	if s == "default" {
		d.fault(at, "choose another name", "name: the rule \"default\" is what no rule matches")
		return
	}
	if taken, ok := d.mark(n, "rule", s); !ok {
		d.fault(at, "choose another name", "another rule is named %q, in line %d", s, taken.file.line(taken.keyAt))
	}
}

// outcome reads what a rule decides: a map or a use.
func (d *decoder) outcome(n *node, k map[string]*node, r *dialer.Rule) {
	m, use := k["map"], k["use"]
	switch {
	case m == nil && use == nil:
		d.faultKey(n, `write use = "NAME"; "kernel" lets the routing table choose, "deny" refuses`, "the rule decides nothing: it has no use and no map")
	case m != nil && use != nil:
		d.faultKey(use, "write a rule of its own below this one, or remove one of the two", "a rule has a use or a map; this one has both")
	case m != nil:
		r.Map = d.targets(m, k["source_port"])
	default:
		var ok bool
		if r.Use, ok = d.use(use); ok {
			d.fixedPort(k["source_port"], use, r.Use, dialer.PortRange{Lo: r.SourcePort, Hi: r.SourcePort})
		}
	}
}

// targets reads the keys and uses of a map.
func (d *decoder) targets(n, port *node) map[dialer.Match]dialer.Use {
	if n.kind != tableKind {
		d.mismatch(n)
		return nil
	}
	if len(n.items) == 0 {
		d.faultKey(n, `write "203.0.113.0/24" = "NAME"`, "the map is empty, so the rule never matches")
	}
	out := make(map[dialer.Match]dialer.Use, len(n.items))
	taken := make(map[dialer.Match]*node, len(n.items))
	for _, c := range n.items {
		c.spec = &key{name: "map", want: wantName}
		if d.belongsOnTop(c) || d.unquoted(c) {
			continue
		}
		u, ok := d.use(c)
		if ok && u != (dialer.Use{}) {
			p := d.port(port)
			d.fixedPort(port, c, u, dialer.PortRange{Lo: p, Hi: p})
		}
		for _, e := range d.strings(&node{kind: textKind, text: c.key, spec: c.spec, file: c.file, keyAt: c.keyAt, at: c.keyAt, order: c.keyAt}) {
			m, ok := d.match(e, e.text)
			if other := taken[m]; ok && other != nil {
				d.fault(e, "remove one of the two", "map: %q stands in line %d already", m, other.file.line(other.at))
			}
			taken[m], out[m] = e, u
		}
	}
	return out
}

// unquoted reports a map key that TOML took for a path of tables, because it has
// dots and no quotes.
func (d *decoder) unquoted(n *node) bool {
	if n.kind != tableKind {
		return false
	}
	if !n.dotted() {
		d.mismatch(n)
		return true
	}
	parts, value := []string{n.key}, n
	for value.kind == tableKind && len(value.items) > 0 {
		value = value.items[0]
		parts = append(parts, value.key)
	}
	path := strings.Join(parts, ".")
	d.faultKey(n, fmt.Sprintf("quote the key: %q = %q", path, value.text), "map: without quotes the dots of %s divide it", path)
	return true
}

// match reads an element of `to`, or a key of a map.
func (d *decoder) match(n *node, s string) (dialer.Match, bool) {
	if hint := notTarget(s); hint != "" {
		d.fault(n, hint, "%s: %q is no name, address or prefix", n.spec.name, s)
		return dialer.Match{}, false
	}
	if strings.ContainsAny(s, "/:") || looksLikeAddress(s) {
		p, ok := d.prefix(n, s)
		return dialer.MatchPrefix(p), ok
	}
	m, err := dialer.ParseMatch(s)
	if err != nil {
		d.fault(n, "", "%s: %v", n.spec.name, err)
	}
	return m, err == nil
}

// notTarget returns what to do about something that is not even meant as one target.
func notTarget(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		return "write the host alone: " + strconv.Quote(host)
	}
	if strings.ContainsAny(s, ", ") {
		return `write a list: ["...", "..."]`
	}
	if s == "*" {
		return "for every destination leave `to` out"
	}
	host, port, ok := strings.Cut(s, ":")
	if _, isPort := parsePort(port); ok && isPort && !strings.Contains(port, ":") {
		return fmt.Sprintf("write %q, and in the rule port = %s", host, port)
	}
	first, last, ok := strings.Cut(s, "-")
	a, err1 := netip.ParseAddr(first)
	b, err2 := netip.ParseAddr(last)
	if ok && err1 == nil && err2 == nil && a.Is4() == b.Is4() {
		return "a destination is no range: write prefixes, [\"" + a.String() + "/...\", ...]"
	}
	return ""
}

// fixedPort reports fixed local ports that the source of use, named at n, cannot have.
func (d *decoder) fixedPort(port, n *node, use dialer.Use, r dialer.PortRange) {
	if port == nil || r.Lo == 0 {
		return
	}
	s := use.Source
	switch {
	case s == nil || s.Prefix.IsValid() || s.First.IsValid():
		d.fault(port, "name a source that is an address: with a port it is one fixed sender",
			"source_port: %q is not one address, and so no fixed address and port", n.text)
	case !s.Ports.IsZero() && !(s.Ports.Contains(r.Lo) && s.Ports.Contains(r.Hi)):
		d.fault(port, "choose one of them, or a source without ports", "source_port: %s is not among the ports of source %q, %s", r, s.Name, s.Ports)
	}
}
