package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
)

// PlanNFT returns the rules as a file for nft -f: source NAT of what leaves this host, in
// the order of the rules.
func PlanNFT(cfg *config.Config) *Plan {
	n := nftPlan{planner: newPlanner(cfg), chains: make(map[target]string), names: make(map[string]bool)}
	var rules strings.Builder
	for i := range n.rules {
		n.rule(&rules, &n.rules[i])
	}
	var targets strings.Builder
	for i := 0; i < len(n.needs); i++ { // a pool adds its members
		n.at = n.needs[i].by
		n.chain(&targets, n.needs[i].target)
	}
	text := n.header("nft", nftHow) + nftTop + rules.String() + "\t}\n" + targets.String() + "}\n"
	return &Plan{Kind: "nft", Text: text, Gaps: n.found()}
}

const nftHow = `Load it with: nft -f FILE. Undo it with: nft delete table inet srcproxy
The first rule that matches decides, once for each flow. It is for what the programs of
this host send to others, by TCP and UDP; an address that a program has bound is
changed, too. It does not choose the link: see srcproxy plan --iproute.
`

const nftTop = `
table inet srcproxy
delete table inet srcproxy
table inet srcproxy {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "lo" accept
		fib saddr type != local accept
		fib daddr type { broadcast, multicast } accept
		ip6 daddr fe80::/10 accept
		meta l4proto { tcp, udp } goto rules
	}
	chain rules {
`

// nftPlan writes the file.
type nftPlan struct {
	*planner
	at     *kernelRule       // the rule that is being written
	chains map[target]string // the chain of each target
	names  map[string]bool   // of the chains
	needs  []need            // the chains in the order in which they are written
}

// need is a chain, and the first rule that wants it.
type need struct {
	target target
	by     *kernelRule
}

func (n *nftPlan) rule(b *strings.Builder, k *kernelRule) {
	n.at = k
	fmt.Fprintf(b, "\t\t%s\n", k.title())
	conditions := k.conditions()
	if k.any {
		fmt.Fprintf(b, "\t\t%s%s\n", conditions, n.verdict(k.dests[0].to))
		return
	}
	for _, family := range []struct {
		is4   bool
		daddr string
	}{{true, "ip daddr "}, {false, "ip6 daddr "}} {
		spans := flatten(k.dests, family.is4)
		if len(spans) == 0 {
			continue
		}
		fmt.Fprintf(b, "\t\t%s%s%s\n", conditions, family.daddr, n.destinations(spans))
	}
}

// destinations writes a set and its one verdict, or a map where they differ.
func (n *nftPlan) destinations(spans []span) string {
	one := !slices.ContainsFunc(spans, func(s span) bool { return s.to != spans[0].to })
	words := make([]string, len(spans))
	for i, s := range spans {
		words[i] = s.String()
		if !one {
			words[i] += " : " + n.verdict(s.to)
		}
	}
	set := "{ " + strings.Join(words, ", ") + " }"
	if one {
		return set + " " + n.verdict(spans[0].to)
	}
	return "vmap " + set
}

// conditions writes what a rule asks for beside the destination.
func (k *kernelRule) conditions() string {
	var s string
	switch {
	case k.protocol != "":
		s = "meta l4proto " + k.protocol + " "
	case k.ports != nil || k.localPorts != nil:
		s = "meta l4proto { tcp, udp } "
	}
	if k.ports != nil {
		s += "th dport " + portSet(k.ports) + " "
	}
	if k.localPorts != nil {
		s += "th sport " + portSet(k.localPorts) + " "
	}
	return s
}

