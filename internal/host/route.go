package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// A RouteQuery is a flow that the kernel is asked about. Only Dst is required; other
// fields that are zero are not known yet, as those of a socket that is not bound.
type RouteQuery struct {
	Dst netip.Addr
	Src netip.Addr // the address the socket is bound to

	// Link binds the socket to a link by its name (SO_BINDTODEVICE).
	Link string

	Mark uint32  // SO_MARK
	UID  *uint32 // whose socket it is; nil means the user of this process

	// Protocol is unix.IPPROTO_TCP or unix.IPPROTO_UDP; without it rules that have a
	// protocol or ports do not match (Linux 4.17).
	Protocol         uint8
	SrcPort, DstPort uint16

	in string // the link by which the packet comes in; empty: it is ours
}

// String returns "203.0.113.9 from 198.51.100.10".
func (q RouteQuery) String() string {
	s := q.Dst.String()
	if q.Src.IsValid() {
		s += " from " + q.Src.String()
	}
	if q.Link != "" {
		s += " on " + q.Link
	}
	if q.Mark != 0 {
		s += fmt.Sprintf(" with mark %#x", q.Mark)
	}
	return s
}

// A RouteAnswer is the way that packets of a flow take.
type RouteAnswer struct {
	Type    RouteType  `json:"type"`
	Link    string     `json:"link"`             // the link that they leave by
	Gateway netip.Addr `json:"gateway,omitzero"` // not valid when the destination is on the link
	Table   Table      `json:"table"`

	// PrefSrc is the address that the kernel gives to an unbound socket. For IPv6 it is
	// so even where the query has a Src.
	PrefSrc netip.Addr `json:"prefsrc,omitzero"`

	// Route is the route that matched; its Src is valid when it has that attribute.
	Route TableRoute `json:"-"`

	// Assumed says that no route matches, and that the destination is taken to be on
	// the link of the query. That is rarely so (ip_route_output_key_hash_rcu).
	Assumed bool `json:"assumed,omitempty"`
}

// String returns "dev eth0 via 198.51.100.1 table main".
func (a RouteAnswer) String() string {
	s := "dev " + a.Link
	if a.Gateway.IsValid() {
		s += " via " + a.Gateway.String()
	}
	if a.Assumed {
		return s
	}
	return s + " table " + a.Table.String()
}

// Reasons for which there is no way to a destination. Those of Route wrap the error
// of the kernel, too.
var (
	ErrNoRoute     = errors.New("no route to it")
	ErrUnreachable = errors.New("an unreachable route refuses it")
	ErrProhibited  = errors.New("a prohibit route or rule refuses it")
	ErrBlackhole   = errors.New("a blackhole route or rule drops it")
	ErrForeign     = errors.New("the source is not an address of this host")
	ErrLoopback    = errors.New("packets from a loopback address do not leave this host")
)

// ErrReversePath says that a packet is dropped as it comes in.
var ErrReversePath = errors.New("rp_filter drops it: packets to its sender leave by another link, or by none")

// A RouteError says why there is no way. It wraps one of the errors above, where the
// reason is known, and the error of the kernel.
type RouteError struct {
	Query RouteQuery
	Err   error // one of the above; nil when the kernel had another reason
	Errno error // what connect(2) answers
}

func (e *RouteError) Error() string { return fmt.Sprintf("route to %v: %s", e.Query, e.Reason()) }

// Reason returns the reason alone: "no route to it".
func (e *RouteError) Reason() string {
	if e.Err == nil {
		return e.Errno.Error()
	}
	return e.Err.Error()
}

// Unwrap returns what Is and As look at.
func (e *RouteError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Errno}
	}
	return []error{e.Err, e.Errno}
}

// Route asks the kernel which way packets take (RTM_GETROUTE), in the network
// namespace of the calling thread. It needs no privilege and is safe for concurrent
// use. Where there is no way the error is a *RouteError.
//
// A Src that is not local is ErrForeign, for IPv6 too, where the kernel would answer.
// Compare Link of the answer with Snapshot.OwnerLink(Src): where they differ, packets
// leave by a provider that does not know their source; WrongEgress does that.
func Route(q RouteQuery) (RouteAnswer, error) {
	q.Dst, q.Src = bare(q.Dst), bare(q.Src)
	links, err := linkNames()
	if err != nil {
		return RouteAnswer{}, err
	}
	return links.route(q)
}

// bare returns a without what only sockets need.
func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Arrives asks the kernel whether packets from src to dst, an address of this host, are
// let in where they come by that link. The error is ErrReversePath where rp_filter drops
// them, or src cannot be the sender of anything (an address of this host, say), and nil
// where the kernel has any other answer. IPv6 has no such filter.
func Arrives(src, dst netip.Addr, link string) error {
	links, err := linkNames()
	if err != nil {
		return err
	}
	_, err = links.ask(RouteQuery{Src: bare(src), Dst: bare(dst), in: link}, 0)
	// EXDEV is the answer of fib_validate_source; since Linux 6.14 the reason is lost.
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) {
		return ErrReversePath
	}
	return nil
}

