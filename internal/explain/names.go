package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/host"
)

// nameservers warns of those that cannot be asked, and of a stub resolver: it asks on
// from an address that no rule chose. Where nothing has a name, nobody is asked.
func (c *checker) nameservers(t *dialer.Table) {
	if !slices.ContainsFunc(c.cfg.Listen, resolves) {
		return
	}
	stub := false
	for _, s := range c.servers() {
		switch {
		case !c.isHere(s.Addr()):
			c.nameserver(t, s)
		case !stub:
			stub = true
			c.stub(s.Addr())
		}
	}
}

// resolves reports whether names may have to be resolved for l.
func resolves(l config.Listener) bool { return !l.Kind.IsForward() || l.To.Name != "" }

// servers returns whom names are asked of.
func (c *checker) servers() []netip.AddrPort {
	if len(c.cfg.DNS.Servers) > 0 {
		return c.cfg.DNS.Servers
	}
	var servers []netip.AddrPort
	for _, a := range c.facts.Nameservers {
		servers = append(servers, netip.AddrPortFrom(a, 53))
	}
	return servers
}

// isHere reports whether queries to a do not leave the host.
func (c *checker) isHere(a netip.Addr) bool { return a.IsLoopback() || c.host.Local(a) }

// nameserver asks the rules about the queries to s.
func (c *checker) nameserver(t *dialer.Table, s netip.AddrPort) {
	d := t.Lookup(dialer.Flow{Network: "udp", Dst: s})
	if d.Err == nil {
		return
	}
	kind, name, who := "rule", d.Rule, fmt.Sprintf("rule %q", d.Rule)
	if d.Index < 0 {
		kind, name, who = "default", "", "the default"
	}
	named := host.ResolvFile
	if len(c.cfg.DNS.Servers) > 0 {
		named = "dns.servers"
	}
	c.found = append(c.found, Finding{
		Severity: Warning,
		Position: c.cfg.Position(kind, name),
		Text:     fmt.Sprintf("queries to the name server %v (%s) are refused by %s, so names that it should know cannot be resolved: %v", s.Addr(), named, who, d.Err),
		Hint:     fmt.Sprintf("write a rule above it: to = %q, port = %d, use = the source for queries", s.Addr(), s.Port()),
	})
}

// stub tells of a resolver on this host. Who names it in the configuration knows it.
func (c *checker) stub(a netip.Addr) {
	f := Finding{
		Severity: Warning,
		Position: host.ResolvFile,
		Text:     fmt.Sprintf("names are resolved by %v on this host, whose own queries leave from an address that no rule chooses", a),
	}
	if len(c.cfg.DNS.Servers) > 0 {
		f.Severity, f.Position = Note, c.cfg.Position("dns", "")
		c.found = append(c.found, f)
		return
	}
	f.Hint = `name the servers that it asks in the configuration: [dns] servers = ["ADDRESS"]`
	if up := c.facts.Upstreams; len(up) > 0 {
		f.Hint = fmt.Sprintf("name the servers that it asks in the configuration: [dns] servers = [%s]", quoted(up))
	}
	// The addresses of systemd-resolved (systemd-resolved.service(8)).
	if a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54}) {
		f.Hint += "; or let resolv.conf name them"
		f.Cure = []string{"ln -sf " + host.ResolvedFile + " " + host.ResolvFile}
	}
	c.found = append(c.found, f)
}

func quoted(list []netip.Addr) string {
	var texts []string
	for _, a := range list {
		texts = append(texts, fmt.Sprintf("%q", a))
	}
	return strings.Join(texts, ", ")
}
