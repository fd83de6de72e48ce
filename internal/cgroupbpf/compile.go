//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// The bounds of what the hooks walk through (c/rules.h), and of the memory that rules may take.
const (
	maxCandidates = 4096 // of one prefix
	maxMembers    = 256  // of one pool
	maxTotal      = 1 << 22
)

// Options says for what rules are compiled. The zero value is for programs that belong to no service.
type Options struct {
	// Service is the service whose rules count. Rules that name others do not.
	Service string

	// Override makes the rules hold for sockets that the program bound itself, as far as the hooks can change those.
	Override bool

	// MarkWildcard gives a socket that is bound to a port, but to no address, the Mark of its source when it connects: the
	// hook cannot bind it any more. A policy route for the mark (ip rule fwmark) has to choose the address then, and
	// SetWays has to have said that it does. Otherwise such a connect is refused.
	MarkWildcard bool

	// Log has the hooks tell of each decision, where the Plane has somebody to tell.
	Log bool

	// Netns is the cookie (SO_NETNS_COOKIE) of the network namespace that the rules are for. Calls in others are left
	// alone. 0: any.
	Netns uint64
}

// Rules are compiled rules. They never change, and may be given to several Planes.
type Rules struct {
	settings   hooksSettings
	lists      map[hooksPrefix]hooksList
	carried    map[hooksPrefix]hooksList
	candidates []hooksCandidate
	uses       []hooksUse
	wanted     []dialer.Use // by use
	members    []hooksMember
	sources    []*dialer.Source // by member
	names      []string         // of the rules, and at the end of the default
}

// special are the destinations that are left to the kernel, unless a rule has a prefix inside of one: this host, its links
// (RFC 3927, RFC 4291 section 2.5.6) and groups.
var special = [...]netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// everywhere has an entry for each family, so that a lookup always finds one of its own.
var everywhere = [...]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// carriers are the prefixes whose addresses carry an IPv4 address; which one, c/judge.h knows.
var carriers = [...]netip.Prefix{
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("::/96"),
}

// noRule is NO_RULE of c/rules.h.
const noRule = math.MaxUint32

// The first uses stand at fixed places.
const (
	useDeny = iota
	useKernel
)

// Compile turns the rules of t into the form that the hooks read. The error names each rule or pool that asks for what
// hooks cannot do. Rules with a condition on the client, the user or the listener are left out, and names among
// destinations: they do not match here.
func Compile(t *dialer.Table, o Options) (*Rules, error) {
	c := newCompiler(o)
	c.rule = "default"
	otherwise := c.use(t.Default())
	c.fill(t, otherwise)
	if c.errs != nil {
		return nil, errors.Join(c.errs...)
	}
	return c.finish(), nil
}

// Addrs returns the addresses of all sources that the rules can pick, each once.
func (r *Rules) Addrs() []netip.Addr {
	var addrs []netip.Addr
	seen := make(map[netip.Addr]bool)
	for _, s := range r.sources {
		for _, a := range s.Addrs {
			if !seen[a] {
				addrs = append(addrs, a)
			}
			seen[a] = true
		}
	}
	return addrs
}

type compiler struct {
	Rules
	options Options
	rule    string // what is compiled, for errors
	numbers map[dialer.Use]uint32
	shared  map[string]hooksList
	key     []byte
	errs    []error
}

