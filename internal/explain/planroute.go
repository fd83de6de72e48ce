package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/host"
)

// PlanIPRoute returns the rules as commands of ip(8) for the host that h and p describe:
// a routing table for each, whose routes have the source as their src, and rules of
// ip-rule(8) that lead there in the order of the rules.
func PlanIPRoute(cfg *config.Config, h *host.Snapshot, p *host.Policy) *Plan {
	r := newRoutePlan(cfg, h, p)
	var text, undo strings.Builder
	for _, g := range r.groups {
		text.WriteString("\n" + g.rule.title() + "\n")
		for _, route := range g.routes {
			text.WriteString(route.command() + "\n")
		}
		for _, rule := range g.rules {
			text.WriteString(rule.command("add") + "\n")
			undo.WriteString("#   " + rule.command("del") + "\n")
		}
		for _, is4 := range []bool{true, false} {
			if slices.ContainsFunc(g.routes, func(x ipRoute) bool { return x.is4() == is4 }) {
				fmt.Fprintf(&undo, "#   %sroute flush table %v\n", ip(is4), g.table)
			}
		}
	}
	return &Plan{
		Kind: "iproute",
		Text: r.header("iproute", iprouteHow) + text.String() + "\n# To undo it:\n" + undo.String(),
		Gaps: r.found(),
	}
}

const iprouteHow = `Run it as a shell script. The first rule that matches decides, for sockets that no
program has bound. The routes are those of this host now: make the plan again when they
change. Linux 4.17 or newer for rules with a protocol or ports.
`

// routePlan is what both plans that route consist of.
type routePlan struct {
	*planner
	host   *host.Snapshot
	policy *host.Policy
	groups []routeGroup
}

// routeGroup is what one rule becomes.
type routeGroup struct {
	rule   *kernelRule
	table  host.Table
	rules  []ipRule
	routes []ipRoute
}

// ipRule is a rule of ip-rule(8).
type ipRule struct {
	v4           bool
	priority     int
	to           netip.Prefix // not valid: any
	protocol     string
	sport, dport dialer.PortRange
	table        host.Table
}

// ipRoute is a route of a table. Its Type is unicast or prohibit.
type ipRoute struct {
	host.TableRoute
	onLink bool // the gateway is in no subnet of the link
}

func (r *ipRoute) is4() bool { return r.Dst.Addr().Is4() }

func newRoutePlan(cfg *config.Config, h *host.Snapshot, p *host.Policy) *routePlan {
	r := &routePlan{planner: newPlanner(cfg), host: h, policy: p}
	base := r.base()
	for i := range r.rules {
		k := &r.rules[i]
		if k.number == 0 && k.kernel() {
			continue // what happens anyway
		}
		r.groups = append(r.groups, r.group(k, base+1+i))
	}
	if slices.ContainsFunc(r.groups, func(g routeGroup) bool { return g.rule.any }) {
		neighbours := routeGroup{rule: &kernelRule{name: "neighbours on a link", number: -1}}
		neighbours.rules = []ipRule{{priority: base, to: linkLocal, table: host.TableMain}}
		r.groups = slices.Insert(r.groups, 0, neighbours)
	}
	return r
}

// linkLocal is where only addresses of the link itself are right (RFC 4291).
var linkLocal = netip.MustParsePrefix("fe80::/10")

// base returns the number of the first table and rule: from there on as many are free as
// are needed.
func (r *routePlan) base() int {
	const first, step, last = 5000, 5000, 30000 // below "main", 32766
	for base := first; base < last; base += step {
		used := func(n int) bool { return n >= base && n <= base+len(r.rules) }
		if !slices.ContainsFunc(r.policy.Rules, func(x host.PolicyRule) bool { return used(int(x.Priority)) || used(int(x.Table)) }) &&
			!slices.ContainsFunc(r.policy.Routes, func(x host.TableRoute) bool { return used(int(x.Table)) }) {
			return base
		}
	}
	return first
}

// kernel reports whether the routing table chooses for all that k matches.
func (k *kernelRule) kernel() bool {
	return !slices.ContainsFunc(k.dests, func(d dest) bool { return !d.to.use.Kernel })
}

func (r *routePlan) group(k *kernelRule, number int) routeGroup {
	g := routeGroup{rule: k, table: host.Table(number)}
	if k.kernel() {
		g.table = host.TableMain
		for _, d := range k.dests {
			to := d.prefix
			if k.any {
				to = netip.Prefix{}
			}
			g.rules = append(g.rules, k.selectors(d.prefix.Addr().Is4(), to, g.table, number)...)
		}
		return g
	}
	for _, is4 := range []bool{true, false} {
		if !slices.ContainsFunc(k.dests, func(d dest) bool { return d.prefix.Addr().Is4() == is4 }) {
			continue
		}
		g.rules = append(g.rules, k.selectors(is4, netip.Prefix{}, g.table, number)...)
		g.routes = append(g.routes, r.routes(k, is4, g.table)...)
	}
	return g
}

// selectors returns the rules that lead flows which k matches to a table.
func (k *kernelRule) selectors(is4 bool, to netip.Prefix, table host.Table, priority int) []ipRule {
	var out []ipRule
	for _, sport := range orAny(k.localPorts) {
		for _, dport := range orAny(k.ports) {
			out = append(out, ipRule{is4, priority, to, k.protocol, sport, dport, table})
		}
	}
	return out
}

