package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/host"
)

// PlanNetworkd returns the same as sections for systemd.network(5).
func PlanNetworkd(cfg *config.Config, h *host.Snapshot, p *host.Policy) *Plan {
	r := newRoutePlan(cfg, h, p)
	links := r.links()
	var text strings.Builder
	for i, link := range links {
		fmt.Fprintf(&text, "\n# For %s: append this to its .network file, or write it as\n# /etc/systemd/network/NAME.network.d/srcproxy.conf, where NAME.network is that file.\n", link)
		for _, g := range r.groups {
			r.sections(&text, g, link, i == 0)
		}
	}
	return &Plan{Kind: "networkd", Text: r.header("networkd", networkdHow) + text.String(), Gaps: r.found()}
}

const networkdHow = `Sections for systemd-networkd; networkctl reload loads them. The first rule that matches
decides, for sockets that no program has bound. The routes are those of this host now:
make the plan again when they change.
`

// links returns the links that routes lead by; at least one, for rules without any.
func (r *routePlan) links() []string {
	var out []string
	for _, g := range r.groups {
		for _, route := range g.routes {
			if route.Link != "" {
				out = append(out, route.Link)
			}
		}
	}
	for _, m := range r.policy.Routes {
		if len(out) == 0 && m.Table == host.TableMain && m.Link != "" {
			out = append(out, m.Link)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sections writes what of a group belongs to a link. What belongs to none stands with the
// first.
func (r *routePlan) sections(b *strings.Builder, g routeGroup, link string, first bool) {
	var own strings.Builder
	for _, route := range g.routes {
		if cmp.Or(route.Link, link) == link && (route.Link != "" || first) {
			route.section(&own)
		}
	}
	if first {
		for _, rule := range g.rules {
			rule.section(&own)
		}
	}
	if own.Len() > 0 {
		b.WriteString("\n" + g.rule.title() + "\n" + own.String())
	}
}

func (r *ipRoute) section(b *strings.Builder) {
	fmt.Fprintf(b, "[Route]\nTable=%d\nDestination=%v\n", r.Table, r.Dst)
	switch {
	case r.Type != host.RouteUnicast:
		fmt.Fprintf(b, "Type=%v\n", r.Type)
	case r.Gateway.IsValid():
		fmt.Fprintf(b, "Gateway=%v\n", r.Gateway)
	case r.is4():
		b.WriteString("Scope=link\n")
	}
	if r.onLink {
		b.WriteString("GatewayOnLink=yes\n")
	}
	if r.Src.IsValid() {
		fmt.Fprintf(b, "PreferredSource=%v\n", r.Src)
	}
}

func (r *ipRule) section(b *strings.Builder) {
	family := "ipv6"
	if r.v4 {
		family = "ipv4"
	}
	fmt.Fprintf(b, "[RoutingPolicyRule]\nPriority=%d\nFamily=%s\nTable=%d\n", r.priority, family, r.table)
	if r.to.IsValid() {
		fmt.Fprintf(b, "To=%v\n", r.to)
	}
	if r.protocol != "" {
		fmt.Fprintf(b, "IPProtocol=%s\n", r.protocol)
	}
	if !r.sport.IsZero() {
		fmt.Fprintf(b, "SourcePort=%v\n", r.sport)
	}
	if !r.dport.IsZero() {
		fmt.Fprintf(b, "DestinationPort=%v\n", r.dport)
	}
}
