package dialer

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// A Table holds rules in the form in which they are looked up. It never changes,
// but for the turn of its round-robin pools, and is safe for concurrent use. Make
// one with NewTable; the zero Table denies everything.
type Table struct {
	set       *ruleset.Set
	rules     []ruleset.Rule
	heads     []head
	uses      []use
	otherwise use
}

// head is what a decision tells of the rule that made it.
type head struct {
	name string
	port uint16
}

// use is a Use in its compiled form.
type use struct {
	Use
	pool *pool // nil unless Use.Pool is set
}

// NewTable compiles rules, which are read from the first to the last; flows that
// none matches go by otherwise. The rules are copied; the sources and pools they
// point to must not change afterwards. The error says which rule is wrong.
func NewTable(rules []Rule, otherwise Use) (*Table, error) {
	c := compiler{pools: make(map[*Pool]*pool)}
	t := &Table{}
	var err error
	if t.otherwise, err = c.use(otherwise); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	for i := range rules {
		r, err := c.rule(&rules[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ruleName(&rules[i], i), err)
		}
		t.rules = append(t.rules, r)
		t.heads = append(t.heads, head{ruleName(&rules[i], i), rules[i].SourcePort})
	}
	t.uses = c.uses
	if t.set, err = ruleset.Compile(t.rules); err != nil {
		return nil, t.fault(err)
	}
	return t, nil
}

// fault returns err, which Compile gave for all rules, with the name of the rule at
// fault in place of its number.
func (t *Table) fault(err error) error {
	for i := range t.rules {
		if _, alone := ruleset.Compile(t.rules[i : i+1]); alone != nil {
			return fmt.Errorf("%s: %w", t.heads[i].name, errors.Unwrap(alone))
		}
	}
	return err
}

func ruleName(r *Rule, i int) string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("rule %d", i+1)
}

// compiler turns what users write into what ruleset reads, and numbers the uses.
type compiler struct {
	uses  []use
	pools map[*Pool]*pool
}

func (c *compiler) rule(r *Rule) (ruleset.Rule, error) {
	protocol, err := parseProtocol(r.Protocol)
	if err != nil {
		return ruleset.Rule{}, err
	}
	if r.Map != nil && r.Use != (Use{}) {
		return ruleset.Rule{}, fmt.Errorf("has both a map and a use")
	}
	out := ruleset.Rule{
		Protocol:   protocol,
		Ports:      ranges(r.Ports),
		Client:     slices.Clone(r.Client),
		Users:      slices.Clone(r.User),
		Listeners:  slices.Clone(r.Listener),
		Services:   slices.Clone(r.Service),
		LocalPorts: ranges(r.LocalPort),
	}
	for _, m := range r.To {
		out.To = append(out.To, m.target)
	}
	if r.Map == nil {
		out.Outcome, err = c.number(r.Use)
		return out, err
	}
	out.Map = make(map[ruleset.Target]int32, len(r.Map))
	seen := make(map[Use]int32)
	for m, u := range r.Map {
		n, ok := seen[u]
		if !ok {
			if n, err = c.number(u); err != nil {
				return out, fmt.Errorf("map key %q: %w", m, err)
			}
			seen[u] = n
		}
		out.Map[m.target] = n
	}
	return out, nil
}

// number compiles u and returns its place in uses.
func (c *compiler) number(u Use) (int32, error) {
	compiled, err := c.use(u)
	c.uses = append(c.uses, compiled)
	return int32(len(c.uses) - 1), err
}

func (c *compiler) use(u Use) (use, error) {
	n := 0
	for _, set := range []bool{u.Source != nil, u.Pool != nil, u.Kernel, u.Same} {
		if set {
			n++
		}
	}
	switch {
	case n > 1:
		return use{}, fmt.Errorf("a use is one of a source, a pool, the kernel and same")
	case u.Source != nil:
		return use{Use: u}, u.Source.check()
	case u.Pool != nil:
		p, ok := c.pools[u.Pool]
		if !ok {
			var err error
			if p, err = newPool(u.Pool); err != nil {
				return use{}, err
			}
			c.pools[u.Pool] = p
		}
		return use{Use: u, pool: p}, nil
	}
	return use{Use: u}, nil
}

func parseProtocol(s string) (ruleset.Protocol, error) {
	switch s {
	case "":
		return 0, nil
	case "tcp":
		return ruleset.TCP, nil
	case "udp":
		return ruleset.UDP, nil
	}
	return 0, fmt.Errorf("protocol %q: want tcp or udp", s)
}

func ranges(in []PortRange) []ruleset.PortRange {
	var out []ruleset.PortRange
	for _, r := range in {
		out = append(out, ruleset.PortRange(r))
	}
	return out
}

// Lookup returns the decision for f: the first rule that matches, the source it
// picks, and the address to bind; Decision.Err is set when f is refused. Where f has
// only a name, Err is ErrUnresolved unless the name alone is refused. Lookup treats
// every source as up. It does not allocate for a flow that is let through.
func (t *Table) Lookup(f Flow) Decision { return t.lookup(&f, choice{}) }

// lookup is Lookup with what c says may not be picked.
func (t *Table) lookup(f *Flow, c choice) Decision {
	q := query(f)
	if !q.Dst.IsValid() {
		return t.byName(f, &q)
	}
	d, u, m := t.first(&q)
	d.Prefix = m.Prefix
	if second, ok := t.secondJudgement(&q, m); ok {
		d.Use, d.Err = Use{}, t.deniedByAddress(f, second)
		return d
	}
	c.is4, c.dst = q.Dst.Is4(), q.Dst
	c.pick(&d, u, f)
	return d
}

