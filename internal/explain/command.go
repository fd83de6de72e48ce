package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/host"
)

// A Command is one of a cure, and what it changes: so it can be taken back, and be written
// for whatever configures the network of the host at boot.
type Command struct {
	Run  string `json:"run"`
	Undo string `json:"undo,omitempty"` // takes it back; empty: Run is for people

	Link    string   `json:"link,omitempty"` // that of the address, the route or the rule
	Route   *Route   `json:"route,omitempty"`
	Rule    *Rule    `json:"rule,omitempty"`
	Setting *Setting `json:"setting,omitempty"`
}

// A Route is one that a command adds.
type Route struct {
	Type   host.RouteType `json:"type"`
	To     netip.Prefix   `json:"to"`
	Via    netip.Addr     `json:"via,omitzero"`    // not valid: to neighbours on the link
	OnLink bool           `json:"onlink,omitzero"` // Via is in no subnet of the link
	Table  host.Table     `json:"table"`
	Metric uint32         `json:"metric,omitzero"`
}

// A Rule sends what comes from addresses of this host to a table.
type Rule struct {
	From     netip.Prefix `json:"from"`
	Table    host.Table   `json:"table"`
	Priority uint32       `json:"priority"`
}

// A Setting is a variable of the kernel, as sysctl(8) writes it.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// byHand is a command that doctor prints and does not run.
func byHand(run string) Command { return Command{Run: run} }

func addRoute(link string, r Route) Command {
	return Command{Run: r.command("add", link), Undo: r.command("del", link), Link: link, Route: &r}
}

func localRoute(p netip.Prefix) Command {
	return addRoute("lo", Route{Type: host.RouteLocal, To: p.Masked(), Table: host.TableLocal})
}

func addRule(link string, r Rule) Command {
	return Command{Run: r.command("add"), Undo: r.command("del"), Link: link, Rule: &r}
}

// changeSetting changes a variable from the value that it has.
func changeSetting(name, from, to string) Command {
	write := func(value string) string {
		if strings.Contains(value, " ") {
			value = `"` + value + `"`
		}
		return "sysctl -w " + name + "=" + value
	}
	return Command{Run: write(to), Undo: write(from), Setting: &Setting{name, to}}
}

// command returns the route as ip-route(8) reads it.
func (r *Route) command(verb, link string) string {
	b := ip(r.To.Addr().Is4()) + "route " + verb + " "
	if r.Type != host.RouteUnicast {
		b += r.Type.String() + " "
	}
	b += r.to()
	if r.Via.IsValid() {
		b += " via " + r.Via.String()
	}
	b += " dev " + link
	if r.Table != host.TableMain && r.Table != host.TableLocal {
		b += " table " + r.Table.String()
	}
	if r.Metric != 0 {
		b += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.OnLink {
		b += " onlink"
	}
	return b
}

func (r *Route) to() string {
	if r.To.Bits() == 0 {
		return "default"
	}
	return r.To.String()
}

// command returns the rule as ip-rule(8) reads it.
func (r *Rule) command(verb string) string {
	return fmt.Sprintf("%srule %s from %v lookup %v priority %d", ip(r.From.Addr().Is4()), verb, r.from(), r.Table, r.Priority)
}

func (r *Rule) from() string {
	if r.From.IsSingleIP() {
		return r.From.Addr().String()
	}
	return r.From.String()
}

// texts returns the commands as they are run.
func texts(list []Command) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.Run)
	}
	return out
}

// after returns p as it is when the commands have been run.
func after(p *host.Policy, list []Command) *host.Policy {
	out := &host.Policy{Routes: slices.Clone(p.Routes), Rules: slices.Clone(p.Rules)}
	for _, c := range list {
		if r := c.Route; r != nil {
			out.Routes = append(out.Routes, host.TableRoute{Type: r.Type, Dst: r.To, Link: c.Link, Gateway: r.Via, Table: r.Table, Metric: r.Metric})
		}
		if r := c.Rule; r != nil {
			out.Rules = append(out.Rules, host.PolicyRule{
				Is4: r.From.Addr().Is4(), Priority: r.Priority, Action: unix.FR_ACT_TO_TBL, Table: r.Table, Src: r.From,
			})
		}
	}
	return out
}
