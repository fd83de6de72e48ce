package dialer

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// A Source is a local address, or a set of them, that flows may leave from.
// Exactly one of Addrs, Prefix, First with Last, and Interface is set. A Source is not changed
// once a Table was made from it.
type Source struct {
	Name string

	// Addrs holds at most one address per family. A flow to a family that is not
	// among them is refused.
	Addrs []netip.Addr

	// Prefix gives every connection an address of its own out of the prefix. It
	// implies FreeBind, as the addresses need not be on an interface: a local
	// route (ip route add local PREFIX dev lo) makes their packets come back.
	Prefix netip.Prefix

	// First and Last bound a range of addresses, both inclusive.
	First, Last netip.Addr

	// Interface is a link whose address is taken, whatever it is at the moment (DHCP,
	// PPP): State.LinkAddr tells for each flow. Without a State such a source is down.
	Interface string

	// Ports limits the local ports by IP_LOCAL_PORT_RANGE (Linux 6.3). It must lie
	// inside net.ipv4.ip_local_port_range, since the kernel ignores what is outside.
	// The zero value leaves the choice to the kernel.
	Ports PortRange

	// FreeBind sets IP_FREEBIND: an address that is on no interface may be bound.
	FreeBind bool

	// Device is the link that packets leave and answers come in by (SO_BINDTODEVICE),
	// whatever the routing table says of other links. It needs a route on that link, and
	// no right on a socket that has no device yet. Empty: the routing table chooses.
	Device string

	// Mark is what ip-rule(8) knows as fwmark (SO_MARK): it can send the packets to a
	// routing table of their own. It needs CAP_NET_ADMIN or CAP_NET_RAW. Zero: none.
	Mark uint32
}

// PortRange is an inclusive range of ports. The zero value is no range.
type PortRange struct{ Lo, Hi uint16 }

// IsZero reports whether r is no range.
func (r PortRange) IsZero() bool { return r == PortRange{} }

// Len returns the number of ports in r; of the zero value that is 1.
func (r PortRange) Len() int { return int(r.Hi) - int(r.Lo) + 1 }

// Contains reports whether p is in r.
func (r PortRange) Contains(p uint16) bool { return r.Lo <= p && p <= r.Hi }

// String returns "lo-hi", or one port where both are the same.
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return fmt.Sprint(r.Lo)
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

// A Member is one source of a pool. Weight counts in RoundRobin, Random, Sticky
// and LeastConnections; zero means 1.
type Member struct {
	Source *Source
	Weight int
}

// A Pool is several sources under one name. Members that are down, or that lack
// the family of the destination, do not take part. The zero Pick is FirstUp.
type Pool struct {
	Name string
	Of   []Member
	Pick Pick

	// By names what Sticky hashes; empty means the client.
	By []Key

	// For is the time after which a Sticky key may move to another member; each
	// key has its own moment. Zero means never.
	For time.Duration

	// Retry lets a dial go on with the next member when the picked one has no free
	// port or cannot be bound. A failure on the far side is never retried.
	Retry bool
}

// Pick is a way to pick one member of a pool.
type Pick uint8

// The ways to pick a member.
const (
	FirstUp          Pick = iota // the first that is up, in the order written
	RoundRobin                   // one after the other
	Random                       // at random
	Sticky                       // by a rendezvous hash of the pool's keys: no state, the same after a restart
	LeastConnections             // the one with the fewest live flows
)

var picks = [...]string{"first-up", "round-robin", "random", "sticky", "least-connections"}

// String returns the word used in the configuration.
func (p Pick) String() string { return word(picks[:], int(p)) }

// ParsePick returns the Pick that a configuration calls s.
func ParsePick(s string) (Pick, error) {
	i, err := index(picks[:], "pick", s)
	return Pick(i), err
}

// Key is a property of a flow that Sticky hashes.
type Key uint8

// The properties that Sticky can hash.
const (
	ByClient      Key = iota // the client's address
	ByUser                   // the name given at the login
	BySession                // the SESSION of a login as "user-SESSION"
	ByHost                   // the name the client asked for, else the address
	ByDestination            // the address to be dialled
	ByListener               // the listener's name
)

var keys = [...]string{"client", "user", "session", "host", "destination", "listener"}

// String returns the word used in the configuration.
func (k Key) String() string { return word(keys[:], int(k)) }

// ParseKey returns the Key that a configuration calls s.
func ParseKey(s string) (Key, error) {
	i, err := index(keys[:], "key", s)
	return Key(i), err
}

