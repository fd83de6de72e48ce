//go:build linux

package integration

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// A leakPlan is one configuration of the leak harness, with what it allows: for
// each destination the sources that its flows may leave from. A destination
// with none is refused.
type leakPlan struct {
	config  string
	allowed map[netip.Addr][]netip.Prefix
}

// The destinations of the harness, in blocks that share a rule.
const (
	block4       = 10 // destinations of a block of IPv4
	blocks4      = 9  // 203.0.113.1 to 90
	named        = 20 // d1.leak.example to d20.leak.example are 203.0.113.101 to 120
	firstNamed   = 101
	forwards     = 12 // 203.0.113.201 to 212 are targets of UDP forwards
	firstForward = 201
	rest4        = 221 // 203.0.113.221 to 230 are left to the default
	block6       = 10  // of IPv6
	blocks6      = 4   // 2001:db8:2::1 to 40
)

// leakHosts are the lines of /etc/hosts for the named destinations.
func leakHosts() []string {
	var lines []string
	for i := range named {
		lines = append(lines, fmt.Sprintf("%v d%d.leak.example", nstest.ServerV4(firstNamed+i), i+1))
	}
	return lines
}

// planner draws the parts of one plan.
type planner struct {
	*rand.Rand
	plan  leakPlan
	text  strings.Builder // rules, listeners
	pools strings.Builder
	count int // of pools
}

// newLeakPlan draws a plan. The listeners are the same in every plan.
func newLeakPlan(r *rand.Rand) *leakPlan {
	p := &planner{Rand: r, plan: leakPlan{allowed: make(map[netip.Addr][]netip.Prefix)}}
	p.rules()
	p.listeners()
	otherwise, sources := p.use4()
	p.allow(sources, hosts4(rest4, 10)...)
	p.plan.config = fmt.Sprintf("default = %q\n\n[sources]\n%s\n[pools]\n%s\n%s", otherwise, leakSources(), p.pools.String(), p.text.String())
	return &p.plan
}

// leakSources names every source: s10 has one address of each family, four and
// six have one alone, range and crawl are of many, narrow has few ports.
func leakSources() string {
	var b strings.Builder
	for i := nstest.FirstSource; i <= nstest.LastSource; i++ {
		fmt.Fprintf(&b, "s%d = [%q, %q]\n", i, nstest.ProxyV4(i), nstest.ProxyV6(i))
	}
	fmt.Fprintf(&b, "four = %q\nsix = %q\n", nstest.ProxyV4(20), nstest.ProxyV6(20))
	fmt.Fprintf(&b, "range = { ip = \"%v-%v\" }\n", nstest.ProxyV4(12), nstest.ProxyV4(19))
	fmt.Fprintf(&b, "crawl = { ip = %q }\n", nstest.RoutedPrefix())
	fmt.Fprintf(&b, "narrow = { ip = %q, ports = \"40000-40999\" }\n", nstest.ProxyV4(21))
	return b.String()
}

// rules covers the blocks in one of several forms each.
func (p *planner) rules() {
	for b := range blocks4 {
		dsts := hosts4(1+b*block4, block4)
		use, sources := p.use4()
		p.allow(sources, dsts...)
		p.rule(use, dsts)
	}
	for b := range blocks6 {
		dsts := hosts6(1+b*block6, block6)
		use, sources := p.use6()
		p.allow(sources, dsts...)
		p.rule(use, dsts)
	}
	use, sources := p.use4()
	p.allow(sources, hosts4(firstNamed, named)...)
	fmt.Fprintf(&p.text, "[[rules]]\nto = [\"*.leak.example\"]\nuse = %q\n", use)
}

// rule writes one rule for the destinations, or two.
func (p *planner) rule(use string, dsts []netip.Addr) {
	switch p.IntN(4) {
	case 0:
		fmt.Fprintf(&p.text, "[[rules]]\nto = [%s]\nuse = %q\n", quoted(dsts), use)
	case 1: // a map, with a longer prefix than another rule's below
		fmt.Fprintf(&p.text, "[[rules]]\n[rules.map]\n")
		for _, d := range dsts {
			fmt.Fprintf(&p.text, "%q = %q\n", d, use)
		}
	case 2: // by port; the second rule is for the protocol that has none
		fmt.Fprintf(&p.text, "[[rules]]\nto = [%s]\nport = [7, \"4000-4010\"]\nuse = %q\n", quoted(dsts), use)
	case 3: // by protocol, after one that never matches
		fmt.Fprintf(&p.text, "[[rules]]\nto = [%s]\nuser = \"nobody\"\nuse = \"198.51.100.1\"\n", quoted(dsts))
		fmt.Fprintf(&p.text, "[[rules]]\nto = [%s]\nprotocol = \"tcp\"\nuse = %q\n", quoted(dsts), use)
	}
}

