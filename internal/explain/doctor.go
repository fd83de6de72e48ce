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

// Grade is how a Test ended.
type Grade string

// The grades.
const (
	Fine    Grade = "ok"
	Doubt   Grade = "warn" // something may not work, or not as it was meant
	Failing Grade = "FAIL" // flows are lost or refused
)

// A Test is one thing that doctor looked at.
type Test struct {
	Grade   Grade     `json:"grade"`
	Subject string    `json:"subject"` // a source, or what else it is about
	Text    string    `json:"text"`
	Hint    string    `json:"hint,omitempty"` // what to do, in words
	Cure    []Command `json:"cure,omitempty"` // and as commands, to be run in this order
}

// A Diagnosis is all that doctor found.
type Diagnosis struct {
	Path  string `json:"path"`
	Tests []Test `json:"tests"`
}

// Failed reports whether a test failed.
func (d *Diagnosis) Failed() bool {
	return slices.ContainsFunc(d.Tests, func(t Test) bool { return t.Grade == Failing })
}

// Add adds what check finds. Without a finding there is an "ok" with that text, unless
// it is empty.
func (d *Diagnosis) Add(subject, fine string, found []Finding) {
	n := len(d.Tests)
	for _, f := range found {
		t := Test{Grade: Doubt, Subject: subject, Text: f.Text, Hint: f.Hint}
		switch f.Severity {
		case Note:
			continue
		case Error:
			t.Grade = Failing
		}
		for _, c := range f.Cure {
			t.Cure = append(t.Cure, byHand(c))
		}
		d.Tests = append(d.Tests, t)
	}
	if len(d.Tests) == n && fine != "" {
		d.Tests = append(d.Tests, Test{Grade: Fine, Subject: subject, Text: fine})
	}
}

// A Doctor tests whether flows can leave from the sources of a configuration. It sends
// nothing.
type Doctor struct {
	Config  *config.Config
	Host    *host.Snapshot
	Facts   host.Facts
	Routing Routing

	// Setting returns a variable of the kernel, by the name that sysctl(8) has for it.
	// host.Setting is one.
	Setting func(name string) (string, error)

	// Holder returns who has a port. host.PortHolder is one.
	Holder func(network string, a netip.AddrPort) (host.Holder, bool)

	// Service is the process that serves this very configuration; 0 where none answers. It
	// may have the ports.
	Service int

	// ReceiveBuffer is what the sockets of UDP forwards ask the kernel for, in bytes.
	ReceiveBuffer int
}

// Examine tests everything. An error is of the kernel, about its routes.
func (d *Doctor) Examine() (*Diagnosis, error) {
	policy, err := d.Routing.Policy()
	if err != nil {
		return nil, fmt.Errorf("read the routes of this host: %w", err)
	}
	x := &examination{
		Doctor:    d,
		checker:   checker{cfg: d.Config, host: d.Host, facts: d.Facts},
		policy:    policy,
		Diagnosis: Diagnosis{Path: d.Config.Path},
	}
	for _, test := range []func(){x.addresses, x.ways, x.neighbours, x.ports, x.limits, x.names, x.listeners, x.buffers, x.nonlocal} {
		test()
	}
	return &x.Diagnosis, nil
}

// examination is one run of a Doctor.
type examination struct {
	*Doctor
	Diagnosis
	checker checker
	policy  *host.Policy // with what the cures so far change
}

func (x *examination) add(g Grade, subject string, cure []Command, format string, args ...any) {
	x.Tests = append(x.Tests, Test{Grade: g, Subject: subject, Text: fmt.Sprintf(format, args...), Cure: cure})
}

// fine puts what is as it should be before the tests from i on.
func (x *examination) fine(i int, subject, text string) {
	x.Tests = slices.Insert(x.Tests, i, Test{Grade: Fine, Subject: subject, Text: text})
}

// check adds what some checks find.
func (x *examination) check(subject, fine string, checks ...func(*checker)) {
	c := x.checker
	for _, f := range checks {
		f(&c)
	}
	x.Diagnosis.Add(subject, fine, c.found)
}

// addresses tests whether the addresses of each source are here.
func (x *examination) addresses() {
	var here []string
	start := len(x.Tests)
	for _, s := range x.Config.AllSources() {
		n := len(x.Tests)
		x.present(s)
		if len(x.Tests) == n {
			here = append(here, s.Name)
		}
	}
	switch {
	case len(here) == 0 && len(x.Tests) > start:
		return
	case len(here) == 0:
		x.add(Fine, "addresses", nil, "the configuration names none")
		return
	}
	verb := "are"
	if len(here) == 1 {
		verb = "is"
	}
	x.fine(start, "addresses", fmt.Sprintf("%s %s on this host", strings.Join(here, " "), verb))
}

