package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// cured is a Routing whose policy has what the cures so far would change, so that the
// next does not do it again.
type cured struct {
	Routing
	policy *host.Policy
}

// Policy returns it.
func (c cured) Policy() (*host.Policy, error) { return c.policy, nil }

// ways tests by which link the packets of each source leave.
func (x *examination) ways() {
	var right []string
	start := len(x.Tests)
	for _, s := range x.Config.AllSources() {
		n, out := len(x.Tests), false
		for _, is4 := range []bool{true, false} {
			a := x.sample(s, is4)
			if a.IsValid() && !a.IsLoopback() {
				out = true
				x.way(s, a)
			}
		}
		if out && len(x.Tests) == n {
			right = append(right, s.Name)
		}
	}
	if len(right) > 0 {
		x.fine(start, "ways", fmt.Sprintf("packets from %s leave by the right link", strings.Join(right, " ")))
	}
}

// sample returns an address of the source that is here. It is not valid where there is
// none.
func (x *examination) sample(s *dialer.Source, is4 bool) netip.Addr {
	a := sourceOf(s, is4)
	switch {
	case s.Interface != "":
		a = x.Host.LinkAddr(s.Interface, is4)
	case a.IsValid() && s.Prefix.IsValid():
		a = s.Prefix.Masked().Addr()
		if !s.Prefix.IsSingleIP() {
			a = a.Next() // not the subnet-router anycast address
		}
	case a.IsValid() && s.First.IsValid():
		for n := 0; n < maxRange && a.IsValid() && a.Compare(s.Last) <= 0 && !x.Host.Local(a); n++ {
			a = a.Next()
		}
		if a.IsValid() && s.Last.Less(a) {
			return netip.Addr{}
		}
	}
	if !a.IsValid() || !x.Host.Local(a) {
		return netip.Addr{}
	}
	return a
}

// way tests the ways of packets from a, an address of s: to the rest of the world, and
// to where its probe and the rules send some.
func (x *examination) way(s *dialer.Source, a netip.Addr) {
	gateway := x.Config.Options(s.Name).Gateway(a.Is4())
	routing := cured{x.Routing, x.policy}
	w, ok := Outward(routing, x.Host, s, a, gateway)
	switch {
	case !ok:
		x.noWay(s, a, gateway)
	case w.Fault != nil:
		x.astray(s, &w, gateway)
		return
	default:
		x.strict(s, a, &w)
	}
	for _, dst := range x.destinations(s, a.Is4()) {
		w, there := Toward(routing, x.Host, s, a, gateway, dst)
		switch {
		case !there && ok:
			x.add(Failing, s.Name, nil, "no route leads from %v to %v", a, dst)
		case there && w.Fault != nil && w.Gateway.IsValid():
			w.Fault.Text = strings.Replace(w.Fault.Text, a.String(), fmt.Sprintf("%v to %v", a, dst), 1)
			x.astray(s, &w, gateway)
			return
		case there && is4Unicast(a, &w):
			x.filtered(Failing, s, a, dst, w.Link)
		}
	}
}

// astray adds a fault with its cure.
func (x *examination) astray(s *dialer.Source, w *Way, gateway netip.Addr) {
	cure := w.Fault.commands
	for _, t := range x.Tests { // what another source of the same address has
		cure = slices.DeleteFunc(cure, func(c Command) bool {
			return slices.ContainsFunc(t.Cure, func(d Command) bool { return d.Run == c.Run })
		})
	}
	x.policy = after(x.policy, cure)
	hint := w.Fault.Hint
	switch {
	case hint != "":
	case len(cure) == 0 && len(w.Fault.commands) > 0:
		hint = "the commands above cure this, too"
	case s.Interface != "":
		hint = fmt.Sprintf("the cure is for the address that %s has now:", s.Interface)
	case !gateway.IsValid() && w.Gateway.IsValid():
		hint = fmt.Sprintf("where that way is right after all, write gateway = %q to the source; else:", w.Gateway)
	}
	x.Tests = append(x.Tests, Test{Grade: Failing, Subject: s.Name, Text: w.Fault.Text, Hint: hint, Cure: cure})
}

// noWay tells of a source from which nothing leads out.
func (x *examination) noWay(s *dialer.Source, a, gateway netip.Addr) {
	o := outlook{host: x.Host, query: outwardQuery(s, a, outside(a.Is4())[0]), source: s, gateway: gateway}
	c := egressCure{host: x.Host, policy: x.policy, query: o.query, source: s, owner: o.owner(), gateway: gateway}
	var cure []Command
	if c.owner.Name != "" {
		cure = c.commands()
	}
	if cure == nil {
		x.add(Doubt, s.Name, nil, "no route leads from %v to the rest of the world", a)
		x.Tests[len(x.Tests)-1].Hint = "where one should, its gateway is not known here: write gateway = \"ADDRESS\" to the source"
		return
	}
	x.policy = after(x.policy, cure)
	x.add(Failing, s.Name, cure, "no route leads from %v to the rest of the world", a)
}

