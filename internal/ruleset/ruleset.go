// Package ruleset answers which rule of an ordered list decides a flow, at a cost that does not grow with the list.
//
// Compile files each rule under its most selective condition and gives a Set. Set.First looks a query up in one index
// per kind of condition and keeps the lowest rule that matches; Walk and Slow do the same thing the obvious way, one rule
// after the other, and are what the Set is tested against and what explanations are printed from. Prefixes gives the
// same compilation in the form a kernel hook can hold: a longest-prefix table with the candidates of each prefix.
//
// # Semantics
//
// A rule matches when every condition it has matches; a list matches when one element does. A query field that is zero is
// unknown, and a rule with a condition on it does not match. Names match the name asked for, prefixes the address. When
// both a name and a prefix of one rule match, the name decides; in a map an exact name comes before the longest suffix,
// and that before the longest prefix. A rule that has To and Map needs both, and is decided by name if either was met
// by a name.
//
// # Cost
//
// A lookup examines the rules filed under the keys of the query, at each level of nesting, and stops in each list at its
// first match. Under one key lie the rules that have no condition shared by fewer rules, so n rules that are told apart only
// by a pair of conditions, each of sqrt(n) values, cost sqrt(n). Memory is linear in the number of rules, list elements and map
// keys: a list inherits those of wider keys only while it stays short, else it points to them. A port range counts as
// up to 30 elements.
package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Protocol is a set of transport protocols. In a Rule zero means any, in a Query unknown.
type Protocol uint8

// The protocols a flow can have.
const (
	TCP Protocol = 1 << iota
	UDP
)

// String returns "tcp", "udp", "tcp or udp", or "any" for zero.
func (p Protocol) String() string {
	var names []string
	if p&TCP != 0 {
		names = append(names, "tcp")
	}
	if p&UDP != 0 {
		names = append(names, "udp")
	}
	if names == nil {
		return "any"
	}
	return strings.Join(names, " or ")
}

// PortRange is the ports from Lo to Hi, both included. A single port has Lo equal to Hi.
type PortRange struct{ Lo, Hi uint16 }

// Contains reports whether port is known, that is not 0, and lies in r.
func (r PortRange) Contains(port uint16) bool {
	return port != 0 && r.Lo <= port && port <= r.Hi
}

// String returns r as "25" or "587-588".
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return strconv.Itoa(int(r.Lo))
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

// Rule is one line of the list: conditions, and the outcome the caller associates with them. The zero Rule matches every
// query. A condition that is empty or zero holds for every query.
type Rule struct {
	To         []Target         // the destination; names match Query.Name, prefixes Query.Dst
	Ports      []PortRange      // the destination port
	Protocol   Protocol         // the transport
	Client     []netip.Prefix   // the address of who asked: masked and unmapped
	Users      []string         // the name given at the login, byte for byte
	Listeners  []string         // the listener that took the flow, byte for byte
	Services   []string         // the service that the flow is of, byte for byte
	LocalPorts []PortRange      // the port the program sends from
	Map        map[Target]int32 // when not nil, the rule matches only if a key does, and the outcome is that key's
	Outcome    int32            // what the caller associates with a rule without Map
}

// Query is one flow to be judged. Zero fields are unknown: a rule with a condition on them does not match.
type Query struct {
	Protocol  Protocol   // TCP or UDP
	Dst       netip.Addr // the address to be dialled; mapped IPv4 and zones are looked through
	Port      uint16     // its port
	Name      string     // the name asked for, in the form of CanonicalName
	Client    netip.Addr // who asked; mapped IPv4 and zones are looked through
	User      string     // the name given at the login
	Listener  string     // the listener that took the flow
	Service   string     // the service that the flow is of
	LocalPort uint16     // the port the program sends from
}

// addr returns a as rules know addresses: IPv4 is never mapped, and a zone does not hide an address from its prefix.
func addr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// By tells what met the destination condition of the rule that matched.
type By uint8

// The destination conditions.
const (
	ByAny    By = iota // the rule has none
	ByName             // a name of To or Map
	ByPrefix           // a prefix of To or Map, and no name
)

// Match is the rule that decides a query.
type Match struct {
	Rule    int          // its index in the list
	Outcome int32        // its outcome, or that of the map key which matched
	By      By           // what met its destination condition
	Prefix  netip.Prefix // with ByPrefix the longest prefix of the rule that contains the address, else zero
}