func (l linkTable) route(q RouteQuery) (RouteAnswer, error) {
	if q.Src.IsValid() {
		if own, err := l.ask(RouteQuery{Dst: q.Src}, 0); err != nil || own.Type != RouteLocal {
			return RouteAnswer{}, &RouteError{Query: q, Err: ErrForeign, Errno: unix.EADDRNOTAVAIL}
		}
	}
	asked := q
	way, err := l.ask(q, 0)
	if q.Link != "" && q.Src.Is6() && way.Link != q.Link {
		// Here the kernel prefers the source to the link, on a socket that is bound to the
		// link it does not (RT6_LOOKUP_F_IFACE in ip6_route_output_flags).
		q.Src = netip.Addr{}
		way, err = l.ask(q, 0)
	}
	if err != nil {
		return RouteAnswer{}, routeError(asked, err)
	}
	a := RouteAnswer{Type: way.Type, Link: way.Link, Gateway: way.Gateway, Table: way.Table, PrefSrc: way.Src}
	// The answer lacks which route it was: that is a question of its own (Linux 4.13).
	if a.Route, err = l.ask(q, unix.RTM_F_FIB_MATCH); err != nil {
		a.Assumed = true
	}
	if a.Type == RouteLocal && a.Table == TableMain {
		a.Table = TableLocal // a part of "main" as long as there are no rules (fib_trie_unmerge)
	}
	return a, nil
}

// routeError says in words what the kernel answered (fib_props of fib_semantics.c, and
// ip6_rt_type_to_error).
func routeError(q RouteQuery, err error) error {
	e := &RouteError{Query: q, Errno: err}
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		e.Err = ErrNoRoute
	case errors.Is(err, unix.EHOSTUNREACH):
		e.Err = ErrUnreachable
	case errors.Is(err, unix.EACCES):
		e.Err = ErrProhibited
	case errors.Is(err, unix.EINVAL) && q.Src.IsLoopback():
		e.Err = ErrLoopback
	case errors.Is(err, unix.EINVAL):
		e.Err = ErrBlackhole
	}
	return e
}

// RouteType says what a route does with packets (RTN_ of linux/rtnetlink.h).
type RouteType uint8

// The types that matter to somebody who sends.
const (
	RouteUnicast     RouteType = unix.RTN_UNICAST
	RouteLocal       RouteType = unix.RTN_LOCAL
	RouteBroadcast   RouteType = unix.RTN_BROADCAST
	RouteAnycast     RouteType = unix.RTN_ANYCAST
	RouteMulticast   RouteType = unix.RTN_MULTICAST
	RouteBlackhole   RouteType = unix.RTN_BLACKHOLE
	RouteUnreachable RouteType = unix.RTN_UNREACHABLE
	RouteProhibit    RouteType = unix.RTN_PROHIBIT
	RouteThrow       RouteType = unix.RTN_THROW
)

var routeTypes = map[RouteType]string{
	RouteUnicast: "unicast", RouteLocal: "local", RouteBroadcast: "broadcast", RouteAnycast: "anycast",
	RouteMulticast: "multicast", RouteBlackhole: "blackhole", RouteUnreachable: "unreachable",
	RouteProhibit: "prohibit", RouteThrow: "throw",
}

// String returns the word that ip-route(8) uses.
func (t RouteType) String() string {
	if s, ok := routeTypes[t]; ok {
		return s
	}
	return strconv.Itoa(int(t))
}

// MarshalText returns String.
func (t RouteType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (t *RouteType) UnmarshalText(b []byte) error {
	for v, s := range routeTypes {
		if s == string(b) {
			*t = v
			return nil
		}
	}
	n, err := strconv.ParseUint(string(b), 10, 8)
	*t = RouteType(n)
	return err
}

// Table is the number of a routing table.
type Table uint32

// The tables that every host has.
const (
	TableLocal   Table = unix.RT_TABLE_LOCAL
	TableMain    Table = unix.RT_TABLE_MAIN
	TableDefault Table = unix.RT_TABLE_DEFAULT
)

// String returns the name of a table that every host has, else the number.
func (t Table) String() string {
	switch t {
	case TableLocal:
		return "local"
	case TableMain:
		return "main"
	case TableDefault:
		return "default"
	}
	return strconv.FormatUint(uint64(t), 10)
}

// MarshalText returns String.
func (t Table) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (t *Table) UnmarshalText(b []byte) error {
	for _, v := range []Table{TableLocal, TableMain, TableDefault} {
		if v.String() == string(b) {
			*t = v
			return nil
		}
	}
	n, err := strconv.ParseUint(string(b), 10, 32)
	*t = Table(n)
	return err
}

// A TableRoute is one route of a routing table.
type TableRoute struct {
	Type     RouteType
	Dst      netip.Prefix // 0.0.0.0/0 or ::/0 for a default route
	Link     string       // of the first hop; empty for a route that refuses
	Gateway  netip.Addr   // not valid when the destination is on the link
	Src      netip.Addr   // the src attribute
	Table    Table
	Metric   uint32
	Protocol uint8 // who made it: unix.RTPROT_KERNEL, RTPROT_STATIC ...
	Scope    uint8 // unix.RT_SCOPE_UNIVERSE, RT_SCOPE_LINK ...; IPv4 only
	Hops     int   // the number of next hops where they are several
	TOS      uint8 // of the packets that it is for; 0: all
}

// String returns the route as ip-route(8) writes it, without its table.
func (r TableRoute) String() string {
	s := r.Dst.String()
	if r.Dst.IsValid() && r.Dst.Bits() == 0 {
		s = "default"
	}
	if r.Type != RouteUnicast {
		s = r.Type.String() + " " + s
	}
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Link != "" {
		s += " dev " + r.Link
	}
	return s
}
