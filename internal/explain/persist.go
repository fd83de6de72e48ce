package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/internal/host"
)

// Persisters lists what Persist can write for.
func Persisters() []string { return []string{"networkd", "netplan", "ifupdown", "nmcli"} }

// Persist returns commands as the configuration of what sets up the network of the host
// at boot, one of Persisters. H says of which kind links are.
func Persist(kind string, list []Command, h *host.Snapshot) (string, error) {
	list, byHand := agreed(once(list))
	p := &persister{host: h, list: list}
	write := map[string]func(){"networkd": p.networkd, "netplan": p.netplan, "ifupdown": p.ifupdown, "nmcli": p.nmcli}[kind]
	if write == nil {
		return "", fmt.Errorf("nothing is known of %q; there are %s", kind, strings.Join(Persisters(), ", "))
	}
	switch {
	case len(p.list) == 0:
		p.line("# There is nothing that doctor --fix has cured, or would.")
	case len(p.links()) > 0:
		write()
	}
	p.settings()
	p.leftOut(byHand)
	return strings.TrimPrefix(p.b.String(), "\n"), nil
}

// once drops commands that were there before.
func once(list []Command) []Command {
	var out []Command
	for _, c := range list {
		if !slices.ContainsFunc(out, func(d Command) bool { return d.Run == c.Run }) {
			out = append(out, c)
		}
	}
	return out
}

// agreed parts what --fix did or may do from what only people can decide on.
func agreed(list []Command) (out, byHand []Command) {
	for _, c := range list {
		if c.Undo == "" || c.Route == nil && c.Rule == nil && c.Setting == nil {
			byHand = append(byHand, c)
		} else {
			out = append(out, c)
		}
	}
	return out, byHand
}

// persister writes one configuration.
type persister struct {
	host *host.Snapshot
	list []Command
	b    strings.Builder
}

func (p *persister) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

// links returns those that commands are about, in order.
func (p *persister) links() []string {
	var out []string
	for _, c := range p.list {
		if c.Link != "" && !slices.Contains(out, c.Link) {
			out = append(out, c.Link)
		}
	}
	slices.Sort(out)
	return out
}

// of returns the commands about a link.
func (p *persister) of(link string) []Command {
	var out []Command
	for _, c := range p.list {
		if c.Link == link {
			out = append(out, c)
		}
	}
	return out
}

// leftOut tells of the commands that change what other hosts may have.
func (p *persister) leftOut(byHand []Command) {
	first := true
	for _, c := range byHand {
		if c.Link == "" {
			continue
		}
		if first {
			p.line("\n# Left out, as another host may have these addresses, now or later (VRRP):")
			first = false
		}
		p.line("#   %s", c.Run)
	}
}

// settings writes variables of the kernel, which are the same for all.
func (p *persister) settings() {
	const file = "/etc/sysctl.d/90-srcproxy.conf"
	first := true
	for _, c := range p.list {
		if c.Setting == nil {
			continue
		}
		if first {
			p.line("\n# Run these; %s is read at boot.", file)
			first = false
		}
		p.line("# echo '%s = %s' >> %s", c.Setting.Name, c.Setting.Value, file)
	}
}

func (p *persister) networkd() {
	for _, link := range p.links() {
		if link == "lo" {
			p.line("\n# Write this as /etc/systemd/network/90-srcproxy-lo.network.\n[Match]\nName=lo")
		} else {
			p.line("\n# For %s: append this to its .network file, or write it as\n# /etc/systemd/network/NAME.network.d/srcproxy-doctor.conf, where NAME.network is that file.", link)
		}
		for _, c := range p.of(link) {
			p.b.WriteString(c.section())
		}
	}
}

// section returns c in the words of systemd.network(5).
func (c *Command) section() string {
	var b strings.Builder
	if r := c.Route; r != nil {
		fmt.Fprintf(&b, "[Route]\nDestination=%v\n", r.To)
		switch {
		case r.Type != host.RouteUnicast:
			fmt.Fprintf(&b, "Type=%v\n", r.Type)
		case r.Via.IsValid():
			fmt.Fprintf(&b, "Gateway=%v\n", r.Via)
		case r.To.Addr().Is4():
			b.WriteString("Scope=link\n")
		}
		fmt.Fprintf(&b, "Table=%d\n", r.Table)
		if r.OnLink {
			b.WriteString("GatewayOnLink=yes\n")
		}
		if r.Metric != 0 {
			fmt.Fprintf(&b, "Metric=%d\n", r.Metric)
		}
	}
	if r := c.Rule; r != nil {
		fmt.Fprintf(&b, "[RoutingPolicyRule]\nFrom=%s\nTable=%d\nPriority=%d\n", r.from(), r.Table, r.Priority)
	}
	return b.String()
}

