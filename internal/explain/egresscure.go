package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// egressCure makes the commands that let packets from a source leave by the link that
// has it: a table with a default route there, and a rule for the source.
type egressCure struct {
	host   *host.Snapshot
	policy *host.Policy
	query  host.RouteQuery
	source *dialer.Source   // nil: only the address of the query
	answer host.RouteAnswer // the wrong way
	owner  host.Link

	// gateway is the next hop behind owner. Where it is not valid that of a route is
	// taken.
	gateway netip.Addr
}

// commands returns them, or nothing where the gateway is not known.
func (c *egressCure) commands() []Command {
	route, table := c.defaultRoute(), host.Table(0)
	if route.Table != host.TableMain && route.Table != host.TableDefault {
		table = route.Table // of its own already; zero where there is none
	}
	gw := c.gateway
	if !gw.IsValid() {
		gw = route.Gateway
	}
	if !gw.IsValid() && !route.Dst.IsValid() {
		return nil
	}
	var out []Command
	if table == 0 || gw != route.Gateway {
		table = c.freeTable()
		out = append(out, c.addDefault(gw, table, 0))
		out = append(out, c.addNeighbours(table)...)
	}
	return append(out, c.addRules(table)...)
}

// template is commands with a word in place of the gateway.
func (c *egressCure) template() string {
	t := c.freeTable()
	all := []string{fmt.Sprintf("%sroute add default via GATEWAY dev %s table %v", ip(c.is4()), c.owner.Name, t)}
	all = append(all, texts(c.addNeighbours(t))...)
	all = append(all, texts(c.addRules(t))...)
	return strings.Join(all, " && ")
}

func (c *egressCure) is4() bool { return c.query.Src.Is4() }

// defaultRoute returns the default route by the owner that serves best: one in a table
// of its own, so that a rule is enough.
func (c *egressCure) defaultRoute() host.TableRoute {
	var best host.TableRoute
	for _, r := range c.policy.Routes {
		if !c.isDefault(r) || r.Link != c.owner.Name {
			continue
		}
		if c.gateway.IsValid() && r.Gateway != c.gateway {
			continue
		}
		if !best.Dst.IsValid() || best.Table == host.TableMain && r.Table != host.TableMain {
			best = r
		}
	}
	return best
}

// isDefault reports whether r is a default route of the family.
func (c *egressCure) isDefault(r host.TableRoute) bool {
	return r.Type == host.RouteUnicast && r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == c.is4()
}

func (c *egressCure) addDefault(gw netip.Addr, t host.Table, metric uint32) Command {
	to := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if c.is4() {
		to = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	onlink := gw.IsValid() && !onLink(c.host, c.owner.Name, gw)
	return addRoute(c.owner.Name, Route{Type: host.RouteUnicast, To: to, Via: gw, OnLink: onlink, Table: t, Metric: metric})
}

// addNeighbours repeats in a table the networks that are reached without a gateway, so
// that packets to them do not take the default route: those of the owner, and those of
// links by which nobody reaches the rest of the world.
func (c *egressCure) addNeighbours(t host.Table) []Command {
	outward := make(map[string]bool)
	for _, r := range c.policy.Routes {
		outward[r.Link] = outward[r.Link] || c.isDefault(r)
	}
	var out []Command
	for _, r := range c.policy.Routes {
		if r.Type != host.RouteUnicast || r.Table != host.TableMain || r.Gateway.IsValid() || r.Hops > 1 || r.Dst.Addr().Is4() != c.is4() || r.Dst.Bits() == 0 || covers(linkLocal, r.Dst) {
			continue
		}
		if r.Link == c.owner.Name || !outward[r.Link] {
			out = append(out, addRoute(r.Link, Route{Type: host.RouteUnicast, To: r.Dst, Table: t}))
		}
	}
	return out
}

// The numbers of new tables and rules: those of the link behind them.
const (
	firstTable    = 100
	firstPriority = 1000
)

// freeTable returns a table that has no routes of the family and that no rule names.
func (c *egressCure) freeTable() host.Table {
	used := make(map[host.Table]bool)
	for _, r := range c.policy.Routes {
		used[r.Table] = used[r.Table] || r.Dst.Addr().Is4() == c.is4()
	}
	for _, r := range c.policy.Rules {
		used[r.Table] = used[r.Table] || r.Is4 == c.is4()
	}
	t := host.Table(firstTable + c.owner.Index)
	for used[t] || t == host.TableDefault || t == host.TableMain || t == host.TableLocal {
		t++
	}
	return t
}

// addRules returns the rules for the source, which come before the one that leads to the
// wrong way.
func (c *egressCure) addRules(t host.Table) []Command {
	priority := uint32(firstPriority + c.owner.Index)
	if r, ok := c.policy.RuleFor(c.query, c.answer.Table); ok && r.Priority <= priority && r.Priority > 0 {
		priority = r.Priority - 1
	}
	var out []Command
	for _, from := range c.from() {
		out = append(out, addRule(c.owner.Name, Rule{From: from, Table: t, Priority: priority}))
	}
	return out
}

// from returns the addresses that packets of the source come from.
func (c *egressCure) from() []netip.Prefix {
	switch s := c.source; {
	case s == nil:
	case s.Prefix.IsValid():
		return []netip.Prefix{s.Prefix.Masked()}
	case s.First.IsValid():
		return span{lo: s.First, hi: s.Last}.prefixes()
	}
	return []netip.Prefix{netip.PrefixFrom(c.query.Src, c.query.Src.BitLen())}
}
