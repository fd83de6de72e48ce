package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/hostname"
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

// Target is where a forward goes: a name or an address, and a port.
type Target struct {
	Name string     // in lower case; empty when Addr is set
	Addr netip.Addr // not valid when Name is set
	Port uint16
}

// String returns host:port, with IPv6 addresses in brackets.
func (t Target) String() string {
	if t.Name != "" {
		return net.JoinHostPort(t.Name, strconv.Itoa(int(t.Port)))
	}
	return netip.AddrPortFrom(t.Addr, t.Port).String()
}

// A Listener is one [[listen]] entry.
type Listener struct {
	Name  string // as given, else kind and first address: "mixed 127.0.0.1:1080"
	Kind  Kind
	Addrs []netip.AddrPort // [::] takes IPv4 as well, 0.0.0.0 only IPv4
	Allow []netip.Prefix   // clients; empty: all
	Limit int              // flows at one time; 0: no limit of its own
	Idle  time.Duration    // 0: Timeouts.Idle, or Timeouts.UDP

	// Of proxies.
	UsersFile string // empty: no login
	Users     []byte // its content, read with the configuration so that a bad reload changes nothing
	Open      bool   // everybody may use it

	// Of forwards.
	To         Target
	Use        *dialer.Use // nil: the rules choose
	SourcePort uint16      // 0: free
}

func (l *Listener) defaultName() string { return fmt.Sprintf("%s %s", l.Kind, l.Addrs[0]) }

// endpoint is an address that a listener occupies, or that a forward sends from.
type endpoint struct {
	udp  bool
	addr netip.AddrPort
	node *node
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
}

