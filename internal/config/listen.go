package config

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// Kind is what a listener speaks.
type Kind uint8

// The kinds of listeners. Those up to HTTP are proxies, the others forwards.
const (
	Mixed Kind = iota // SOCKS4, SOCKS4a, SOCKS5 and HTTP CONNECT on one port
	SOCKS             // SOCKS alone
	HTTP              // HTTP CONNECT alone
	TCP               // a TCP forward to one target
	UDP               // a UDP forward to one target
)

// String returns the key that makes a listener of this kind.
func (k Kind) String() string {
	if names := [...]string{"mixed", "socks", "http", "tcp", "udp"}; int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("unknown(%d)", uint8(k))
}

// IsForward reports whether the listener has a target of its own.
func (k Kind) IsForward() bool { return k >= TCP }

// A Listener is one [[listen]] entry.
type Listener struct {
	Name  string // as given, else kind and first address: "mixed 127.0.0.1:1080"
	Kind  Kind
	Addrs []netip.AddrPort // [::] takes IPv4 as well, 0.0.0.0 only IPv4
	Ports dialer.PortRange // of udp forwards: each of Addrs has all these ports, and says the first; zero: only its own
	Allow []netip.Prefix   // clients; empty: all
	Limit int              // flows at one time; 0: no limit of its own
	Idle  time.Duration    // 0: Timeouts.Idle, or Timeouts.UDP
	DSCP  uint8            // of the UDP datagrams it sends (RFC 2474), 0 to 63: the upper six bits of the TOS byte

	// Of proxies.
	UsersFile string // empty: no login
	Users     []byte // its content, read with the configuration so that a bad reload changes nothing
	Open      bool   // everybody may use it

	// Of mixed and socks proxies.
	RelayPorts dialer.PortRange // the local ports that UDP clients are given; zero: free ones
	Advertise  netip.Addr       // told to UDP clients of its family instead of the address they connected to; not valid: that one
	Filter     Filter           // whose datagrams a UDP client gets
	Bind       bool             // BIND is allowed

	// Of forwards.
	To         Target
	Use        *dialer.Use // nil: the rules choose
	SourcePort uint16      // 0: free, or see SamePort

	// Of udp forwards.
	SamePort    bool           // sends from the port that the client asked
	Share       string         // "sip": clients share the fixed port; empty: one client for each target
	Inbound     netip.AddrPort // takes the requests that no client waits for; not valid: they are dropped
	InboundFrom []netip.Prefix // who may send those besides To; empty: nobody
}

func (l *Listener) defaultName() string {
	return fmt.Sprintf("%s %s", l.Kind, endpoint{addr: l.Addrs[0].Addr(), ports: l.portsAt(0)})
}

// portsAt returns the ports of the address i.
func (l *Listener) portsAt(i int) dialer.PortRange {
	if !l.Ports.IsZero() {
		return l.Ports
	}
	p := l.Addrs[i].Port()
	return dialer.PortRange{Lo: p, Hi: p}
}

// Endpoints returns where to listen: each address with each of its ports.
func (l *Listener) Endpoints() iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for i, a := range l.Addrs {
			r := l.portsAt(i)
			for p := int(r.Lo); p <= int(r.Hi); p++ {
				if !yield(netip.AddrPortFrom(a.Addr(), uint16(p))) {
					return
				}
			}
		}
	}
}

func (d *decoder) listeners(n *node) {
	var taken []endpoint
	for _, c := range d.tables(n, listenTable) {
		taken = d.listener(c, taken)
	}
	var reported *node
	for _, s := range d.senders {
		if s.node != reported && d.sender(s, taken) {
			reported = s.node
		}
	}
	d.circles()
}

