package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

// Routing is what Explain asks the kernel. Kernel is one.
type Routing interface {
	Route(host.RouteQuery) (host.RouteAnswer, error)
	KernelChoice(host.RouteQuery) (host.Choice, error)
	Policy() (*host.Policy, error)
	Arrives(src, dst netip.Addr, link string) error
}

// Kernel asks the kernel of this host, in the network namespace of the calling thread.
// The zero value is ready to use.
type Kernel struct{}

var _ Routing = Kernel{}

// Route is host.Route.
func (Kernel) Route(q host.RouteQuery) (host.RouteAnswer, error) { return host.Route(q) }

// KernelChoice is host.KernelChoice.
func (Kernel) KernelChoice(q host.RouteQuery) (host.Choice, error) { return host.KernelChoice(q) }

// Policy is host.ReadPolicy.
func (Kernel) Policy() (*host.Policy, error) { return host.ReadPolicy() }

// Arrives is host.Arrives.
func (Kernel) Arrives(src, dst netip.Addr, link string) error { return host.Arrives(src, dst, link) }

// A Way is how packets to an address leave this host.
type Way struct {
	host.RouteAnswer

	// Rule is the rule of ip-rule(8) that sends them to a table of its own.
	Rule string `json:"rule,omitempty"`

	// Refusal says why there is no way. The fields above are then zero.
	Refusal string `json:"refusal,omitempty"`

	// Fault says why they would be lost on it.
	Fault *Fault `json:"fault,omitempty"`

	to netip.Addr // for which the kernel was asked

	// elsewhere is a way to other destinations that is right, where this one is not.
	elsewhere *host.RouteAnswer
}

// A Fault is something wrong, and what cures it.
type Fault struct {
	Text string   `json:"text"`
	Hint string   `json:"hint,omitempty"` // what to do, where commands cannot say it
	Cure []string `json:"cure,omitempty"` // commands, to be run in this order

	commands []Command // the same, with what they change
}

// cure makes list what cures f.
func (f *Fault) cure(list []Command) { f.commands, f.Cure = list, texts(list) }

// Alone is what the kernel would do without srcproxy.
type Alone struct {
	Addr    netip.Addr `json:"address,omitzero"`
	Cause   host.Cause `json:"cause,omitempty"`
	Text    string     `json:"text,omitempty"`
	Refusal string     `json:"refusal,omitempty"` // why it has no way
}

// way returns how packets of f leave from the source that was decided on.
func (e *Explainer) way(f dialer.Flow, d *dialer.Decision) *Way {
	if e.Routing == nil || d.Err != nil {
		return nil
	}
	q := query(f, d)
	a, err := e.Routing.Route(q)
	if err != nil {
		return &Way{Refusal: noWay(err), Fault: e.foreign(d, err)}
	}
	w := &Way{RouteAnswer: a}
	policy, err := e.Routing.Policy()
	if err != nil {
		return w // the way alone says much
	}
	if r, ok := policy.RuleFor(q, a.Table); ok {
		w.Rule = r.String()
	}
	w.Fault = e.wrongWay(q, a, d.Source, policy)
	return w
}

// query returns what the kernel is asked about a flow. Where the kernel chooses the
// source d has no address.
func query(f dialer.Flow, d *dialer.Decision) host.RouteQuery {
	q := host.RouteQuery{Dst: f.Dst.Addr(), Src: d.Addr, Protocol: unix.IPPROTO_TCP, SrcPort: d.Port, DstPort: f.Dst.Port()}
	if strings.HasPrefix(f.Network, "udp") {
		q.Protocol = unix.IPPROTO_UDP
	}
	if d.Source != nil {
		q.Link, q.Mark = d.Source.Device, d.Source.Mark
	}
	return q
}

// alone returns what the kernel would do with f by itself.
func (e *Explainer) alone(f dialer.Flow) *Alone {
	if e.Routing == nil {
		return nil
	}
	q := query(f, &dialer.Decision{Port: f.LocalPort})
	c, err := e.Routing.KernelChoice(q)
	if err != nil {
		return &Alone{Refusal: noWay(err)}
	}
	return &Alone{Addr: c.Addr, Cause: c.Cause, Text: strings.TrimPrefix(c.String(), c.Addr.String()+", ")}
}

// noWay is the reason in err, without the operation.
func noWay(err error) string {
	if e := (*host.RouteError)(nil); errors.As(err, &e) {
		return e.Reason()
	}
	return err.Error()
}

