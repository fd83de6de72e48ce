package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// A Marked is an address of a source that sockets are to get by the mark of the source.
type Marked struct {
	Source  *dialer.Source
	Addr    netip.Addr
	Gateway netip.Addr // that the configuration names; may be not valid
}

// Fault returns what keeps such sockets from getting it, as the kernel answered, with the
// commands that cure it; nil where nothing does.
func (m *Marked) Fault(h *host.Snapshot, p *host.Policy, answer host.MarkAnswer) *Fault {
	if answer.Whole {
		return nil
	}
	f := &Fault{Text: fmt.Sprintf("mark %d of source %q does not lead to %v", m.Source.Mark, m.Source.Name, m.Addr)}
	switch n := len(answer.Faults); {
	case n == 0:
		f.Text += ": no destination of the rules needs more than this host and its links"
		return f
	case n > 1:
		f.Text += fmt.Sprintf(": %v, and so on for %d parts of the rules and routes", &answer.Faults[0], n)
	default:
		f.Text += ": " + answer.Faults[0].Error()
	}
	m.cure(f, h, p)
	return f
}

// cure adds the rule for the mark and the default route with the source, where they are
// not there; else what to look at.
func (m *Marked) cure(f *Fault, h *host.Snapshot, p *host.Policy) {
	is4 := m.Addr.Is4()
	c := egressCure{host: h, policy: p, query: host.RouteQuery{Src: m.Addr}, source: m.Source, gateway: m.Gateway}
	c.owner, _ = h.OwnerLink(m.Addr)
	table, ruled := m.table(p)
	if !ruled {
		if table = host.Table(m.Source.Mark); c.taken(table) {
			table = c.freeTable()
		}
		f.Cure = append(f.Cure, fmt.Sprintf("%srule add fwmark %d lookup %v", ip(is4), m.Source.Mark, table))
	}
	if !m.routed(p, table) {
		f.Cure = append(f.Cure, m.route(&c, table))
	}
	if len(f.Cure) == 0 {
		f.Hint = fmt.Sprintf("let each route of table %v to them have src %v, and each rule that comes before the one of the mark have no more than a mark and a destination (ip rule add ... priority)", table, m.Addr)
	}
	if strings.Contains(strings.Join(f.Cure, ""), gatewayWord) {
		f.Hint = "no route by its link names a gateway; find out which one it is, then: " + strings.Join(f.Cure, " && ")
		f.Cure = nil
	}
}

// table returns the table that a rule has for nothing but the mark.
func (m *Marked) table(p *host.Policy) (host.Table, bool) {
	i := slices.IndexFunc(p.Rules, func(r host.PolicyRule) bool { return r.Is4 == m.Addr.Is4() && r.ByMark(m.Source.Mark) })
	if i < 0 {
		return 0, false
	}
	return p.Rules[i].Table, true
}

// routed reports whether a table has a default route with the source.
func (m *Marked) routed(p *host.Policy, t host.Table) bool {
	return slices.ContainsFunc(p.Routes, func(r host.TableRoute) bool {
		return r.Table == t && r.Dst.Bits() == 0 && r.Src == m.Addr
	})
}

// gatewayWord stands where the gateway is not known.
const gatewayWord = "GATEWAY"

func (m *Marked) route(c *egressCure, t host.Table) string {
	via, link := gatewayWord, c.owner.Name
	r := c.defaultRoute()
	if !r.Dst.IsValid() && !c.owner.Carries() { // the address is for all links
		for _, other := range c.policy.Routes {
			if c.isDefault(other) && other.Table == host.TableMain {
				r, link = other, other.Link
				break
			}
		}
	}
	switch {
	case c.gateway.IsValid():
		via = c.gateway.String()
	case r.Gateway.IsValid():
		via = r.Gateway.String()
	}
	hop := "via " + via + " dev " + link
	if via == gatewayWord && r.Dst.IsValid() {
		hop = "dev " + link // as that route has none
	}
	return fmt.Sprintf("%sroute replace default %s src %v table %v", ip(c.is4()), hop, m.Addr, t)
}

// taken reports whether t is a table for something else.
func (c *egressCure) taken(t host.Table) bool {
	return t == 0 || t >= host.TableDefault && t <= host.TableLocal ||
		slices.ContainsFunc(c.policy.Routes, func(r host.TableRoute) bool { return r.Table == t && r.Dst.Addr().Is4() == c.is4() }) ||
		slices.ContainsFunc(c.policy.Rules, func(r host.PolicyRule) bool { return r.Table == t && r.Is4 == c.is4() })
}