func (d *decoder) listener(n *node, taken []endpoint) []endpoint {
	k := d.keys(n, listenTable)
	var l Listener
	where, ok := d.kind(n, k, &l)
	if !ok {
		return taken
	}
	d.groups(k, &l)
	taken = d.listenAddrs(where, &l, taken)
	d.listenerName(n, k["name"], &l)
	l.Allow = d.prefixes(k["allow"])
	if v, ok := d.integer(k["limit"], 1, 1<<31-1); ok {
		l.Limit = int(v)
	}
	l.Idle = d.duration(k["idle"], time.Second, 0)
	l.DSCP = d.dscp(k["dscp"])
	if l.Kind.IsForward() {
		d.forward(n, k, &l)
		d.leads[len(d.config.Listen)] = k["to"]
	} else {
		d.proxy(where, k, &l)
	}
	d.config.Listen = append(d.config.Listen, l)
	return taken
}

// kind finds the one key that says what the listener speaks.
func (d *decoder) kind(n *node, k map[string]*node, l *Listener) (*node, bool) {
	var found *node
	for kind := Mixed; kind <= UDP; kind++ {
		c := k[kind.String()]
		switch {
		case c == nil:
		case found != nil:
			d.faultKey(c, "write a [[listen]] of its own for each", "a listener has one kind; this one is %s and %s", l.Kind, kind)
			return nil, false
		default:
			found, l.Kind = c, kind
		}
	}
	if found == nil && len(k) == len(n.items) { // else an unknown key was meant as one
		d.faultKey(n, `write one of mixed, socks, http, tcp and udp: mixed = "127.0.0.1:1080"`, "the listener has no kind and address")
	}
	return found, found != nil
}

// groups reports keys that belong to the other kinds of listeners.
func (d *decoder) groups(k map[string]*node, l *Listener) {
	for _, s := range schema[listenTable] {
		if c := k[s.name]; c != nil && !s.only.has(l.Kind) {
			d.faultKey(c, elsewhere(c, l.Kind), "%s is for %s; this is %s", s.name, s.only, l.Kind)
		}
	}
}

// elsewhere returns what to do about the key n, which listeners of the kind k lack.
func elsewhere(n *node, k Kind) string {
	switch n.key {
	case "use":
		return fmt.Sprintf("write a rule: [[rules]] listener = \"NAME OF THE LISTENER\", use = %q", n.text)
	case "source_port":
		return "write it in a rule"
	case "to":
		return `for a forward, write tcp or udp instead of ` + k.String()
	case "users", "open":
		return `a forward knows no login; who may use it, allow = ["PREFIX"] says`
	case "relay_ports", "advertise", "filter", "bind":
		if k == HTTP {
			return "HTTP CONNECT has TCP alone; write mixed or socks instead of http, or remove the line"
		}
	case "share", "inbound", "inbound_from":
		if k == TCP {
			return "write udp instead of tcp, or remove the line"
		}
	}
	return "remove it"
}

func (d *decoder) listenerName(n, name *node, l *Listener) {
	at := n
	if s, ok := d.text(name); ok {
		l.Name, at = s, name
	} else if len(l.Addrs) > 0 {
		l.Name = l.defaultName()
	} else {
		return
	}
	if taken, ok := d.mark(n, "listener", l.Name); !ok {
		d.fault(at, "give each a name", "another listener is named %q, in line %d", l.Name, taken.file.line(taken.keyAt))
	}
}

// proxy reads the keys of a proxy and guards against an open one.
func (d *decoder) proxy(where *node, k map[string]*node, l *Listener) {
	if l.Kind != HTTP {
		d.socks(k, l)
	}
	l.Open = d.boolean(k["open"], false)
	if name, ok := d.text(k["users"]); ok {
		l.UsersFile = d.path(name)
		l.Users, _ = d.read(k["users"], name, fmt.Sprintf("make it: srcproxy passwd NAME >>%s", l.UsersFile))
	}
	if l.Open || k["users"] != nil || k["allow"] != nil {
		return
	}
	if i := slices.IndexFunc(l.Addrs, public); i >= 0 {
		d.fault(where, `write allow = ["PREFIX OF THE CLIENTS"] or users = "FILE"; open = true lets everybody in`,
			"%s: everybody who reaches %s could use this proxy", l.Kind, l.Addrs[i])
	}
}

func public(a netip.AddrPort) bool { return !a.Addr().IsLoopback() }