// portSet writes ports as a set without overlaps.
func portSet(list []dialer.PortRange) string {
	words := make([]string, 0, len(list))
	for _, r := range mergePorts(list) {
		words = append(words, r.String())
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// mergePorts returns list in ascending order, with ranges that overlap or meet made one.
func mergePorts(list []dialer.PortRange) []dialer.PortRange {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b dialer.PortRange) int { return int(a.Lo) - int(b.Lo) })
	var out []dialer.PortRange
	for _, r := range sorted {
		if last := len(out) - 1; last >= 0 && int(r.Lo) <= int(out[last].Hi)+1 {
			out[last].Hi = max(out[last].Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// verdict returns what becomes of flows to t, and notes that its chain is needed.
func (n *nftPlan) verdict(t target) string {
	switch {
	case t.use.Kernel:
		return "accept"
	case t.use.Source == nil && t.use.Pool == nil:
		if t.use.Same {
			n.gap(n.at, false, "same is the address that a client connected to; there is none, and such flows are dropped")
		}
		return "drop"
	}
	name, known := n.chains[t]
	if !known {
		name = n.chainName(t)
		n.chains[t] = name
		n.needs = append(n.needs, need{t, n.at})
		n.inPart(t)
	}
	return "goto " + name
}

// chainName returns a free name that nft takes for one.
func (n *nftPlan) chainName(t target) string {
	base := "from_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.use.String())
	const longest = 100 // nft takes 127
	base = base[:min(len(base), longest)]
	if t.port != 0 {
		base += fmt.Sprintf("_port_%d", t.port)
	}
	name := base
	for i := 2; n.names[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	n.names[name] = true
	return name
}

// members returns the names of those of a pool.
func members(p *dialer.Pool) string {
	var names []string
	for _, m := range p.Of {
		names = append(names, m.Source.Name)
	}
	return strings.Join(names, ", ")
}

// inPart notes what of a target the kernel cannot do.
func (n *nftPlan) inPart(t target) {
	add := func(format string, args ...any) {
		n.gap(n.at, true, "%s: %s", t.use, fmt.Sprintf(format, args...))
	}
	if p := t.use.Pool; p != nil {
		switch p.Pick {
		case dialer.FirstUp:
			add("always the first of %s, also while it is down; the others are left out", members(p))
		case dialer.Sticky:
			add("the kernel knows neither clients nor users nor the same hash; the member depends on the destination")
		case dialer.LeastConnections:
			add("the kernel does not count connections; the members take turns")
		}
	}
	s := t.use.Source
	if s == nil {
		return
	}
	if s.Prefix.IsValid() {
		add("the kernel picks the address by those of both ends, not a fresh one for each connection")
	}
	if s.First.IsValid() {
		add("the kernel picks the address by those of both ends")
	}
	if s.Interface != "" {
		add("flows that leave by another link are dropped")
	}
	if s.Device != "" || s.Mark != 0 {
		add("the link is chosen before the source, by srcproxy plan --iproute")
	}
}

// chain writes what gives flows the source of a target.
func (n *nftPlan) chain(b *strings.Builder, t target) {
	fmt.Fprintf(b, "\tchain %s {\n", n.chains[t])
	for _, is4 := range []bool{true, false} {
		family := "meta nfproto ipv6 "
		if is4 {
			family = "meta nfproto ipv4 "
		}
		if t.use.Pool != nil {
			n.pool(b, family, t, is4)
			continue
		}
		if statement := snat(t, is4); statement != "" {
			fmt.Fprintf(b, "\t\t%smeta l4proto { tcp, udp } %s\n", family, statement)
		}
	}
	b.WriteString("\t\tdrop\n\t}\n")
}

// snat returns the statement that sets the source, or nothing where t has none of the
// family.
func snat(t target, is4 bool) string {
	s := t.use.Source
	ports := ""
	if !s.Ports.IsZero() {
		ports = ":" + s.Ports.String()
	}
	if t.port != 0 {
		ports = fmt.Sprintf(":%d", t.port)
	}
	if s.Interface != "" {
		return strings.TrimSuffix(fmt.Sprintf("oifname %q masquerade to %s", s.Interface, ports), " to ")
	}
	a := sourceOf(s, is4)
	if !a.IsValid() {
		return ""
	}
	last := a
	switch {
	case s.Prefix.IsValid():
		last = lastOf(s.Prefix)
	case s.First.IsValid():
		last = s.Last
	}
	return natTo(a, last, ports)
}

// natTo writes the addresses and the ports of a snat statement.
func natTo(a, last netip.Addr, ports string) string {
	word, bracket := "snat ip to ", "%v"
	if a.Is6() {
		word = "snat ip6 to "
		if ports != "" {
			bracket = "[%v]"
		}
	}
	to := fmt.Sprintf(bracket, a)
	if last != a {
		to += "-" + fmt.Sprintf(bracket, last)
	}
	return word + to + ports
}

// pool writes the choice among the members that have the family.
func (n *nftPlan) pool(b *strings.Builder, family string, t target, is4 bool) {
	var members []dialer.Member
	total := 0
	for _, m := range t.use.Pool.Of {
		if m.Source.Interface != "" || sourceOf(m.Source, is4).IsValid() {
			members = append(members, m)
			total += max(m.Weight, 1)
		}
	}
	if len(members) == 0 {
		return
	}
	goTo := func(m dialer.Member) string { return n.verdict(target{dialer.Use{Source: m.Source}, t.port}) }
	if t.use.Pool.Pick == dialer.FirstUp || len(members) == 1 {
		fmt.Fprintf(b, "\t\t%s%s\n", family, goTo(members[0]))
		return
	}
	words := make([]string, len(members))
	first := 0
	for i, m := range members {
		next := first + max(m.Weight, 1)
		words[i] = fmt.Sprintf("%s : %s", numbers(first, next-1), goTo(m))
		first = next
	}
	fmt.Fprintf(b, "\t\t%s%s mod %d vmap { %s }\n", family, number(t.use.Pool.Pick, is4), total, strings.Join(words, ", "))
}

func numbers(first, last int) string {
	if first == last {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// number is the expression that picks a member.
func number(p dialer.Pick, is4 bool) string {
	switch p {
	case dialer.Random:
		return "numgen random"
	case dialer.Sticky:
		if is4 {
			return "jhash ip daddr"
		}
		return "jhash ip6 daddr"
	}
	return "numgen inc"
}