// first returns the decision of the first rule that matches, nothing picked yet.
func (t *Table) first(q *ruleset.Query) (Decision, *use, ruleset.Match) {
	m, ok := ruleset.Match{}, false
	if t.set != nil {
		m, ok = t.set.First(*q)
	}
	if !ok {
		return Decision{Rule: "default", Index: -1, Use: t.otherwise.Use}, &t.otherwise, ruleset.Match{Rule: -1}
	}
	u, h := &t.uses[m.Outcome], &t.heads[m.Rule]
	return Decision{Rule: h.name, Index: m.Rule, Use: u.Use, Port: h.port}, u, m
}

// byName decides what can be decided before the name is resolved: only refusals,
// and only while no rule could still want to see the address.
func (t *Table) byName(f *Flow, q *ruleset.Query) Decision {
	d, u, m := t.first(q)
	firstAddress := 0
	if t.set != nil {
		firstAddress = t.set.FirstAddressRule()
	}
	// In a rule that has both, names come before prefixes.
	decided := (m.Rule >= 0 && m.Rule <= firstAddress) || firstAddress == len(t.rules)
	if decided && u.denies() {
		d.Err = denied(f)
		return d
	}
	d.Err = ErrUnresolved
	return d
}

func (u *use) denies() bool { return u.Use == Use{} }

// secondJudgement looks once more at a flow whose destination may be another than
// it seems: one that a name decided, since a name can be pointed anywhere, an IPv6
// address that carries an IPv4 address to which a gateway would pass it on, and the
// unspecified address. It returns the rule that denies the address.
func (t *Table) secondJudgement(q *ruleset.Query, m ruleset.Match) (int, bool) {
	if t.set == nil {
		return 0, false
	}
	if m.By == ruleset.ByName {
		if rule, ok := t.deniesPrefix(q); ok {
			return rule, true
		}
	}
	carrier, inner := elsewhere(q.Dst)
	if !inner.IsValid() {
		return 0, false
	}
	q4 := *q
	q4.Dst = inner
	rule, ok := t.deniesPrefix(&q4)
	deliberate := m.By == ruleset.ByPrefix && m.Prefix.Bits() >= carrier.Bits() && carrier.Contains(m.Prefix.Addr())
	return rule, ok && (!deliberate || rule < m.Rule)
}

// deniesPrefix returns the first rule that matches q by a prefix, if it denies.
func (t *Table) deniesPrefix(q *ruleset.Query) (int, bool) {
	m, ok := t.set.FirstByPrefix(*q)
	return m.Rule, ok && t.uses[m.Outcome].denies()
}

func denied(f *Flow) error { return fmt.Errorf("%w: %v", ErrDenied, address(f)) }

func (t *Table) deniedByAddress(f *Flow, second int) error {
	return fmt.Errorf("%w: %v by its address, in rule %q", ErrDenied, address(f), t.heads[second].name)
}

// query returns what the rules may look at, in the form in which they compare it.
func query(f *Flow) ruleset.Query {
	q := ruleset.Query{
		Protocol:  ruleset.TCP,
		Dst:       f.Dst.Addr().Unmap().WithZone(""), // no rule has a zone
		Port:      f.Dst.Port(),
		Client:    f.Client.Addr().Unmap(),
		User:      f.User,
		Listener:  f.Listener,
		Service:   f.Service,
		LocalPort: f.LocalPort,
	}
	if f.Name != "" {
		q.Name = ruleset.CanonicalName(f.Name)
	}
	if strings.HasPrefix(f.Network, "udp") {
		q.Protocol = ruleset.UDP
	}
	return q
}

// The IPv6 prefixes whose addresses carry an IPv4 address, and at which byte:
// NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) and IPv4-compatible (RFC 4291).
var carriers = [...]struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("::/96"), 12},
}

// elsewhere returns the address that a leads to and the prefix that says so, or the
// zero Addr. The kernel connects the unspecified address to this host.
func elsewhere(a netip.Addr) (netip.Prefix, netip.Addr) {
	switch a {
	case netip.IPv4Unspecified():
		return netip.PrefixFrom(a, 32), netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		return netip.PrefixFrom(a, 128), netip.IPv6Loopback()
	}
	return embedded(a)
}

// embedded returns the IPv4 address that a carries, and the prefix that says so.
func embedded(a netip.Addr) (netip.Prefix, netip.Addr) {
	a = a.WithZone("") // the kernel ignores that of a global address, and no prefix contains a zone
	if !a.Is6() || a.IsUnspecified() || a.IsLoopback() {
		return netip.Prefix{}, netip.Addr{}
	}
	for i := range carriers {
		if c := &carriers[i]; c.prefix.Contains(a) {
			b := a.As16()
			return c.prefix, netip.AddrFrom4([4]byte(b[c.at : c.at+4]))
		}
	}
	return netip.Prefix{}, netip.Addr{}
}

// Embedded returns the IPv4 address that the IPv6 address a carries for a NAT64 or
// 6to4 gateway, or the zero Addr.
func Embedded(a netip.Addr) netip.Addr {
	_, inner := embedded(a)
	return inner
}

// A Reason tells why a rule matches a flow or does not.
type Reason struct {
	Rule    string // its name
	Matched bool
	Text    string // `to "*.mail.example", port 25`, or the condition that does not hold
}

// Walk goes through the rules in order, by the obvious method, up to and including
// the first that matches f, and tells for each why. The integer is the rule's place
// from 0.
func (t *Table) Walk(f Flow) iter.Seq2[int, Reason] {
	return func(yield func(int, Reason) bool) {
		for i, r := range ruleset.Walk(t.rules, query(&f)) {
			if !yield(i, Reason{Rule: t.heads[i].name, Matched: r.Matched, Text: r.Detail}) {
				return
			}
		}
	}
}
