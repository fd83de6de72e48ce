package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// reserved is the words that may not name a source or pool.
func reserved() []string { return []string{"kernel", "deny", "same", "client"} }

// define notes the name of a source or pool, and reports one that is bad or taken.
func (d *decoder) define(n *node, kind string, use dialer.Use) bool {
	switch taken := d.config.marks[mark{"source", n.key}]; {
	case n.key == "default" || n.key == "prefer":
		d.belongsOnTop(n)
	case slices.Contains(reserved(), n.key):
		d.faultKey(n, "choose another name", "%q is a reserved word", n.key)
	case strings.Trim(n.key, nameBytes) != "" || n.key == "":
		d.faultKey(n, "a name has letters, digits, - and _", "%q cannot name a %s", n.key, kind)
	case taken != nil:
		d.faultKey(n, "sources and pools share one name space: choose another name",
			"%q is a source already, in line %d", n.key, taken.file.line(taken.keyAt))
	default:
		d.uses[n.key] = use
		d.names = append(d.names, n.key)
		d.mark(n, kind, n.key)
		return true
	}
	return false
}

// nameBytes is what the name of a source or pool is made of. It keeps names apart
// from addresses, and fits labels of metrics and words of a command line.
const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func (d *decoder) sources(n *node) {
	if n == nil {
		return
	}
	if n.kind != tableKind {
		d.mismatch(n)
		return
	}
	for _, c := range n.items {
		c.spec = &key{name: c.key, want: sourceTable.key("ip").want}
		s := &dialer.Source{Name: c.key}
		if d.define(c, "source", dialer.Use{Source: s}) {
			d.source(c, s)
			d.config.Sources = append(d.config.Sources, s)
		}
	}
}

// source reads a string, a list of one address per family, or a table.
func (d *decoder) source(n *node, s *dialer.Source) {
	if n.kind != tableKind {
		d.addresses(n, s)
		return
	}
	if n.dotted() {
		d.faultKey(n, "write "+n.key+` = "198.51.100.10", or a table with ip`, "source %q: a name has no dot", n.key)
		return
	}
	k := d.keys(n, sourceTable)
	switch ip, link := k["ip"], k["interface"]; {
	case link != nil && (ip != nil || k["freebind"] != nil):
		d.faultKey(link, "leave one of them out", "source %q: interface takes whatever address the link has: ip and freebind cannot stand beside it", n.key)
	case link != nil:
		s.Interface = d.link(link)
	case ip == nil:
		d.faultKey(n, `write ip = "198.51.100.10", or interface = "ppp0" for whatever address that has`, "source %q has no ip", n.key)
	default:
		d.addresses(ip, s)
	}
	d.options(k, s)
	s.Ports, _ = d.portRange(k["ports"])
	s.FreeBind = d.boolean(k["freebind"], false)
	if k["device"] != nil {
		s.Device = d.link(k["device"])
	}
	if v, ok := d.integer(k["mark"], 1, 1<<32-1); ok {
		s.Mark = uint32(v)
	}
}

// link reads the name of an interface.
func (d *decoder) link(n *node) string {
	s, ok := d.text(n)
	if !ok {
		return ""
	}
	if len(s) > maxLinkName || strings.ContainsAny(s, "/: \t\n") || s == "." || s == ".." {
		d.fault(n, "ip link shows their names", "%s: %q cannot name an interface", n.spec.name, s)
		return ""
	}
	return s
}

// maxLinkName is how long the name of an interface can be (IFNAMSIZ of linux/if.h,
// without the NUL at its end).
const maxLinkName = 15

func (d *decoder) addresses(n *node, s *dialer.Source) {
	for _, e := range d.elements(n, textKind) {
		whole := strings.ContainsAny(e.text, "/-")
		switch {
		case whole && n.kind == listKind:
			d.fault(e, "make it a source of its own, and a pool of both", "%s: a list holds addresses, one per family; %q is none", n.spec.name, e.text)
		case strings.Contains(e.text, "/"):
			d.sourcePrefix(e, s)
		case whole:
			d.sourceRange(e, s)
		default:
			d.sourceAddress(e, s)
		}
	}
}

func (d *decoder) sourceAddress(n *node, s *dialer.Source) {
	a, ok := d.address(n, n.text)
	if !ok || !d.sendable(n, a) {
		return
	}
	if slices.ContainsFunc(s.Addrs, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
		d.fault(n, "make it a source of its own, and a pool of both: [pools] NAME = { of = [...] }",
			"%s: a second %s address; a source has one per family", n.spec.name, family(a.Is4()))
		return
	}
	s.Addrs = append(s.Addrs, a)
}

// sourcePrefix reads a prefix. One that holds a single address is that address.
func (d *decoder) sourcePrefix(n *node, s *dialer.Source) {
	p, ok := d.prefix(n, n.text)
	switch {
	case !ok || !d.sendable(n, p.Addr()):
	case p.IsSingleIP():
		s.Addrs = []netip.Addr{p.Addr()}
	default:
		s.Prefix = p
	}
}

