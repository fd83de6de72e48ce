package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/host"
)

// Severity is how bad a Finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // srcproxy does not start with this
	Warning Severity = "warning" // it starts, and something does not work, or not as it was meant
	Note    Severity = "note"    // worth knowing
)

// A Finding is one thing that check found.
type Finding struct {
	Severity Severity `json:"severity"`
	Position string   `json:"position,omitempty"` // path:line, with the column where it is known
	Text     string   `json:"text"`
	Excerpt  string   `json:"-"`              // the line of the file, and a caret
	Hint     string   `json:"hint,omitempty"` // what to do, in words
	Cure     []string `json:"cure,omitempty"` // and as commands
}

// A Report is all that check found in one configuration.
type Report struct {
	Path     string    `json:"path"`
	Summary  string    `json:"summary,omitempty"` // what is in the file
	Findings []Finding `json:"findings"`
}

// FromError returns the findings of an error of config.Load.
func FromError(err error) []Finding {
	var joined interface {
		error
		Unwrap() []error
	}
	if errors.As(err, &joined) {
		var all []Finding
		for _, e := range joined.Unwrap() {
			all = append(all, FromError(e)...)
		}
		return all
	}
	if e := (*config.Error)(nil); errors.As(err, &e) {
		return []Finding{fromConfig(Error, e)}
	}
	return []Finding{{Severity: Error, Text: err.Error()}}
}

func fromConfig(s Severity, e *config.Error) Finding {
	_, excerpt, _ := strings.Cut(e.Error(), "\n")
	excerpt = strings.TrimSuffix(strings.TrimSuffix(excerpt, e.Hint), "\n    ")
	return Finding{
		Severity: s,
		Position: fmt.Sprintf("%s:%d:%d", e.Path, e.Line, e.Column),
		Text:     e.Message,
		Excerpt:  excerpt,
		Hint:     e.Hint,
	}
}

// Check returns what can be said of a configuration that could be read: first what its
// text shows, then what stands in its way on the host that h and f describe.
func Check(cfg *config.Config, h *host.Snapshot, f host.Facts) *Report {
	c := checker{cfg: cfg, host: h, facts: f}
	for _, w := range cfg.Warnings() {
		c.found = append(c.found, fromConfig(Warning, (*config.Error)(&w)))
	}
	table, err := cfg.Table()
	if err != nil {
		c.add(Error, place{}, nil, "%v", err)
	}
	c.sources()
	c.listeners()
	c.probes()
	c.privilegedPorts()
	c.descriptors()
	c.bounds()
	if table != nil {
		c.nameservers(table)
	}
	return &Report{Path: cfg.Path, Summary: summary(cfg), Findings: c.found}
}

// Failed reports whether something is an error, or, when strict, a warning.
func (r *Report) Failed(strict bool) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Severity == Error || strict && f.Severity == Warning
	})
}