func newCompiler(o Options) *compiler {
	c := &compiler{options: o, numbers: make(map[dialer.Use]uint32), shared: make(map[string]hooksList)}
	c.uses = []hooksUse{useDeny: {Kind: hooksKindDENY}, useKernel: {Kind: hooksKindKERNEL}}
	c.wanted = []dialer.Use{useDeny: {}, useKernel: {Kernel: true}}
	c.lists, c.carried = make(map[hooksPrefix]hooksList), make(map[hooksPrefix]hooksList)
	c.settings = hooksSettings{Netns: o.Netns, Override: flag(o.Override), MarkWildcard: flag(o.MarkWildcard), Log: flag(o.Log)}
	return c
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// fill makes the lists of all prefixes.
func (c *compiler) fill(t *dialer.Table, otherwise uint32) {
	view := dialer.View{Service: c.options.Service, Counts: counts}
	for p, candidates := range t.Prefixes(view) {
		c.lists[key(p)] = c.list(candidates)
	}
	view.Counts = hasDestination
	for p, candidates := range t.Prefixes(view) {
		if p.Addr().Is4() {
			c.carried[key(p)] = c.list(candidates)
		}
	}
	for _, p := range append(everywhere[:], special[:]...) {
		if _, ok := c.lists[key(p)]; !ok {
			c.lists[key(p)] = hooksList{}
		}
	}
	for k, l := range c.lists {
		c.lists[k] = c.complete(prefixOf(k), l, otherwise)
	}
}

// complete says what decides in p when no candidate does. Where the first one always does, it stands in the list itself.
func (c *compiler) complete(p netip.Prefix, l hooksList, otherwise uint32) hooksList {
	if l.Count > 0 {
		first := c.candidates[l.First]
		if first == (hooksCandidate{Rule: first.Rule, Use: first.Use, PortHigh: math.MaxUint16, LocalHigh: math.MaxUint16}) {
			return hooksList{Use: first.Use, Rule: first.Rule}
		}
	}
	l.Use, l.Rule = otherwise, uint32(len(c.names)) // #nosec G115 -- ruleset bounds the number of rules
	if inSpecial(p) >= 0 {
		l.Use, l.Rule = useKernel, noRule
	}
	return l
}

func (c *compiler) finish() *Rules {
	r := c.Rules
	r.names = append(r.names, "default")
	r.settings.Row = uint32(len(r.names))
	return &r
}

// counts is a dialer.View's: inside of a special range only rules with a prefix of their own there.
func counts(prefix, own netip.Prefix) bool {
	i := inSpecial(prefix)
	return i < 0 || own.IsValid() && inSpecial(own) == i
}

func hasDestination(_, own netip.Prefix) bool { return own.IsValid() }

// inSpecial returns the place of the special range that p lies in, or -1.
func inSpecial(p netip.Prefix) int { return within(special[:], p) }

func within(ranges []netip.Prefix, p netip.Prefix) int {
	for i, r := range ranges {
		if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return i
		}
	}
	return -1
}

// list files candidates and returns where they are. Equal lists are filed once.
func (c *compiler) list(candidates []dialer.Candidate) hooksList {
	first := len(c.candidates)
	for i := range candidates {
		c.candidate(&candidates[i])
	}
	filed := c.candidates[first:]
	if len(filed) > maxCandidates || len(c.candidates) > maxTotal {
		c.fail(fmt.Errorf("%d rules and port ranges may decide one destination, and %d all of them; the kernel plane takes %d and %d: "+
			"give rules a destination (to), or use less ports in one rule", len(filed), len(c.candidates), maxCandidates, maxTotal))
		c.candidates = c.candidates[:first]
		return hooksList{}
	}
	k := c.keyOf(filed)
	if l, ok := c.shared[k]; ok {
		c.candidates = c.candidates[:first]
		return l
	}
	l := hooksList{First: uint32(first), Count: uint32(len(filed))} // #nosec G115 -- at most maxTotal
	c.shared[k] = l
	return l
}

// candidate files one rule: once for each pair of a port range and a local port range.
func (c *compiler) candidate(k *dialer.Candidate) {
	for len(c.names) <= k.Index {
		c.names = append(c.names, "")
	}
	c.names[k.Index], c.rule = k.Rule, k.Rule
	e := hooksCandidate{
		Rule:       uint32(k.Index), // #nosec G115 -- ruleset bounds the number of rules
		Use:        c.use(k.Use),
		SourcePort: k.SourcePort,
		Protocol:   protocol(k),
		Deliberate: flag(k.Prefix.IsValid() && within(carriers[:], k.Prefix) >= 0),
	}
	for _, port := range ranges(k.Ports) {
		for _, local := range ranges(k.LocalPort) {
			e.PortLow, e.PortHigh, e.LocalLow, e.LocalHigh = port.Lo, port.Hi, local.Lo, local.Hi
			c.candidates = append(c.candidates, e)
		}
	}
}

func protocol(k *dialer.Candidate) uint8 {
	switch {
	case k.TCP && k.UDP:
		return 0 // and any other
	case k.TCP:
		return uint8(ruleset.TCP)
	}
	return uint8(ruleset.UDP)
}

// ranges returns what the hooks compare a port with. An unknown port, 0, lies in no range but that of no condition.
func ranges(list []dialer.PortRange) []dialer.PortRange {
	if len(list) == 0 {
		return []dialer.PortRange{{Lo: 0, Hi: math.MaxUint16}}
	}
	out := make([]dialer.PortRange, len(list))
	for i, r := range list {
		out[i] = dialer.PortRange{Lo: max(r.Lo, 1), Hi: r.Hi}
	}
	return out
}

func (c *compiler) fail(err error) { c.errs = append(c.errs, fmt.Errorf("%s: %w", c.rule, err)) }
