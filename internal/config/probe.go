package config

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/hostname"
)

// Probe says how a source is tested: what has to be reachable from it.
type Probe struct {
	Kind           string   // "tcp", "http", "icmp" or "dns"
	Targets        []string // one, or one for each family, as they are written
	Every, Timeout time.Duration
	Rise, Fall     int // tests in a row
}

// probeKinds is what a target of each kind looks like.
func probeKinds() [][2]string {
	return [][2]string{
		{"tcp", `"203.0.113.1:443"`},
		{"http", `"http://203.0.113.1/health"`},
		{"icmp", `"203.0.113.1"`},
		{"dns", `"www.example@203.0.113.53"`},
	}
}

// probe reads targets of TCP connections, or a table.
func (d *decoder) probe(n *node, s *dialer.Source) *Probe {
	if n == nil {
		return nil
	}
	p := &Probe{Kind: "tcp", Every: 10 * time.Second, Timeout: 3 * time.Second, Rise: 2, Fall: 3}
	targets := n
	if n.kind == tableKind {
		k := d.keys(n, probeTable)
		targets = d.probeKind(n, k, p)
		d.probeTimes(k, p)
	}
	if targets != nil {
		d.probeTargets(targets, p, s)
	}
	return p
}

// probeKind returns the value of the one key that names a kind.
func (d *decoder) probeKind(n *node, k map[string]*node, p *Probe) *node {
	var targets *node
	for _, kind := range probeKinds() {
		t := k[kind[0]]
		if t == nil {
			continue
		}
		if targets != nil {
			d.faultKey(t, "leave one of them out", "probe: %s and %s stand beside each other", p.Kind, t.key)
			return nil
		}
		targets, p.Kind = t, t.key
	}
	if targets == nil {
		d.faultKey(n, `write tcp = "203.0.113.1:443", or http, icmp or dns`, "probe: nothing says what is to be reached")
	}
	return targets
}

func (d *decoder) probeTimes(k map[string]*node, p *Probe) {
	p.Every = d.duration(k["every"], time.Second, p.Every)
	p.Timeout = d.duration(k["timeout"], 100*time.Millisecond, min(p.Timeout, p.Every))
	if p.Timeout > p.Every {
		d.fault(k["timeout"], "", "timeout: %v is longer than it is from one test to the next, %v", p.Timeout, p.Every)
	}
	for key, v := range map[string]*int{"rise": &p.Rise, "fall": &p.Fall} {
		if i, ok := d.integer(k[key], 1, 1000); ok {
			*v = int(i)
		}
	}
}

// probeTargets reads one target, or one for each family of s.
func (d *decoder) probeTargets(n *node, p *Probe, s *dialer.Source) {
	var seen []netip.Addr
	elements := d.elements(n, textKind)
	for _, e := range elements {
		a, ok := probeHost(p.Kind, e.text)
		switch {
		case !ok:
			d.fault(e, "write "+probeExample(p.Kind), "probe: %q is no target for %s", e.text, p.Kind)
		case !a.IsValid() && len(elements) > 1:
			d.fault(e, "leave the others out", "probe: %q is a name, and so the target of both families", e.text)
		case a.IsValid() && (a.IsLoopback() || a.IsUnspecified() || a.IsMulticast()):
			d.fault(e, "name a host that is reached by the way that is to be tested", "probe: %v says nothing about the source", a)
		case a.IsValid() && !has(dialer.Use{Source: s}, a.Is4()):
			d.fault(e, "", "probe: the target %v is %s, and the source %q has no such address", a, family(a.Is4()), s.Name)
		case a.IsValid() && len(seen) > 0 && seen[0].Is4() == a.Is4():
			d.fault(e, "", "probe: a second %s target; there is one for each family", family(a.Is4()))
		default:
			seen = append(seen, a)
			p.Targets = append(p.Targets, e.text)
		}
	}
}

func probeExample(kind string) string {
	for _, k := range probeKinds() {
		if k[0] == kind {
			return k[1]
		}
	}
	return ""
}

// Addrs returns the addresses of the targets that have one instead of a name.
func (p *Probe) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, t := range p.Targets {
		if a, ok := probeHost(p.Kind, t); ok && a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// probeHost returns the address of a target, one that is not valid where it has a name,
// and whether it is a target of that kind.
func probeHost(kind, target string) (netip.Addr, bool) {
	switch kind {
	case "icmp":
		return hostOf(target)
	case "http":
		u, err := url.Parse(target)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			return netip.Addr{}, false
		}
		return hostOf(u.Hostname())
	case "dns":
		name, server, _ := strings.Cut(target, "@")
		if _, ok := hostOf(name); !ok {
			return netip.Addr{}, false
		}
		if a, err := netip.ParseAddr(server); err == nil {
			return a.Unmap(), a.Zone() == ""
		}
		ap, err := netip.ParseAddrPort(server)
		return ap.Addr().Unmap(), err == nil && ap.Port() != 0 && ap.Addr().Zone() == ""
	}
	host, port, err := net.SplitHostPort(target)
	if _, ok := parsePort(port); err != nil || !ok {
		return netip.Addr{}, false
	}
	return hostOf(host)
}

func hostOf(s string) (netip.Addr, bool) {
	a, _, err := hostname.Parse(s)
	return a, err == nil
}
