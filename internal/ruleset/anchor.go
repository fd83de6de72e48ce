package ruleset

import (
	"iter"
	"net/netip"
)

// anchor is the condition under whose values a rule is filed.
type anchor uint8

const (
	anchorNone anchor = iota
	anchorTo
	anchorMap
	anchorClient
	anchorUser
	anchorListener
	anchorService
	anchorPort
	anchorLocalPort
)

// anchors in the order in which they are preferred. Destinations come first: a kernel hook looks up nothing else.
var anchors = [...]anchor{anchorTo, anchorMap, anchorClient, anchorUser, anchorListener, anchorService, anchorPort, anchorLocalPort}

// has reports whether r has the condition, and so keys for it.
func (r *Rule) has(a anchor) bool {
	switch a {
	case anchorTo:
		return len(r.To) > 0
	case anchorMap:
		return len(r.Map) > 0
	case anchorClient:
		return len(r.Client) > 0
	case anchorUser:
		return len(r.Users) > 0
	case anchorListener:
		return len(r.Listeners) > 0
	case anchorService:
		return len(r.Services) > 0
	case anchorPort:
		return len(r.Ports) > 0
	case anchorLocalPort:
		return len(r.LocalPorts) > 0
	}
	return false
}

// hasOnly reports whether r has no other condition that it could be filed under.
func (r *Rule) hasOnly(a anchor) bool {
	for _, other := range anchors {
		if other != a && r.has(other) {
			return false
		}
	}
	return true
}

// kind is what a key is looked up by.
type kind uint8

const (
	kindAny kind = iota
	kindDst
	kindBelow // before kindExact: what a name inherits from is built first
	kindExact
	kindClient
	kindUser
	kindListener
	kindService
	kindPort
	kindLocalPort
)

// byAddress reports whether the keys are prefixes.
func (k kind) byAddress() bool {
	return k == kindDst || k == kindClient || k == kindPort || k == kindLocalPort
}

// byDestination reports whether being filed under such a key settles what met the destination.
func (k kind) byDestination() bool { return k == kindDst || k == kindBelow || k == kindExact }

// key is a value that rules are filed under.
type key struct {
	kind   kind
	prefix netip.Prefix // byAddress
	text   string       // else
}

// filed is a key with what a candidate under it needs.
type filed struct {
	key     key
	outcome int32
	width   uint8
}

// keys yields the keys under which r is filed when its anchor is a; none when it lacks that condition.
func (r *Rule) keys(a anchor) iter.Seq[filed] {
	return func(yield func(filed) bool) {
		switch a {
		case anchorNone:
			yield(filed{outcome: r.Outcome})
		case anchorTo:
			for _, t := range r.To {
				if !t.keys(r.Outcome, yield) {
					return
				}
			}
		case anchorMap:
			for t, outcome := range r.Map {
				if !t.keys(outcome, yield) {
					return
				}
			}
		case anchorClient:
			r.prefixKeys(kindClient, r.Client, yield)
		case anchorUser:
			r.textKeys(kindUser, r.Users, yield)
		case anchorListener:
			r.textKeys(kindListener, r.Listeners, yield)
		case anchorService:
			r.textKeys(kindService, r.Services, yield)
		case anchorPort:
			r.portKeys(kindPort, r.Ports, yield)
		case anchorLocalPort:
			r.portKeys(kindLocalPort, r.LocalPorts, yield)
		}
	}
}

func (t Target) keys(outcome int32, yield func(filed) bool) bool {
	if t.Prefix.IsValid() {
		return yield(filed{key{kind: kindDst, prefix: t.Prefix}, outcome, uint8(t.Prefix.Bits())}) // #nosec G115 -- at most 128
	}
	width := uint8(t.Scope)
	if t.Scope != Below && !yield(filed{key{kind: kindExact, text: t.Name}, outcome, width}) {
		return false
	}
	return t.Scope == Exact || yield(filed{key{kind: kindBelow, text: t.Name}, outcome, width})
}

func (r *Rule) prefixKeys(k kind, list []netip.Prefix, yield func(filed) bool) {
	for _, p := range list {
		if !yield(filed{key: key{kind: k, prefix: p}, outcome: r.Outcome}) {
			return
		}
	}
}

func (r *Rule) textKeys(k kind, list []string, yield func(filed) bool) {
	for _, s := range list {
		if !yield(filed{key: key{kind: k, text: s}, outcome: r.Outcome}) {
			return
		}
	}
}

func (r *Rule) portKeys(k kind, ranges []PortRange, yield func(filed) bool) {
	for _, ports := range mergeRanges(ranges) {
		for p := range ports.blocks() {
			if !yield(filed{key: key{kind: k, prefix: p}, outcome: r.Outcome}) {
				return
			}
		}
	}
}

// blocks yields the at most 30 blocks, aligned and of a power of two, that make up r. A block is written as a prefix of
// portAddr, so that ports share the tree of addresses.
func (r PortRange) blocks() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for lo, end := int(r.Lo), int(r.Hi)+1; lo < end; {
			bits, size := 16, 1
			for bits > 0 && lo%(2*size) == 0 && lo+2*size <= end {
				bits, size = bits-1, 2*size
			}
			if !yield(netip.PrefixFrom(address16(lo), bits)) {
				return
			}
			lo += size
		}
	}
}

// portAddr returns the address that a port has in a tree of port blocks, none for the unknown port.
func portAddr(port uint16) netip.Addr {
	if port == 0 {
		return netip.Addr{}
	}
	return address16(int(port))
}

func address16(n int) netip.Addr { return netip.AddrFrom4([4]byte{byte(n >> 8), byte(n)}) }