// netplanGroups are the groups of devices that netplan(5) has for kinds of links.
var netplanGroups = map[string]string{"bridge": "bridges", "bond": "bonds", "vlan": "vlans", "wireguard": "tunnels", "dummy": "dummy-devices", "vrf": "vrfs"}

func (p *persister) netplan() {
	p.line("# Write this as /etc/netplan/90-srcproxy.yaml (chmod 600), and run: netplan try")
	p.line("# Where a link has another name in your files, such as an id with a match, write that.\nnetwork:\n  version: 2")
	byGroup := make(map[string][]string)
	var groups []string
	for _, link := range p.links() {
		g := "ethernets"
		for _, l := range p.host.Links() {
			if own := netplanGroups[l.Kind]; l.Name == link && own != "" {
				g = own
			}
		}
		if byGroup[g] == nil {
			groups = append(groups, g)
		}
		byGroup[g] = append(byGroup[g], link)
	}
	slices.Sort(groups)
	for _, g := range groups {
		p.line("  %s:", g)
		for _, link := range byGroup[g] {
			p.netplanLink(link)
		}
	}
}

func (p *persister) netplanLink(link string) {
	p.line("    %s:", link)
	if link == "lo" {
		p.line("      match: {name: lo}")
	}
	title := ""
	under := func(key string) {
		if title != key {
			p.line("      %s:", key)
		}
		title = key
	}
	list := p.of(link)
	for _, c := range list {
		if c.Route != nil {
			under("routes")
			p.netplanRoute(c.Route)
		}
	}
	for _, c := range list {
		if r := c.Rule; r != nil {
			under("routing-policy")
			p.line("        - from: %q\n          table: %d\n          priority: %d", r.from(), r.Table, r.Priority)
		}
	}
}

func (p *persister) netplanRoute(r *Route) {
	p.line("        - to: %q", r.To)
	switch {
	case r.Type != host.RouteUnicast:
		p.line("          type: %v\n          scope: host", r.Type)
	case r.Via.IsValid():
		p.line("          via: %q", r.Via)
	default:
		p.line("          scope: link")
	}
	p.line("          table: %d", r.Table)
	if r.OnLink {
		p.line("          on-link: true")
	}
	if r.Metric != 0 {
		p.line("          metric: %d", r.Metric)
	}
}

func (p *persister) ifupdown() {
	for _, link := range p.links() {
		for _, is4 := range []bool{true, false} {
			p.stanza(link, is4)
		}
	}
}

// stanza writes what belongs into one stanza of interfaces(5).
func (p *persister) stanza(link string, is4 bool) {
	var up, down []string
	for _, c := range p.of(link) {
		if c.is4() != is4 {
			continue
		}
		up = append(up, "    up "+c.Run)
		down = append([]string{"    down " + c.Undo + " || true"}, down...)
	}
	if up == nil {
		return
	}
	family := "inet6"
	if is4 {
		family = "inet"
	}
	p.line("\n# Append this to the stanza \"iface %s %s\" of /etc/network/interfaces.", link, family)
	p.line("%s", strings.Join(append(up, down...), "\n"))
}

// is4 reports whether c, which has a link, is about IPv4.
func (c *Command) is4() bool {
	if c.Route != nil {
		return c.Route.To.Addr().Is4()
	}
	return c.Rule.From.Addr().Is4()
}

func (p *persister) nmcli() {
	p.line("# NetworkManager 1.42 or newer. Run this as a shell script.")
	for _, link := range p.links() {
		p.line("")
		for _, c := range p.of(link) {
			family := "ipv6"
			if c.is4() {
				family = "ipv4"
			}
			property, value := c.nmcli()
			p.line(`nmcli connection modify "$(nmcli -g GENERAL.CONNECTION device show %s)" +%s.%s "%s"`, link, family, property, value)
		}
		p.line("nmcli device reapply %s", link)
	}
}

// nmcli returns the property of a connection, and what is added to it (nm-settings-nmcli(5)).
func (c *Command) nmcli() (property, value string) {
	if c.Route != nil {
		return "routes", c.Route.nmcli()
	}
	r := c.Rule
	return "routing-rules", fmt.Sprintf("priority %d from %s table %d", r.Priority, r.from(), r.Table)
}

func (r *Route) nmcli() string {
	s := r.To.String()
	if r.Via.IsValid() {
		s += " " + r.Via.String()
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" %d", r.Metric)
	}
	if r.Type != host.RouteUnicast {
		s += " type=" + r.Type.String()
	}
	s += fmt.Sprintf(" table=%d", r.Table)
	if r.OnLink {
		s += " onlink=true"
	}
	return s
}