func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func index(words []string, what, s string) (int, error) {
	for i, w := range words {
		if w == s {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s %q: want one of %q", what, s, words)
}

// A Use says where a flow leaves from. At most one field is set; the zero Use
// denies, so that a forgotten one never leaks.
type Use struct {
	Source *Source
	Pool   *Pool
	Kernel bool // the routing table chooses, as without srcproxy

	// Same takes the address that the client connected to, Flow.Asked. A flow whose
	// client connected to loopback, or by the other family, is refused.
	Same bool
}

// String returns the name of the source or pool, "kernel", "same" or "deny".
func (u Use) String() string {
	switch {
	case u.Source != nil:
		return u.Source.Name
	case u.Pool != nil:
		return u.Pool.Name
	case u.Kernel:
		return "kernel"
	case u.Same:
		return sameSource.Name
	}
	return "deny"
}

// A Match is one element of a rule's To or Map: an address, a prefix or a pattern
// of names. It is comparable, and made by ParseMatch or MatchPrefix.
type Match struct{ target ruleset.Target }

// ParseMatch reads an address, a prefix, "a.example" (that name), "*.a.example"
// (the names below it) or ".a.example" (both).
func ParseMatch(s string) (Match, error) {
	t, err := ruleset.ParseTarget(s)
	return Match{t}, err
}

// MatchPrefix returns the Match of all addresses in p.
func MatchPrefix(p netip.Prefix) Match { return Match{ruleset.Target{Prefix: p.Masked()}} }

// Prefix returns the prefix of m; it is not valid when m is a pattern of names.
func (m Match) Prefix() netip.Prefix { return m.target.Prefix }

// String returns m as ParseMatch reads it.
func (m Match) String() string { return m.target.String() }

// A Rule decides where the flows it matches leave from. It matches when every
// condition that is set holds; a list holds when one of its elements does. A
// condition on something that is not known of a flow (a user, a local port) does
// not hold.
type Rule struct {
	Name      string // empty: "rule N", its place from 1
	To        []Match
	Ports     []PortRange // of the destination
	Protocol  string      // "tcp", "udp"; empty: both
	Client    []netip.Prefix
	User      []string
	Listener  []string
	Service   []string    // the services of the kernel plane that the rule is for
	LocalPort []PortRange // the port the program itself sends from

	// Map decides by destination: inside it the exact name, then the longest
	// suffix, then the longest prefix wins. A flow without a hit is not matched.
	// A rule has Map or Use.
	Map map[Match]Use
	Use Use

	// SourcePort fixes the local port. Zero leaves it free.
	SourcePort uint16
}

// A Flow is what is known of a connection, or of one UDP conversation, before it
// is opened.
type Flow struct {
	Network string // "tcp", "udp", with or without 4 or 6

	// Dst is the address to be dialled. Where only Name is known yet its Addr is
	// not valid, and its port is still set.
	Dst  netip.AddrPort
	Name string // the name that was asked for, if any; case and a trailing dot do not matter

	Client    netip.AddrPort // who asks
	Asked     netip.AddrPort // the local address it connected to
	User      string         // the name given at the login
	Session   string         // and what followed it as "-SESSION"
	Listener  string
	Service   string // in the kernel plane, the service that the flow is of
	LocalPort uint16
}

// A Decision is the table's answer for one flow.
type Decision struct {
	Rule   string // the rule's name, "rule N", or "default"
	Index  int    // the rule's place from 0; -1 for the default
	Use    Use
	Source *Source      // nil when the kernel chooses, or when refused before one was picked; of Same, one with that name and no addresses
	Addr   netip.Addr   // the local address to bind; not valid when the kernel chooses
	Ports  PortRange    // the local ports, when the source limits them
	Port   uint16       // the local port, when the rule fixes it
	Prefix netip.Prefix // the prefix that decided; not valid when a name or nothing did
	Err    error        // why the flow is refused; nil when it may be dialled
}

// State is what a table cannot know of its sources. Its methods must be safe for
// concurrent use.
type State interface {
	// Down returns why a, an address of s, cannot be used now, or nil.
	Down(s *Source, a netip.Addr) error

	// LinkAddr returns the address that a link, as the Interface of a Source, has now in
	// that family; the zero Addr when it has none.
	LinkAddr(link string, is4 bool) netip.Addr

	// Flows returns how many live flows leave from s.
	Flows(s *Source) int
}

// RouteState is a State that knows which addresses are local by a route alone. Use.Same
// takes such an address in IPv6 only where there is one, since to bind it the kernel has
// to be told not to look whether it is there.
type RouteState interface {
	State

	// ByRoute reports whether a is local only as part of a prefix, on no interface.
	ByRoute(a netip.Addr) bool
}

// WayState is a State that knows which way packets take.
type WayState interface {
	State

	// Astray returns why packets from a, an address of s, would be lost on their way to
	// dst, or where dst is not valid, wherever they go; else nil. Such a source does not
	// take part, as one that is down.
	Astray(s *Source, a, dst netip.Addr) error
}

// LifeState is a State that tells of a source's end at once. Without it, a TCP dial whose
// source address goes away waits for an answer that cannot come.
type LifeState interface {
	State

	// While returns a context that ends with ctx, or with the address a of s, and then by
	// a cause that matches ErrSourceDown. The caller calls done when it no longer needs it.
	While(ctx context.Context, s *Source, a netip.Addr) (_ context.Context, done func())
}

// Limiter bounds the flows of each source. Its methods must be safe for concurrent
// use, and their errors match ErrLimit.
type Limiter interface {
	// Full returns why no further flow may leave from s now, or nil. The members of a
	// pool are asked: one that is full does not take part.
	Full(s *Source) error

	// Enter takes a place for one flow, or says why there is none.
	Enter(s *Source) error

	// Leave gives back a place that Enter took.
	Leave(s *Source)
}