func (d *decoder) listener(n *node, taken []endpoint) []endpoint {
	k := d.keys(n, listenTable)
	var l Listener
	where, ok := d.kind(n, k, &l)
	if !ok {
		return taken
	}
	d.groups(k, &l)
	nodes := d.strings(where)
	for _, e := range nodes {
		if a, ok := d.listenAddr(e); ok {
			l.Addrs = append(l.Addrs, a)
			taken = d.occupy(taken, endpoint{l.Kind == UDP, a, e})
		}
	}
	d.listenerName(n, k["name"], &l)
	l.Allow = d.prefixes(k["allow"])
	if v, ok := d.integer(k["limit"], 1, 1<<31-1); ok {
		l.Limit = int(v)
	}
	l.Idle = d.duration(k["idle"], time.Second, 0)
	if l.Kind.IsForward() {
		d.forward(n, k, &l)
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
	mine := proxies
	if l.Kind.IsForward() {
		mine = forwards
	}
	for _, s := range schema[listenTable] {
		c := k[s.name]
		if c == nil || s.only == "" || s.only == mine {
			continue
		}
		hint := "remove it"
		switch s.name {
		case "use":
			hint = fmt.Sprintf("write a rule: [[rules]] listener = \"NAME OF THE LISTENER\", use = %q", c.text)
		case "source_port":
			hint = "write it in a rule"
		case "to":
			hint = `for a forward, write tcp or udp instead of ` + l.Kind.String()
		case "users", "open":
			hint = `a forward knows no login; who may use it, allow = ["PREFIX"] says`
		}
		d.faultKey(c, hint, "%s is for %s; this is %s", s.name, s.only, l.Kind)
	}
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

// listenAddr reads an address to listen on.
func (d *decoder) listenAddr(n *node) (netip.AddrPort, bool) {
	fail := func(hint string) (netip.AddrPort, bool) {
		d.fault(n, hint, "%s: %q is no address to listen on", n.spec.name, n.text)
		return netip.AddrPort{}, false
	}
	host, port, err := net.SplitHostPort(n.text)
	if err != nil {
		return fail(listenHint(n.text))
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fail("a port is one number up to 65535; for several write a list")
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(p)), true
	}
	a, err := netip.ParseAddr(host)
	switch {
	case host == "*":
		return fail(fmt.Sprintf("write %q for all addresses", ":"+port))
	case host == "localhost":
		return fail(fmt.Sprintf(`write an address: ["127.0.0.1:%s", "[::1]:%s"]`, port, port))
	case err != nil:
		return fail("write an address of this host; names are not resolved here")
	case a.IsMulticast():
		return fail("no flow has a multicast address at its end")
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

func listenHint(s string) string {
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		a, err := netip.ParseAddr(s[:i])
		if _, ok := parsePort(s[i+1:]); ok && err == nil && a.Is6() {
			return fmt.Sprintf("put IPv6 addresses in brackets: \"[%s]%s\"", s[:i], s[i:])
		}
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return fmt.Sprintf("add the port: %q", net.JoinHostPort(a.String(), "1080"))
	}
	if _, ok := parsePort(s); ok {
		return fmt.Sprintf("write %q, or %q for all addresses", "127.0.0.1:"+s, ":"+s)
	}
	return `write "127.0.0.1:1080", "[2001:db8::1]:1080", or ":1080" for all addresses`
}

// occupy adds an address to those in use, and reports one that another listener has:
// the kernel would refuse the second of them.
func (d *decoder) occupy(taken []endpoint, e endpoint) []endpoint {
	for _, t := range taken {
		if t.udp == e.udp && t.addr.Port() == e.addr.Port() && e.addr.Port() != 0 && overlap(t.addr.Addr(), e.addr.Addr()) {
			d.fault(e.node, "choose another port, or remove one of the two",
				"%s: %s is taken by %s in line %d", e.node.spec.name, e.addr, t.addr, t.node.file.line(t.node.at))
			return taken
		}
	}
	return append(taken, e)
}

// sender reports a fixed sender that cannot be bound since a listener has its
// address. For UDP the wildcard address is no hindrance.
func (d *decoder) sender(s endpoint, taken []endpoint) bool {
	for _, t := range taken {
		if t.udp != s.udp || t.addr.Port() != s.addr.Port() || !overlap(t.addr.Addr(), s.addr.Addr()) || t.udp && t.addr != s.addr {
			continue
		}
		d.fault(s.node, "let it listen on another address, such as 127.0.0.1, or on another port",
			"source_port: %s is where the listener in line %d listens, and so no sender", s.addr, t.node.file.line(t.node.at))
		return true
	}
	return false
}

// overlap reports whether sockets on one port cannot have a and b.
func overlap(a, b netip.Addr) bool {
	v6 := netip.IPv6Unspecified()
	v4 := netip.IPv4Unspecified()
	return a == b || a == v6 || b == v6 || a == v4 && b.Is4() || b == v4 && a.Is4()
}

// proxy reads the keys of a proxy and guards against an open one.
func (d *decoder) proxy(where *node, k map[string]*node, l *Listener) {
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

// forward reads the keys of a forward.
func (d *decoder) forward(n *node, k map[string]*node, l *Listener) {
	if k["to"] == nil {
		d.faultKey(n, `write to = "HOST:PORT"`, "the %s forward does not say where to", l.Kind)
	} else {
		l.To, _ = d.target(k["to"])
	}
	if slices.Contains(l.Addrs, netip.AddrPortFrom(l.To.Addr, l.To.Port)) {
		d.fault(k["to"], "write the address of the server", "to: %s is this listener itself", l.To)
	}
	l.SourcePort = d.port(k["source_port"])
	use := k["use"]
	if use == nil {
		if l.SourcePort != 0 {
			d.faultKey(k["source_port"], `add use = "NAME", or write source_port in a rule`, "source_port needs a use: the address that has the port")
		}
		return
	}
	u, ok := d.use(use)
	switch {
	case !ok:
		return
	case u == (dialer.Use{}):
		d.fault(use, "remove the listener", "use: a forward that refuses everything is no use")
		return
	case u.Source != nil && len(addrsOf(u.Source)) == 0:
		return // in error
	case l.To.Addr.IsValid() && !has(u, l.To.Addr.Is4()):
		d.fault(use, "name a source that has one", "use: %q has no %s address, and the target %s is one", u, family(l.To.Addr.Is4()), l.To.Addr)
	}
	d.fixedPort(k["source_port"], use, u, l.SourcePort)
	if u.Source != nil && l.SourcePort != 0 {
		for _, a := range u.Source.Addrs {
			d.senders = append(d.senders, endpoint{l.Kind == UDP, netip.AddrPortFrom(a, l.SourcePort), k["source_port"]})
		}
	}
	l.Use = &u
}

// target reads host and port of a forward.
func (d *decoder) target(n *node) (Target, bool) {
	s, ok := d.text(n)
	if !ok {
		return Target{}, false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		d.fault(n, targetHint(s), "to: %q is not host:port", s)
		return Target{}, false
	}
	p, ok := parsePort(port)
	if !ok {
		d.fault(n, "write a number from 1 to 65535", "to: %q is no port", port)
		return Target{}, false
	}
	addr, name, err := hostname.Parse(host)
	if err != nil {
		d.fault(n, "", "to: %v", err)
		return Target{}, false
	}
	return Target{Name: name, Addr: addr, Port: p}, true
}

func targetHint(s string) string {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Is6() {
		return fmt.Sprintf("add the port: \"[%s]:PORT\"", a)
	}
	if strings.Count(s, ":") > 1 {
		return `put IPv6 addresses in brackets: "[2001:db8::1]:25"`
	}
	return fmt.Sprintf("add the port: %q", s+":PORT")
}