// present tests whether the addresses of a source are here.
func (x *examination) present(s *dialer.Source) {
	switch {
	case s.FreeBind: // here or not, as the operator wants it
	case s.Prefix.IsValid():
		if !x.Host.Covers(s.Prefix) {
			x.presentPrefix(s)
		}
	case s.First.IsValid():
		x.presentRange(s)
	case s.Interface != "":
		x.presentLink(s)
	default:
		for _, a := range s.Addrs {
			x.presentAddress(s, a)
		}
	}
}

// presentPrefix cures a prefix that is not local. With a local route the kernel answers
// ARP for each address of it (arp_process), so inside of the network of a link that is
// like adding all of them.
func (x *examination) presentPrefix(s *dialer.Source) {
	p := s.Prefix.Masked()
	cure := localRoute(p)
	x.policy = after(x.policy, []Command{cure})
	i := slices.IndexFunc(x.Host.Addresses(), func(a host.Address) bool {
		return p.Addr().Is4() && a.Prefix.Overlaps(p) && x.carries(a.Link)
	})
	if i >= 0 {
		cure.Undo = "" // it is for people to run
	}
	x.add(Failing, s.Name, []Command{cure}, "replies to %v do not reach this host", p)
	if i >= 0 {
		x.Tests[len(x.Tests)-1].Hint = fmt.Sprintf("where no other host on %s has one of its addresses, run this; the kernel then answers for all of them:", x.Host.Addresses()[i].Link)
	}
}

// carries reports whether packets can leave by the link of that name.
func (x *examination) carries(link string) bool {
	return slices.ContainsFunc(x.Host.Links(), func(l host.Link) bool { return l.Name == link && l.Carries() })
}

func (x *examination) presentRange(s *dialer.Source) {
	n, missing := x.checker.missing(s)
	if len(missing) == 0 {
		return
	}
	cure := x.checker.addAddresses(missing)
	x.absent(s.Name, cure, "%d of the %d addresses %v-%v are on no interface of this host", len(missing), n, s.First, s.Last)
	if more := andSoOn(len(cure), missing); more != "" {
		x.Tests[len(x.Tests)-1].Hint += " (" + strings.TrimSuffix(more, ":") + ")"
	}
}

func (x *examination) presentLink(s *dialer.Source) {
	switch {
	case x.Host.LinkAddr(s.Interface, true).IsValid() || x.Host.LinkAddr(s.Interface, false).IsValid():
	case !x.Host.HasLink(s.Interface):
		x.add(Failing, s.Name, nil, "there is no interface %s on this host", s.Interface)
	default:
		x.add(Failing, s.Name, nil, "%s has no address to send from", s.Interface)
	}
}

func (x *examination) presentAddress(s *dialer.Source, a netip.Addr) {
	if x.Host.Local(a) {
		if i := slices.IndexFunc(x.Host.Addresses(), func(h host.Address) bool { return h.Addr == a }); i >= 0 && x.Host.Addresses()[i].Flags&host.Deprecated != 0 {
			x.add(Doubt, s.Name, nil, "%v is deprecated on %s, and its lifetime may end soon (RFC 4862)", a, x.Host.Addresses()[i].Link)
		}
		return
	}
	if what := x.checker.notUsable(a); what != "" {
		x.add(Failing, s.Name, nil, "%v %s", a, what)
		return
	}
	x.absent(s.Name, []Command{x.checker.bring(a)}, "%v is on no interface of this host: flows from it are refused until it comes", a)
}

// absent tells of addresses that are not here. It is no failure, and the cure is left to
// people: the addresses may be those of a pair of hosts (VRRP) of which this is the other
// one, now or as soon as that is back. To ask the neighbours would not tell.
func (x *examination) absent(subject string, cure []Command, format string, args ...any) {
	x.add(Doubt, subject, cure, format, args...)
	x.Tests[len(x.Tests)-1].Hint = "--fix leaves that to you; run this where no other host has them, now or later"
}

// neighbours tells of prefixes whose addresses routers ask for on the link.
func (x *examination) neighbours() {
	for _, s := range x.Config.AllSources() {
		if !s.Prefix.IsValid() || s.Prefix.Addr().Is4() {
			continue // AnyIP answers ARP (arp_process)
		}
		i := slices.IndexFunc(x.Host.Addresses(), func(a host.Address) bool {
			return a.Addr.Is6() && a.Prefix.Bits() > 0 && covers(a.Prefix, s.Prefix.Masked())
		})
		if i < 0 {
			continue
		}
		link := x.Host.Addresses()[i].Link
		x.add(Doubt, s.Name, nil, "%v is part of the network on %s: routers there ask for each address by neighbour discovery, and the kernel answers only for those of the interface", s.Prefix.Masked(), link)
		x.Tests[len(x.Tests)-1].Hint = fmt.Sprintf("have the prefix routed to this host, or run a proxy for neighbour discovery on %s, such as ndppd", link)
	}
}