func summary(cfg *config.Config) string {
	parts := []string{count(len(cfg.Listen), "listener")}
	if n := len(cfg.Attach); n > 0 {
		parts = append(parts, count(n, "attachment"))
	}
	return strings.Join(append(parts,
		count(len(cfg.Sources), "source"),
		count(len(cfg.Pools), "pool"),
		count(len(cfg.Rules), "rule"),
		"default "+cfg.Default.String(),
	), ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checker collects findings.
type checker struct {
	cfg   *config.Config
	host  *host.Snapshot
	facts host.Facts
	found []Finding
}

func (c *checker) add(s Severity, at place, cure []string, format string, args ...any) {
	c.found = append(c.found, Finding{Severity: s, Position: c.position(at), Text: fmt.Sprintf(format, args...), Cure: cure})
}

// place is a place in the file as config.Position is asked for it. It is asked only
// for findings, since each answer takes a look at the whole file.
type place struct{ kind, name string }

func (c *checker) position(at place) string { return c.cfg.Position(at.kind, at.name) }

// sources looks at all sources, whether they are named or stand as an address in a
// rule, a pool, a listener or the default.
func (c *checker) sources() {
	seen := make(map[*dialer.Source]bool)
	one := func(s *dialer.Source, kind, name string) {
		if s == nil || seen[s] {
			return
		}
		seen[s] = true
		c.source(s, place{kind, name})
	}
	use := func(u dialer.Use, kind, name string) {
		one(u.Source, kind, name)
		if u.Pool != nil {
			for _, m := range u.Pool.Of {
				one(m.Source, "pool", u.Pool.Name)
			}
		}
	}
	for _, s := range c.cfg.Sources {
		one(s, "source", s.Name)
	}
	for _, p := range c.cfg.Pools {
		use(dialer.Use{Pool: p}, "pool", p.Name)
	}
	use(c.cfg.Default, "default", "")
	for i := range c.cfg.Rules {
		r := &c.cfg.Rules[i]
		name := ruleName(r.Name, i)
		use(r.Use, "rule", name)
		for _, m := range sortedKeys(r.Map) {
			use(r.Map[m], "rule", name)
		}
	}
	for i := range c.cfg.Listen {
		if l := &c.cfg.Listen[i]; l.Use != nil {
			use(*l.Use, "listener", l.Name)
		}
	}
}

func sortedKeys(m map[dialer.Match]dialer.Use) []dialer.Match {
	keys := make([]dialer.Match, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b dialer.Match) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

func (c *checker) source(s *dialer.Source, at place) {
	switch {
	case s.Prefix.IsValid():
		c.prefix(s, at)
	case s.First.IsValid():
		c.addressRange(s, at)
	case s.Interface != "":
		c.link(s, at)
	default:
		for _, a := range s.Addrs {
			c.address(s, a, at)
		}
	}
	c.ports(s, at)
	c.way(s, at)
	c.reached(c.cfg.Options(s.Name).Limit.Connections, at, fmt.Sprintf("source %q: limit", s.Name))
}

func (c *checker) prefix(s *dialer.Source, at place) {
	if s.FreeBind || c.host.Covers(s.Prefix) {
		return
	}
	c.add(Warning, at, []string{addLocalRoute(s.Prefix)},
		"source %q: %v has no local route, so replies to its addresses do not reach this program", s.Name, s.Prefix)
}

// link warns of a source whose link has no address that it could follow.
func (c *checker) link(s *dialer.Source, at place) {
	if c.host.LinkAddr(s.Interface, true).IsValid() || c.host.LinkAddr(s.Interface, false).IsValid() {
		return
	}
	if !c.host.HasLink(s.Interface) {
		c.add(Warning, at, nil, "source %q: there is no interface %s on this host; flows are refused until it comes", s.Name, s.Interface)
		return
	}
	c.add(Warning, at, nil, "source %q: %s has no address to send from; flows are refused until it has one", s.Name, s.Interface)
}

func (c *checker) address(s *dialer.Source, a netip.Addr, at place) {
	if s.FreeBind || c.host.Local(a) {
		return
	}
	who := fmt.Sprintf("source %q: %v", s.Name, a)
	if s.Name == a.String() {
		who = "source " + s.Name
	}
	if what := c.notUsable(a); what != "" {
		c.add(Warning, at, nil, "%s %s", who, what)
		return
	}
	c.add(Warning, at, []string{c.addAddress(a)}, "%s is on no interface of this host", who)
}

// notUsable says why an address that is on an interface cannot be used.
func (c *checker) notUsable(a netip.Addr) string {
	i := slices.IndexFunc(c.host.Addresses(), func(x host.Address) bool { return x.Addr == a })
	if i < 0 {
		return ""
	}
	x := c.host.Addresses()[i]
	switch {
	case x.Flags&host.DADFailed != 0:
		return "is on " + x.Link + ", but another host on the link has it too (duplicate address detection failed)"
	case !x.Flags.Usable():
		return "is on " + x.Link + ", but still tentative: duplicate address detection is not over"
	}
	return "is on " + x.Link + ", but has no local route; is the link down?"
}

// maxRange bounds the addresses of a range that are looked at one by one.
const maxRange = 1 << 16

func (c *checker) addressRange(s *dialer.Source, at place) {
	n, missing := c.missing(s)
	if s.FreeBind || len(missing) == 0 {
		return
	}
	cure := texts(c.addAddresses(missing))
	c.found = append(c.found, Finding{
		Severity: Warning,
		Position: c.position(at),
		Text:     fmt.Sprintf("source %q: %d of the %d addresses %v-%v are on no interface of this host", s.Name, len(missing), n, s.First, s.Last),
		Cure:     cure,
		Hint:     andSoOn(len(cure), missing),
	})
}

// missing returns how many addresses of a range were looked at, and those that are not
// here.
func (c *checker) missing(s *dialer.Source) (n int, missing []netip.Addr) {
	for a := s.First; n < maxRange && a.IsValid() && a.Compare(s.Last) <= 0; a = a.Next() {
		n++
		if !c.host.Local(a) {
			missing = append(missing, a)
		}
	}
	return n, missing
}

// andSoOn says that a cure of n commands has only the first.
func andSoOn(n int, missing []netip.Addr) string {
	if n != maxCommands || len(missing) <= maxCommands {
		return ""
	}
	return fmt.Sprintf("and so on up to %v:", missing[len(missing)-1])
}

// ports warns of a range that dials refuse, since the kernel ignores it.
func (c *checker) ports(s *dialer.Source, at place) {
	lo, hi := c.facts.PortLo, c.facts.PortHi
	if s.Ports.IsZero() || lo == 0 || lo <= s.Ports.Lo && s.Ports.Hi <= hi {
		return
	}
	cure := fmt.Sprintf(`sysctl -w net.ipv4.ip_local_port_range="%d %d"`, min(lo, s.Ports.Lo), max(hi, s.Ports.Hi))
	c.add(Warning, at, []string{cure},
		"source %q: ports %v are not all inside net.ipv4.ip_local_port_range, %d-%d, and the kernel would ignore them: dials from it fail",
		s.Name, s.Ports, lo, hi)
}

// listeners looks at the addresses to listen on.
func (c *checker) listeners() {
	for i := range c.cfg.Listen {
		l := &c.cfg.Listen[i]
		for _, a := range l.Addrs {
			if a.Addr().IsUnspecified() || c.host.Local(a.Addr()) {
				continue
			}
			c.add(Warning, place{"listener", l.Name}, []string{c.addAddress(a.Addr())},
				"listener %q: %v is on no interface of this host; it is listened on once it is there", l.Name, a.Addr())
		}
	}
}