// orAny returns the ports, or where there are none the one range that means any.
func orAny(list []dialer.PortRange) []dialer.PortRange {
	if list == nil {
		return []dialer.PortRange{{}}
	}
	return mergePorts(list)
}

// routes returns the routes of one family that have the sources of k.
func (r *routePlan) routes(k *kernelRule, is4 bool, table host.Table) []ipRoute {
	var out []ipRoute
	for _, d := range k.dests {
		if d.prefix.Addr().Is4() == is4 {
			out = append(out, r.route(k, d, table))
		}
	}
	// What leads elsewhere inside a destination does so in the new table, too.
	for _, m := range r.policy.Routes {
		if m.Table != host.TableMain || m.Dst.Addr().Is4() != is4 || covers(linkLocal, m.Dst) {
			continue
		}
		d, inside := longest(k.dests, m.Dst)
		if !inside || d.prefix == m.Dst || slices.ContainsFunc(out, func(x ipRoute) bool { return x.Dst == m.Dst }) {
			continue
		}
		out = append(out, r.withSource(k, m, d, table))
	}
	slices.SortStableFunc(out, func(a, b ipRoute) int { return comparePrefixes(a.Dst, b.Dst) })
	return out
}

// route returns the route to the whole of a destination: that of "main" around it, or
// where this leads by another way than that of the source the one which does.
func (r *routePlan) route(k *kernelRule, d dest, table host.Table) ipRoute {
	way := host.TableRoute{Type: host.RouteUnreachable}
	for _, m := range r.policy.Routes {
		better := m.Dst.Bits() > way.Dst.Bits() || m.Dst.Bits() == way.Dst.Bits() && m.Metric < way.Metric
		if m.Table == host.TableMain && covers(m.Dst, d.prefix) && better {
			way = m
		}
	}
	o := r.origin(k, d)
	neighbours := way.Type == host.RouteUnicast && !way.Gateway.IsValid() && way.Dst.Bits() > 0
	switch {
	case !o.addr.IsValid():
	case o.gateway.IsValid() && o.gateway != way.Gateway && !neighbours:
		way = host.TableRoute{Type: host.RouteUnicast, Gateway: o.gateway, Link: r.linkTo(o.gateway, o.link)}
	case o.link != "" && o.link != way.Link:
		c := egressCure{host: r.host, policy: r.policy, query: host.RouteQuery{Src: o.addr}, owner: host.Link{Name: o.link}}
		if by := c.defaultRoute(); by.Dst.IsValid() {
			way = by
		} else {
			r.gap(k, true, "packets from %v belong to %s, and no default route leads by that link; they leave by another", o.addr, o.link)
		}
	}
	way.Dst = d.prefix
	return r.withSource(k, way, d, table)
}

// linkTo returns the link in a subnet of which a gateway is, else the one given.
func (r *routePlan) linkTo(gw netip.Addr, otherwise string) string {
	for _, a := range r.host.Addresses() {
		if !gw.IsLinkLocalUnicast() && a.Prefix.Contains(gw) {
			return a.Link
		}
	}
	return otherwise
}

// withSource returns the route m of table, with the source that d has.
func (r *routePlan) withSource(k *kernelRule, m host.TableRoute, d dest, table host.Table) ipRoute {
	m.Table, m.Metric = table, 0
	src := r.origin(k, d).addr
	switch {
	case d.to.use.Kernel:
	case src.IsValid():
		m.Src = src
	default:
		m.Type = host.RouteProhibit
	}
	if m.Hops > 1 {
		r.gap(k, true, "of the %d next hops of %v the plan takes the first", m.Hops, m.Dst)
	}
	if m.Type != host.RouteUnicast {
		m.Link, m.Gateway, m.Src = "", netip.Addr{}, netip.Addr{}
	}
	return ipRoute{TableRoute: m, onLink: m.Gateway.IsValid() && !onLink(r.host, m.Link, m.Gateway)}
}

// onLink reports whether a gateway is in a subnet of a link.
func onLink(h *host.Snapshot, link string, gw netip.Addr) bool {
	return gw.IsLinkLocalUnicast() || slices.ContainsFunc(h.Addresses(), func(a host.Address) bool {
		return a.Link == link && a.Prefix.Contains(gw)
	})
}

// command returns the route as a command.
func (r *ipRoute) command() string {
	b := ip(r.is4()) + "route replace "
	if r.Type != host.RouteUnicast {
		b += r.Type.String() + " "
	}
	if r.Dst.Bits() == 0 {
		b += "default"
	} else {
		b += r.Dst.String()
	}
	if r.Gateway.IsValid() {
		b += " via "
		if r.is4() && r.Gateway.Is6() {
			b += "inet6 "
		}
		b += r.Gateway.String()
	}
	if r.Link != "" {
		b += " dev " + r.Link
	}
	if r.onLink {
		b += " onlink"
	}
	if r.Src.IsValid() {
		b += " src " + r.Src.String()
	}
	return fmt.Sprintf("%s table %v", b, r.Table)
}

// command returns the rule as a command that adds or deletes it.
func (r *ipRule) command(verb string) string {
	b := fmt.Sprintf("%srule %s priority %d", ip(r.v4), verb, r.priority)
	if r.to.IsValid() {
		b += " to " + r.to.String()
	}
	if r.protocol != "" {
		b += " ipproto " + r.protocol
	}
	if !r.sport.IsZero() {
		b += " sport " + r.sport.String()
	}
	if !r.dport.IsZero() {
		b += " dport " + r.dport.String()
	}
	return b + " lookup " + r.table.String()
}