func (d *decoder) sourceRange(n *node, s *dialer.Source) {
	from, to, _ := strings.Cut(n.text, "-")
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if dot := strings.LastIndexByte(from, '.'); dot > 0 && strings.Trim(to, "0123456789") == "" {
		d.fault(n, "write "+strconv.Quote(from+"-"+from[:dot+1]+to), "%s: both ends of the range %q have to be addresses", n.spec.name, n.text)
		return
	}
	first, ok1 := d.address(n, from)
	last, ok2 := d.address(n, to)
	switch {
	case !ok1 || !ok2 || !d.sendable(n, first) || !d.sendable(n, last):
	case first.Is4() != last.Is4():
		d.fault(n, "write one source for each family", "%s: the range %q mixes IPv4 and IPv6", n.spec.name, n.text)
	case last.Less(first):
		d.fault(n, "write "+strconv.Quote(to+"-"+from), "%s: the range %q is reversed", n.spec.name, n.text)
	case first == last:
		s.Addrs = []netip.Addr{first}
	default:
		s.First, s.Last = first, last
	}
}

// sendable reports an address that no packet may come from.
func (d *decoder) sendable(n *node, a netip.Addr) bool {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	switch {
	case a.IsUnspecified():
		d.fault(n, `for the routing table's choice, write use = "kernel"`, "%s: %s is no address to send from", n.spec.name, a)
	case a.IsMulticast() || a == broadcast:
		d.fault(n, "", "%s: %s is no address to send from", n.spec.name, a)
	case a.Is6() && a.IsLinkLocalUnicast():
		d.fault(n, "use a global or unique local address", "%s: %s is link-local, and a source names no link", n.spec.name, a)
	default:
		return true
	}
	return false
}

func family(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}

// use reads the name of a source or pool, a reserved word or an address.
func (d *decoder) use(n *node) (dialer.Use, bool) {
	s, ok := d.text(n)
	if !ok {
		return dialer.Use{}, false
	}
	switch u, known := d.uses[s]; {
	case known:
		return u, true
	case s == "kernel":
		return dialer.Use{Kernel: true}, true
	case s == "same":
		return dialer.Use{Same: true}, true
	case s == "deny":
		return dialer.Use{}, true
	case slices.Contains(reserved(), s):
		d.fault(n, "known names: "+enumerate(d.useWords()), "%s: %q is a reserved word that means nothing yet", n.spec.name, s)
		return dialer.Use{}, false
	case looksLikeAddress(s):
		src, ok := d.literal(n, s)
		return dialer.Use{Source: src}, ok
	}
	d.fault(n, d.meant(s, d.useWords(), "known names:"), "%s: no source or pool is named %q", n.spec.name, s)
	return dialer.Use{}, false
}

// Use returns what the name of a source or pool, or a reserved word, stands for in a
// flag.
func (c *Config) Use(name string) (dialer.Use, error) {
	var words []string
	for _, s := range c.Sources {
		if s.Name == name {
			return dialer.Use{Source: s}, nil
		}
		words = append(words, s.Name)
	}
	for _, p := range c.Pools {
		if p.Name == name {
			return dialer.Use{Pool: p}, nil
		}
		words = append(words, p.Name)
	}
	switch name {
	case "kernel":
		return dialer.Use{Kernel: true}, nil
	case "deny":
		return dialer.Use{}, nil
	}
	return dialer.Use{}, fmt.Errorf("no source or pool is named %q; %s", name, didYouMean(name, append(words, "kernel", "deny"), "known names:"))
}

// literal returns the source that an address stands for, the same for each address.
func (d *decoder) literal(n *node, s string) (*dialer.Source, bool) {
	a, ok := d.address(n, s)
	if !ok || !d.sendable(n, a) {
		return nil, false
	}
	src := d.literals[a]
	if src == nil {
		src = &dialer.Source{Name: a.String(), Addrs: []netip.Addr{a}}
		d.literals[a] = src
	}
	return src, true
}

// useWords returns what may stand as a use: names in the order of the file, and words.
func (d *decoder) useWords() []string {
	if d.words == nil {
		d.words = append(slices.Clone(d.names), "kernel", "same", "deny")
	}
	return d.words
}

// has reports whether flows of a family can leave from u.
func has(u dialer.Use, is4 bool) bool {
	switch {
	case u.Source != nil && u.Source.Interface != "":
		return true // it may
	case u.Source != nil:
		return slices.ContainsFunc(addrsOf(u.Source), func(a netip.Addr) bool { return a.Is4() == is4 })
	case u.Pool != nil:
		return slices.ContainsFunc(u.Pool.Of, func(m dialer.Member) bool { return has(dialer.Use{Source: m.Source}, is4) })
	}
	return u.Kernel || u.Same // as far as the file tells
}

// addrsOf returns an address of each family that s has; none when s is in error.
func addrsOf(s *dialer.Source) []netip.Addr {
	switch {
	case s.Prefix.IsValid():
		return []netip.Addr{s.Prefix.Addr()}
	case s.First.IsValid():
		return []netip.Addr{s.First}
	}
	return s.Addrs
}

// sourceNames returns the names that are sources, sorted.
func (d *decoder) sourceNames() []string {
	if d.sourceWords == nil {
		for _, name := range d.names {
			if d.uses[name].Source != nil {
				d.sourceWords = append(d.sourceWords, name)
			}
		}
		slices.Sort(d.sourceWords)
	}
	return d.sourceWords
}
