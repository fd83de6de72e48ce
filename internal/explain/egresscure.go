package explain

import (
	"fmt"
	"net/netip"

	"github.com/srcproxy/srcproxy/internal/host"
)

// egressCure makes the commands that let packets from a source leave by the link that
// has it: a table with a default route there, and a rule for the source.
type egressCure struct {
	host   *host.Snapshot
	policy *host.Policy
	query  host.RouteQuery
	answer host.RouteAnswer // the wrong way
	owner  host.Link

	// gateway is the next hop behind owner. Where it is not valid that of a route is
	// taken.
	gateway netip.Addr
}

// commands returns them, or nothing where the gateway is not known.
func (c *egressCure) commands() []string {
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
	var out []string
	if table == 0 || gw != route.Gateway {
		table = c.freeTable()
		out = append(out, c.addDefault(gw, table))
	}
	return append(out, c.addRule(table))
}

// template is commands with a word in place of the gateway.
func (c *egressCure) template() string {
	t := c.freeTable()
	return fmt.Sprintf("%sroute add default via GATEWAY dev %s table %v && %s", c.ip(), c.owner.Name, t, c.addRule(t))
}

func (c *egressCure) ip() string { return ip(c.query.Src.Is4()) }

// defaultRoute returns the default route by the owner that serves best: one in a table
// of its own, so that a rule is enough.
func (c *egressCure) defaultRoute() host.TableRoute {
	var best host.TableRoute
	for _, r := range c.policy.Routes {
		if r.Type != host.RouteUnicast || r.Dst.Bits() != 0 || r.Dst.Addr().Is4() != c.query.Src.Is4() || r.Link != c.owner.Name {
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

func (c *egressCure) addDefault(gw netip.Addr, t host.Table) string {
	s := c.ip() + "route add default"
	if gw.IsValid() {
		s += " via " + gw.String()
	}
	s += " dev " + c.owner.Name
	if t != host.TableMain {
		s += fmt.Sprintf(" table %v", t)
	}
	if gw.IsValid() && !onLink(c.host, c.owner.Name, gw) {
		s += " onlink"
	}
	return s
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
		used[r.Table] = used[r.Table] || r.Dst.Addr().Is4() == c.query.Src.Is4()
	}
	for _, r := range c.policy.Rules {
		used[r.Table] = used[r.Table] || r.Is4 == c.query.Src.Is4()
	}
	t := host.Table(firstTable + c.owner.Index)
	for used[t] || t == host.TableDefault || t == host.TableMain || t == host.TableLocal {
		t++
	}
	return t
}

// addRule returns the rule for the source, which comes before the one that leads to the
// wrong way.
func (c *egressCure) addRule(t host.Table) string {
	priority := uint32(firstPriority + c.owner.Index)
	if r, ok := c.policy.RuleFor(c.query, c.answer.Table); ok && r.Priority <= priority && r.Priority > 0 {
		priority = r.Priority - 1
	}
	return fmt.Sprintf("%srule add from %v lookup %v priority %d", c.ip(), c.query.Src, t, priority)
}