func (p *planner) listeners() {
	p.text.WriteString("[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	for i := range forwards {
		dst := nstest.ServerV4(firstForward + i)
		fmt.Fprintf(&p.text, "[[listen]]\nudp = \"127.0.0.1:%d\"\nto = \"%v:7\"\n", firstForward+i, dst)
		source := nstest.FirstSource + p.IntN(nstest.LastSource-nstest.FirstSource)
		fmt.Fprintf(&p.text, "use = \"s%d\"\n", source)
		p.allow([]netip.Prefix{single(nstest.ProxyV4(source))}, dst)
	}
}

func (p *planner) allow(sources []netip.Prefix, dsts ...netip.Addr) {
	for _, d := range dsts {
		p.plan.allowed[d] = append(p.plan.allowed[d], sources...)
	}
}

func (p *planner) source() int {
	return nstest.FirstSource + p.IntN(nstest.LastSource-nstest.FirstSource+1)
}

// use4 draws the use of a rule for IPv4, and what it allows.
func (p *planner) use4() (string, []netip.Prefix) {
	switch p.IntN(8) {
	case 0:
		return "deny", nil
	case 1:
		return "six", nil // has no IPv4 address: refused
	case 2:
		i := p.source()
		return nstest.ProxyV4(i).String(), []netip.Prefix{single(nstest.ProxyV4(i))}
	case 3:
		return "range", singles(nstest.ProxyV4, 12, 13, 14, 15, 16, 17, 18, 19)
	case 4:
		return "narrow", singles(nstest.ProxyV4, 21)
	case 5:
		i := p.source()
		return fmt.Sprintf("s%d", i), singles(nstest.ProxyV4, i)
	}
	name, members := p.pool()
	return name, singles(nstest.ProxyV4, members...)
}

// use6 is use4 for IPv6.
func (p *planner) use6() (string, []netip.Prefix) {
	switch p.IntN(7) {
	case 0:
		return "deny", nil
	case 1:
		return "four", nil
	case 2:
		i := p.source()
		return nstest.ProxyV6(i).String(), []netip.Prefix{single(nstest.ProxyV6(i))}
	case 3:
		return "crawl", []netip.Prefix{nstest.RoutedPrefix()}
	case 4:
		i := p.source()
		return fmt.Sprintf("s%d", i), singles(nstest.ProxyV6, i)
	}
	name, members := p.pool()
	return name, singles(nstest.ProxyV6, members...)
}

// pool writes a pool of two to four sources and returns their numbers.
func (p *planner) pool() (name string, members []int) {
	picks := []string{`"first-up"`, `"round-robin"`, `"random"`, `"sticky", by = ["destination"]`, `"least-connections"`}
	p.count++
	name = fmt.Sprintf("pool%d", p.count)
	members = p.Perm(nstest.LastSource - nstest.FirstSource + 1)[:2+p.IntN(3)]
	var of []string
	for i := range members {
		members[i] += nstest.FirstSource
		of = append(of, fmt.Sprintf("\"s%d\"", members[i]))
	}
	fmt.Fprintf(&p.pools, "%s = { of = [%s], pick = %s }\n", name, strings.Join(of, ", "), picks[p.IntN(len(picks))])
	return name, members
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func singles(address func(int) netip.Addr, numbers ...int) []netip.Prefix {
	var all []netip.Prefix
	for _, i := range numbers {
		all = append(all, single(address(i)))
	}
	return all
}

func hosts4(first, n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, nstest.ServerV4(first+i))
	}
	return all
}

func hosts6(first, n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, nstest.ServerV6(first+i))
	}
	return all
}

func quoted(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, fmt.Sprintf("%q", a))
	}
	return strings.Join(all, ", ")
}
