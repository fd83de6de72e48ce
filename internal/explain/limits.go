package explain

import (
	"fmt"
	"slices"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// privilegedPorts tells who needs CAP_NET_BIND_SERVICE.
func (c *checker) privilegedPorts() {
	for i := range c.cfg.Listen {
		l := &c.cfg.Listen[i]
		at := place{"listener", l.Name}
		what := fmt.Sprintf("listener %q", l.Name)
		for _, a := range l.Addrs {
			c.privileged(a.Port(), at, what+" listens on")
		}
		c.privileged(l.SourcePort, at, what+" sends from")
	}
	for i := range c.cfg.Rules {
		name := ruleName(c.cfg.Rules[i].Name, i)
		c.privileged(c.cfg.Rules[i].SourcePort, place{"rule", name}, fmt.Sprintf("rule %q sends from", name))
	}
}

func (c *checker) privileged(port uint16, at place, what string) {
	if port == 0 || int(port) >= c.facts.Unprivileged {
		return
	}
	if c.facts.BindService {
		c.add(Note, at, nil, "%s port %d, which needs CAP_NET_BIND_SERVICE; this process has it", what, port)
		return
	}
	cure := []string{
		`setcap cap_net_bind_service=+ep "$(command -v srcproxy)"`,
		fmt.Sprintf("sysctl -w net.ipv4.ip_unprivileged_port_start=%d", port),
	}
	c.found = append(c.found, Finding{
		Severity: Warning,
		Position: c.position(at),
		Text:     fmt.Sprintf("%s port %d, which needs CAP_NET_BIND_SERVICE; this process does not have it", what, port),
		Hint:     "run one of these as root, or start srcproxy with the capability",
		Cure:     cure,
	})
}

// way tells what the device and the mark of a source need.
func (c *checker) way(s *dialer.Source, at place) {
	if s.Device != "" && !slices.ContainsFunc(c.host.Links(), func(l host.Link) bool { return l.Name == s.Device }) {
		c.add(Warning, at, nil, "source %q: there is no device %s on this host: flows from it fail until it comes", s.Name, s.Device)
	}
	switch {
	case s.Mark == 0:
	case c.facts.Mark:
		c.add(Note, at, nil, "source %q has a mark, which needs CAP_NET_ADMIN or CAP_NET_RAW; this process has one of them", s.Name)
	default:
		c.found = append(c.found, Finding{
			Severity: Warning,
			Position: c.position(at),
			Text:     fmt.Sprintf("source %q has a mark, which needs CAP_NET_ADMIN or CAP_NET_RAW; this process has neither, and flows from it fail", s.Name),
			Hint:     "run this as root, or start srcproxy with the capability (in a unit: AmbientCapabilities=CAP_NET_RAW)",
			Cure:     []string{`setcap cap_net_raw=+ep "$(command -v srcproxy)"`},
		})
	}
}

// probes tells of those that need a right which this process does not have.
func (c *checker) probes() {
	for _, s := range c.cfg.Sources {
		p := c.cfg.Options(s.Name).Probe
		if p == nil || p.Kind != "icmp" || !c.facts.NoPing {
			continue
		}
		c.found = append(c.found, Finding{
			Severity: Error,
			Position: c.position(place{"source", s.Name}),
			Text:     fmt.Sprintf("source %q: its probe pings, which needs CAP_NET_RAW or a group in net.ipv4.ping_group_range; this process has neither", s.Name),
			Hint:     "run this as root, or start srcproxy with the capability",
			Cure:     []string{`sysctl -w net.ipv4.ping_group_range="0 2147483647"`},
		})
	}
}

// What is open beside connections: the listeners, the name servers' sockets, the
// relay's pool of pipes, the log.
const otherFiles = 128

// descriptors compares the limit on connections, each of which holds two, with the
// limit on descriptors.
func (c *checker) descriptors() {
	n := c.cfg.Limits.Connections
	need := 2*n + otherFiles
	if n == 0 || c.facts.Files == 0 || need <= c.facts.Files {
		return
	}
	c.found = append(c.found, Finding{
		Severity: Warning,
		Position: c.cfg.Path,
		Text: fmt.Sprintf("limits.connections = %d needs %d descriptors, and this process may hold %d (RLIMIT_NOFILE): it is enough for %d connections",
			n, need, c.facts.Files, max(c.facts.Files-otherFiles, 0)/2),
		Hint: fmt.Sprintf("in the shell that starts srcproxy; under systemd write LimitNOFILE=%d into its unit", need),
		Cure: []string{fmt.Sprintf("ulimit -n %d", need)},
	})
}

// bounds looks at the limits that each source, client and user has.
func (c *checker) bounds() {
	l := &c.cfg.Limits
	c.reached(l.PerSource.Connections, place{}, "limits.per_source.connections")
	c.reached(l.PerClient.Connections, place{}, "limits.per_client.connections")
	c.reached(l.PerUser.Connections, place{}, "limits.per_user.connections")
}

// reached warns of a limit that connections cannot reach: descriptors end before, and
// not only for the one that is to be held back.
func (c *checker) reached(n int, at place, what string) {
	most := max(c.facts.Files-otherFiles, 0) / 2
	if n <= most || c.facts.Files == 0 {
		return
	}
	f := Finding{
		Severity: Warning,
		Position: c.position(at),
		Text:     fmt.Sprintf("%s = %d holds back no connections: the %d descriptors that this process may hold (RLIMIT_NOFILE) are enough for %d", what, n, c.facts.Files, most),
		Hint:     fmt.Sprintf("make it smaller, or raise the descriptors; under systemd write LimitNOFILE=%d into its unit", 2*n+otherFiles),
		Cure:     []string{fmt.Sprintf("ulimit -n %d", 2*n+otherFiles)},
	}
	if f.Position == "" {
		f.Position = c.cfg.Path
	}
	c.found = append(c.found, f)
}
