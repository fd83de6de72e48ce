package host

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A Choice is the address that the kernel alone gives to a socket that is not bound,
// and why it takes that one.
type Choice struct {
	Addr  netip.Addr `json:"address"`
	Cause Cause      `json:"cause"`
	Text  string     `json:"text"` // the cause in words: "the primary address of eth0"

	Way  RouteAnswer `json:"way"`
	Rule string      `json:"rule,omitempty"` // the rule of ip-rule(8) that led to a table of its own
}

// String returns "198.51.100.10, the primary address of eth0".
func (c Choice) String() string {
	s := fmt.Sprintf("%v, %s", c.Addr, c.Text)
	if c.Rule != "" {
		s += fmt.Sprintf(" (table %v by ip rule %s)", c.Way.Table, c.Rule)
	}
	return s
}

// Cause is the kind of reason for which the kernel takes an address.
type Cause string

// The causes. Those of IPv4 are fib_result_prefsrc and inet_select_addr, those of IPv6
// the rules of RFC 6724 section 5 in the order of ipv6_get_saddr_eval.
const (
	ByRoute     Cause = "route"      // the src attribute of the route
	BySubnet    Cause = "subnet"     // of the destination, which is on the link
	ByGateway   Cause = "gateway"    // in the subnet of the gateway
	ByPrimary   Cause = "primary"    // the first of the link
	ByScope     Cause = "scope"      // the first of the link that goes with the scope; RFC 6724 rule 2
	ByOtherLink Cause = "other link" // the link has none
	ByOwn       Cause = "own"        // the destination is this host; RFC 6724 rule 1
	ByOnly      Cause = "only"       // there is no other
	ByAge       Cause = "deprecated" // others are deprecated; RFC 6724 rule 3
	ByLink      Cause = "link"       // of the outgoing link; RFC 6724 rule 5
	ByLabel     Cause = "label"      // RFC 6724 rule 6
	ByPrivacy   Cause = "privacy"    // temporary or not; RFC 6724 rule 7
	ByORCHID    Cause = "orchid"     // RFC 7343
	ByMatch     Cause = "match"      // the longest matching prefix; RFC 6724 rule 8
	ByNewest    Cause = "newest"     // equal in all, and added last
	ByKernel    Cause = "kernel"     // it is so, and this program does not know why
)

// KernelChoice returns the address from which the kernel would send a flow of a
// program that binds none. The address is the kernel's own answer for the network
// namespace of the calling thread; the cause is found by going through the kernel's
// rules, and is ByKernel where that leads to another address. Where the kernel has no
// way the error is a *RouteError. Src of the query is not looked at.
func KernelChoice(q RouteQuery) (Choice, error) {
	q.Src = netip.Addr{}
	way, err := Route(q)
	if err != nil {
		return Choice{}, err
	}
	s, err := Read()
	if err != nil {
		return Choice{}, err
	}
	c := chooser{host: s, dst: bare(q.Dst), way: way}
	var addr netip.Addr
	choice := Choice{Addr: way.PrefSrc, Way: way}
	if c.dst.Is4() {
		addr, choice.Cause, choice.Text = c.choose4()
	} else {
		addr, choice.Cause, choice.Text = c.choose6()
	}
	if addr != choice.Addr || !addr.IsValid() {
		choice.Cause, choice.Text = ByKernel, "as the kernel answers"
	}
	choice.Rule = ruleOf(q, way.Table)
	return choice, nil
}

// ruleOf returns the rule that sends q to a table of its own, where there is one.
func ruleOf(q RouteQuery, t Table) string {
	if t == TableLocal || t == TableMain || t == TableDefault {
		return ""
	}
	p, err := ReadPolicy()
	if err != nil {
		return "" // the table alone says much
	}
	r, ok := p.RuleFor(q, t)
	if !ok {
		return ""
	}
	return r.String()
}

// chooser follows the kernel's way to a source.
type chooser struct {
	host *Snapshot
	dst  netip.Addr
	way  RouteAnswer
}

