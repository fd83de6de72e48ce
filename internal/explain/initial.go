package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/internal/host"
)

// Initial is the configuration that init writes.
type Initial struct {
	Default string   `json:"default"` // where flows leave from: a source, or "kernel" where the host has no address
	Sources []string `json:"sources"` // the names of the others, whose lines are off
	Text    string   `json:"-"`
}

// InitialConfig returns a configuration made of the addresses of a host. Flows leave
// from where the kernel has them leave now: preferred is its choice for each family in
// which there is a way out. All other addresses stand there, off.
func InitialConfig(h *host.Snapshot, f host.Facts, preferred []netip.Addr) Initial {
	s := sketch{host: h, preferred: preferred, names: make(map[string]bool)}
	s.sources()
	out := Initial{Default: "kernel", Sources: []string{}} // [] in JSON, also when it stays empty
	if len(s.lines) > 0 {
		out.Default = s.lines[0].name
	}
	width, column := 0, 0
	for i := range s.lines {
		if l := &s.lines[i]; i > 0 {
			out.Sources = append(out.Sources, l.name)
			l.name = "#" + l.name
		}
		width, column = max(width, len(s.lines[i].name)), max(column, len(s.lines[i].value))
	}
	var b strings.Builder
	fmt.Fprintf(&b, initialHead, out.Default)
	for _, l := range s.lines {
		fmt.Fprintf(&b, "%-*s = %-*s    # %s\n", width, l.name, column, l.value, l.comment)
	}
	b.WriteString(initialTail)
	b.WriteString(initialDNS(f))
	out.Text = b.String()
	return out
}

const initialHead = `# The configuration of srcproxy, written by "srcproxy init" from the addresses of this
# host. Lines that begin with # and no space are off. "srcproxy check" tells what is
# wrong, "srcproxy explain HOST:PORT" what would be done with a flow. The manual is
# config.toml.example: it has every key.

# Where a flow leaves from when no rule matches: a source, "kernel" (the routing table
# chooses) or "deny".
default = %q

# The addresses of this host, by names that you choose.
[sources]
`

const initialTail = `
# Rules are read from the top, and the first that matches decides.
#[[rules]]
#to  = ["203.0.113.0/24", "*.mail.example"]
#use = "NAME"

# SOCKS and HTTP CONNECT for the programs of this host. Others need "allow" or "users".
[[listen]]
mixed = "127.0.0.1:1080"
`

// initialDNS is how to ask the servers that a stub resolver asks.
func initialDNS(f host.Facts) string {
	if len(f.Upstreams) == 0 || !slices.ContainsFunc(f.Nameservers, netip.Addr.IsLoopback) {
		return ""
	}
	return fmt.Sprintf(`
# Names are asked of a resolver on this host, whose own queries no rule sees. These are
# the servers that it asks.
#[dns]
#servers = [%s]
`, quoted(f.Upstreams))
}

// sketch collects the sources of a host.
type sketch struct {
	host      *host.Snapshot
	preferred []netip.Addr
	names     map[string]bool
	lines     []initialLine
}

// initialLine is one source.
type initialLine struct{ name, value, comment string }

// sources makes the lines: first the link of the preferred addresses, then the others.
func (s *sketch) sources() {
	links := slices.Clone(s.host.Links())
	slices.SortStableFunc(links, func(a, b host.Link) int { return s.rank(a) - s.rank(b) })
	for _, l := range links {
		if !virtual(l.Name) {
			s.link(l.Name)
		}
	}
}

// rank orders links: those with a preferred address come first.
func (s *sketch) rank(l host.Link) int {
	for i, p := range s.preferred {
		if owner, ok := s.host.OwnerLink(p); ok && owner.Name == l.Name {
			return i
		}
	}
	return len(s.preferred)
}

// virtual reports whether a link belongs to containers or virtual machines.
func virtual(link string) bool {
	return slices.ContainsFunc([]string{"docker", "br-", "virbr", "vnet", "cni", "flannel", "cali", "lxc"},
		func(prefix string) bool { return strings.HasPrefix(link, prefix) })
}

// link makes the lines of one link. Its first source has an address of each family, or
// where one of them is lent (DHCP, SLAAC) whatever the link has.
func (s *sketch) link(name string) {
	four, six := s.first(name, true), s.first(name, false)
	rest := s.addresses(name)
	if !four.IsValid() && !six.IsValid() && len(rest) == 0 {
		return
	}
	lent := slices.ContainsFunc(rest, func(a host.Address) bool {
		return (a.Addr == four || a.Addr == six) && a.Flags&host.Permanent == 0
	})
	var firsts []netip.Addr
	for _, a := range []netip.Addr{four, six} {
		if a.IsValid() {
			firsts = append(firsts, a)
		}
	}
	switch {
	case lent:
		s.add(name, fmt.Sprintf("{ interface = %q }", name), "its addresses are lent; now "+joined(firsts))
	case len(firsts) == 1:
		s.add(name, fmt.Sprintf("%q", firsts[0]), "of "+name)
	case len(firsts) == 2:
		s.add(name, "["+quoted(firsts)+"]", "of "+name)
	}
	var others []netip.Addr
	for _, a := range rest {
		if a.Addr != four && a.Addr != six {
			others = append(others, a.Addr)
		}
	}
	s.others(name, others)
}

// first returns the address of a family that a link is known by: the preferred one, else
// the one that a source with this interface has.
func (s *sketch) first(link string, is4 bool) netip.Addr {
	for _, p := range s.preferred {
		if owner, ok := s.host.OwnerLink(p); ok && owner.Name == link && p.Is4() == is4 {
			return p
		}
	}
	return s.host.LinkAddr(link, is4)
}

// addresses returns those of a link that one may want to send from: no temporary,
// deprecated or link-local ones.
func (s *sketch) addresses(link string) []host.Address {
	var out []host.Address
	for _, a := range s.host.Addresses() {
		temporary := a.Addr.Is6() && a.Flags&host.Secondary != 0
		if a.Link == link && a.Addr.IsGlobalUnicast() && !temporary && a.Flags&host.Deprecated == 0 && a.Flags.Usable() {
			out = append(out, a)
		}
	}
	return out
}

// others makes the lines of further addresses. Those of IPv4 that follow one another,
// four or more, are a range.
func (s *sketch) others(link string, list []netip.Addr) {
	slices.SortFunc(list, netip.Addr.Compare)
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[0].Is4() && list[n] == list[n-1].Next() {
			n++
		}
		if n < 4 {
			n = 1
			s.add(link, fmt.Sprintf("%q", list[0]), "of "+link)
		} else {
			s.add(link, fmt.Sprintf(`{ ip = "%v-%v" }`, list[0], list[n-1]), fmt.Sprintf("%d addresses of %s", n, link))
		}
		list = list[n:]
	}
}

// add adds a source whose name comes from the link's.
func (s *sketch) add(link, value, comment string) {
	base := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", r) {
			return r
		}
		return '-'
	}, link)
	if slices.Contains([]string{"kernel", "deny", "same", "client", "default", "prefer"}, base) {
		base = "if-" + base
	}
	name := base
	for i := 2; s.names[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	s.names[name] = true
	s.lines = append(s.lines, initialLine{name, value, comment})
}

func joined(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}