// foreign is what is wrong with a source whose answers do not come back.
func (e *Explainer) foreign(d *dialer.Decision, err error) *Fault {
	if !errors.Is(err, host.ErrForeign) {
		return nil
	}
	p := netip.PrefixFrom(d.Addr, d.Addr.BitLen())
	if d.Source != nil && d.Source.Prefix.IsValid() {
		p = d.Source.Prefix
	}
	return &Fault{
		Text: fmt.Sprintf("answers to %v do not reach this host", p),
		Cure: []string{addLocalRoute(p)},
	}
}

// wrongWay is what is wrong with the way that packets from a source take.
func (e *Explainer) wrongWay(q host.RouteQuery, a host.RouteAnswer, s *dialer.Source, p *host.Policy) *Fault {
	if e.Host == nil || !q.Src.IsValid() {
		return nil
	}
	o := outlook{host: e.Host, query: q, source: s, answer: a, gateway: e.gateway(s, q.Dst.Is4())}
	if !o.wrong() {
		return nil
	}
	return o.fault(p)
}

// outlook is the way that packets from a source take, and what is to be thought of it.
type outlook struct {
	host   *host.Snapshot
	query  host.RouteQuery
	source *dialer.Source
	answer host.RouteAnswer

	// gateway is the one that the configuration names for the source. Where it is not
	// valid, packets are to leave by the link that has the address.
	gateway netip.Addr
}

// wrong reports whether the packets would be lost.
func (o *outlook) wrong() bool {
	if o.answer.Assumed || o.missesGateway() {
		return true
	}
	_, wrong := o.host.WrongEgress(o.query.Src, o.answer)
	return wrong && !o.gateway.IsValid()
}

// missesGateway reports whether the packets go to another gateway than the one that is
// named. To a destination on a link they go to none.
func (o *outlook) missesGateway() bool {
	return o.gateway.IsValid() && o.answer.Type == host.RouteUnicast && o.answer.Gateway.IsValid() && o.answer.Gateway != o.gateway
}

// fault is what is wrong, and the cure.
func (o *outlook) fault(p *host.Policy) *Fault {
	q, a := o.query, o.answer
	if a.Assumed {
		return o.noRouteByDevice(p)
	}
	owner := o.owner()
	w := &Fault{Text: fmt.Sprintf("packets from %v leave by %s, but the address lives on %s; that provider will drop them", q.Src, leavesBy(a), owner.Name)}
	if o.missesGateway() {
		w.Text = fmt.Sprintf("packets from %v leave by %s, and not by the gateway %v of the source", q.Src, leavesBy(a), o.gateway)
	}
	c := egressCure{host: o.host, policy: p, query: q, source: o.source, answer: a, owner: owner, gateway: o.gateway}
	w.cure(c.commands())
	if w.Cure == nil {
		w.Hint = fmt.Sprintf("no route by %s names its gateway; find out which one it is, then: %s", owner.Name, c.template())
	}
	return w
}

// owner returns the link that packets are to leave by: that of the gateway, or else the
// one that has the address.
func (o *outlook) owner() host.Link {
	link := ""
	for _, a := range o.host.Addresses() {
		if a.Prefix.Contains(o.gateway) {
			link = a.Link
		}
	}
	for _, l := range o.host.Links() {
		if l.Name == link {
			return l
		}
	}
	l, _ := o.host.OwnerLink(o.query.Src)
	return l
}

// noRouteByDevice is what is wrong with a source that is bound to a link by which no
// route leads: the kernel takes all for neighbours there.
func (o *outlook) noRouteByDevice(p *host.Policy) *Fault {
	q := o.query
	f := &Fault{Text: fmt.Sprintf("no route to %v leads by %s, so the kernel looks for it on the link itself", q.Dst, q.Link)}
	c := egressCure{host: o.host, policy: p, query: q, owner: host.Link{Name: q.Link}}
	if r := c.defaultRoute(); r.Dst.IsValid() {
		const last = 1000 // after those that lead by other links
		f.cure([]Command{c.addDefault(r.Gateway, host.TableMain, last)})
	}
	return f
}

// leavesBy returns "eth0 (via 198.51.100.1)".
func leavesBy(a host.RouteAnswer) string {
	if !a.Gateway.IsValid() {
		return a.Link
	}
	return fmt.Sprintf("%s (via %v)", a.Link, a.Gateway)
}

// gateway returns what the configuration says about the way of a source.
func (e *Explainer) gateway(s *dialer.Source, is4 bool) netip.Addr {
	if e.Config == nil || s == nil {
		return netip.Addr{}
	}
	return e.Config.Options(s.Name).Gateway(is4)
}