// choose4 is what fib_result_prefsrc does.
func (c *chooser) choose4() (netip.Addr, Cause, string) {
	r := c.way.Route
	switch {
	case c.way.Type == RouteLocal:
		return c.own4()
	case r.Src.IsValid() && r.Protocol == unix.RTPROT_KERNEL:
		return r.Src, BySubnet, fmt.Sprintf("the address of %s in the destination's subnet %v%s", r.Link, r.Dst, c.firstOf(r.Src))
	case r.Src.IsValid():
		return r.Src, ByRoute, fmt.Sprintf("the src of the route %v", r)
	case c.way.Assumed:
		r.Scope = unix.RT_SCOPE_LINK
	}
	return c.select4(r.Scope)
}

// own4: the local route of an address has the primary of its subnet as its src, and
// one that an operator made (AnyIP) has none.
func (c *chooser) own4() (netip.Addr, Cause, string) {
	src := c.way.Route.Src
	switch {
	case !src.IsValid(), src == c.dst:
		return c.dst, ByOwn, "the destination itself, as it is on this host"
	case c.way.Route.Dst.IsSingleIP():
		return src, ByOwn, "the primary address of the destination's subnet, as the destination is on this host"
	}
	return src, ByRoute, fmt.Sprintf("the src of the route %v", c.way.Route)
}

// firstOf says that an address comes before others of its subnet, where there are any.
func (c *chooser) firstOf(a netip.Addr) string {
	others := 0
	var own Address
	for _, x := range c.host.addrs {
		if x.Addr == a {
			own = x
		}
	}
	for _, x := range c.host.addrs {
		if x.Prefix == own.Prefix && x.Link == own.Link && x.Addr != a {
			others++
		}
	}
	if others == 0 {
		return ""
	}
	return fmt.Sprintf(", the first added of its %d", others+1)
}

// select4 is inet_select_addr.
func (c *chooser) select4(scope uint8) (netip.Addr, Cause, string) {
	gw := c.way.Gateway
	var first, fits, inSubnet Address
	for _, x := range c.on(c.way.Link) {
		if !first.Addr.IsValid() {
			first = x
		}
		if x.Scope > scope {
			continue
		}
		if !fits.Addr.IsValid() {
			fits = x
		}
		if !inSubnet.Addr.IsValid() && gw.Is4() && x.Prefix.Contains(gw) {
			inSubnet = x
		}
	}
	switch {
	case inSubnet.Addr.IsValid() && inSubnet != first:
		return inSubnet.Addr, ByGateway, fmt.Sprintf("the address of %s in the subnet of the gateway %v%s", inSubnet.Link, gw, c.firstOf(inSubnet.Addr))
	case fits.Addr.IsValid() && (fits != first || fits.Scope == unix.RT_SCOPE_LINK):
		return fits.Addr, ByScope, fmt.Sprintf("the first address of %s that has the scope for this route, which is of scope %s", fits.Link, scopeName(scope))
	case fits.Addr.IsValid():
		return fits.Addr, ByPrimary, fmt.Sprintf("the primary address of %s%s", fits.Link, c.firstOf(fits.Addr))
	}
	return c.elsewhere4(scope)
}

// elsewhere4 takes the first address of another link, as those of lo come first.
func (c *chooser) elsewhere4(scope uint8) (netip.Addr, Cause, string) {
	for _, l := range c.host.links {
		for _, x := range c.on(l.Name) {
			if x.Scope != unix.RT_SCOPE_LINK && x.Scope <= scope {
				return x.Addr, ByOtherLink, fmt.Sprintf("an address of %s, since %s has none that fits", l.Name, c.way.Link)
			}
		}
	}
	return netip.Addr{}, ByKernel, ""
}

// on returns the primary IPv4 addresses of a link in the kernel's order.
func (c *chooser) on(link string) []Address {
	var list []Address
	for _, x := range c.host.addrs {
		if x.Link == link && x.Addr.Is4() && x.Flags&Secondary == 0 {
			list = append(list, x)
		}
	}
	return list
}

func scopeName(scope uint8) string {
	switch scope {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	}
	return fmt.Sprint(scope)
}

// linkIndex returns the index of a link, or 0.
func (s *Snapshot) linkIndex(name string) int {
	if i := slices.IndexFunc(s.links, func(l Link) bool { return l.Name == name }); i >= 0 {
		return s.links[i].Index
	}
	return 0
}