// maxDestinations bounds those that are tested for one source.
const maxDestinations = 64

// destinations returns what is to be reached from s: the targets of its probe, and an
// address of each prefix for which a rule uses it. The rest of the world is not among
// them.
func (x *examination) destinations(s *dialer.Source, is4 bool) []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if a.IsValid() && a.Is4() == is4 && a.IsGlobalUnicast() && len(out) < maxDestinations && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if p := x.Config.Options(s.Name).Probe; p != nil {
		for _, a := range p.Addrs() {
			add(a)
		}
	}
	to := func(m dialer.Match, u dialer.Use) {
		switch p := m.Prefix(); {
		case !p.IsValid() || p.Bits() == 0 || !uses(u, s):
		case p.IsSingleIP():
			add(p.Addr())
		default:
			add(p.Masked().Addr().Next())
		}
	}
	for i := range x.Config.Rules {
		r := &x.Config.Rules[i]
		for _, m := range r.To {
			to(m, r.Use)
		}
		for _, m := range sortedKeys(r.Map) {
			to(m, r.Map[m])
		}
	}
	return out
}

// uses reports whether flows may leave from s by u.
func uses(u dialer.Use, s *dialer.Source) bool {
	return u.Source == s || u.Pool != nil && slices.ContainsFunc(u.Pool.Of, func(m dialer.Member) bool { return m.Source == s })
}

// strict tests whether answers to a are let in. A strict rp_filter takes them only by the
// link that packets to their sender would leave by (RFC 3704), and knows neither the device
// nor the mark of a socket. Answers come in by the link of w, or by the one that has a.
func (x *examination) strict(s *dialer.Source, a netip.Addr, w *Way) {
	if !is4Unicast(a, w) {
		return
	}
	x.filtered(Failing, s, a, w.to, w.Link)
	if owner, ok := x.Host.OwnerLink(a); ok && owner.Carries() && owner.Name != w.Link && x.leadsOut(owner.Name) {
		x.filtered(Doubt, s, a, w.to, owner.Name)
	}
}

func is4Unicast(a netip.Addr, w *Way) bool { return a.Is4() && w.Type == host.RouteUnicast }

// leadsOut reports whether a default route leads by the link.
func (x *examination) leadsOut(link string) bool {
	return slices.ContainsFunc(x.policy.Routes, func(r host.TableRoute) bool {
		return r.Type == host.RouteUnicast && r.Dst.Bits() == 0 && r.Dst.Addr().Is4() && r.Link == link
	})
}

// filtered tests whether packets from peer to a are dropped as they come in by a link.
func (x *examination) filtered(g Grade, s *dialer.Source, a, peer netip.Addr, link string) {
	name := settingOf("ipv4", link, "rp_filter")
	cured := slices.ContainsFunc(x.Tests, func(t Test) bool {
		return len(t.Cure) > 0 && t.Cure[0].Setting != nil && t.Cure[0].Setting.Name == name
	})
	if cured || !errors.Is(x.Routing.Arrives(peer, a, link), host.ErrReversePath) {
		return
	}
	own, all := x.number(name), x.number(settingOf("ipv4", "all", "rp_filter"))
	const strict, loose = 1, 2
	if max(own, all) != strict {
		return // no route at all leads to the peer, which is another fault
	}
	by := "no link"
	if back, err := x.Routing.Route(host.RouteQuery{Dst: peer, Src: a}); err == nil {
		by = back.Link
	}
	cure := changeSetting(name, strconv.Itoa(own), strconv.Itoa(loose))
	x.add(g, s.Name, []Command{cure}, "answers to %v that come in by %s are dropped there: rp_filter is strict, and the routes alone lead by %s", a, link, by)
}

// settingOf returns the name of a variable that each link has. Dots of the link's own
// name would be read as slashes.
func settingOf(family, link, variable string) string {
	name := []string{"net", family, "conf", link, variable}
	if strings.Contains(link, ".") {
		return strings.Join(name, "/")
	}
	return strings.Join(name, ".")
}

// number returns a variable that is one, and 0 where it cannot be read.
func (x *examination) number(name string) int {
	text, err := x.Setting(name)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
