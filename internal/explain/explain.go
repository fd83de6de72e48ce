// Package explain says in advance what the rules do with a flow, and what stands in
// the way of a configuration on this host. It returns values, which print themselves
// as text and as JSON; it changes nothing, and sends something only when asked to.
package explain

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/host"
)

// An Explainer answers questions about one configuration. It is safe for concurrent
// use as long as its fields are not changed.
type Explainer struct {
	// Config tells where the rules stand.
	Config *config.Config

	// Own is the forward whose own use decides, in Dialer's table too. Nil where the
	// rules decide.
	Own *config.Listener

	// Attach is the [[attach]] whose programs open the flows. Nil: they come by a listener.
	Attach *config.Attach

	// Dialer decides and dials as the service does: with its table, state of the
	// sources, guard and resolver.
	Dialer *dialer.Dialer

	// Routing tells which way packets take, and what the kernel alone would do. Nil:
	// nothing is said of that.
	Routing Routing

	// Host tells on which links the addresses are. It may be nil.
	Host *host.Snapshot
}

// A Question is a flow that somebody asks about.
type Question struct {
	Flow dialer.Flow
	Dial bool // connect to each address that may be dialled
}

// An Answer tells what becomes of a flow.
type Answer struct {
	Destination string     `json:"destination"` // as it was asked: host and port
	Protocol    string     `json:"protocol"`
	Client      netip.Addr `json:"client,omitzero"`
	User        string     `json:"user,omitempty"`
	Session     string     `json:"session,omitempty"`
	Listener    string     `json:"listener,omitempty"`
	LocalPort   uint16     `json:"local_port,omitempty"`
	Attach      string     `json:"attach,omitempty"`

	// Walks has one entry for each rule that decides about some of the addresses.
	Walks []Walk `json:"walks"`

	// Refusal says why no address was even looked up, or that this failed.
	Refusal string `json:"refusal,omitempty"`

	// Offline says why no service answered. Its sources may be in another state, as of
	// probes, and its pools at another turn.
	Offline string `json:"offline,omitempty"`
}

// A Walk is the way through the rules, and the addresses whose way it is.
type Walk struct {
	Above     int       `json:"above,omitempty"` // rules before Steps that do not match and are left out
	Steps     []Step    `json:"rules"`
	Below     int       `json:"below,omitempty"` // rules after Steps that are not reached and are left out
	Addresses []Address `json:"addresses"`
}

// A Verdict is what a rule has to do with a flow.
type Verdict string

// The verdicts.
const (
	Matches    Verdict = "matches"
	NoMatch    Verdict = "does not match"
	NotReached Verdict = "not reached"
)

// A Step is one rule on the way.
type Step struct {
	Number   int     `json:"number,omitempty"` // the rule's place from 1; 0 for the default
	Rule     string  `json:"rule"`
	Verdict  Verdict `json:"verdict"`
	Reason   string  `json:"reason,omitempty"` // the conditions that hold, or the first that does not
	Use      string  `json:"use,omitempty"`    // what the rule that matches says
	Position string  `json:"position,omitempty"`
}

// An Address is one address of the destination, and how it is dialled.
type Address struct {
	Addr    netip.Addr `json:"address"`
	Rule    string     `json:"rule"`
	Source  string     `json:"source,omitempty"` // its name, or kernel
	From    netip.Addr `json:"from,omitzero"`    // not valid where the kernel chooses
	Port    uint16     `json:"port,omitempty"`   // the local port, where it is fixed
	Ports   string     `json:"ports,omitempty"`  // the local ports, where they are limited
	Pool    *Pick      `json:"pool,omitempty"`
	Refusal string     `json:"refusal,omitempty"` // why it is not dialled
	Way     *Way       `json:"way,omitempty"`     // nil where it is refused, or nothing is known
	Alone   *Alone     `json:"kernel,omitempty"`  // and that of the kernel's own choice
	Dialled *Dialled   `json:"dialled,omitempty"`
}

// passable reports whether the address may be dialled, and there is a way to it.
func (a *Address) passable() bool { return a.Refusal == "" && (a.Way == nil || a.Way.Refusal == "") }

// A Pick is the choice of a member of a pool.
type Pick struct {
	Pool   string `json:"pool"`
	How    string `json:"how"`    // "sticky by client, host for 30m"
	Member int    `json:"member"` // its place from 1
	Of     int    `json:"of"`
}

// Dialled is what came of a dial.
type Dialled struct {
	Local   netip.AddrPort `json:"local,omitzero"`
	Seconds float64        `json:"seconds"`
	Err     string         `json:"error,omitempty"`
}

// noRule stands for the place of a rule where none decides, not even the default.
const noRule = -2

// Explain answers q. What goes wrong on the way is part of the answer.
func (e *Explainer) Explain(ctx context.Context, q Question) *Answer {
	f := q.Flow
	f.Dst = netip.AddrPortFrom(f.Dst.Addr().Unmap(), f.Dst.Port())
	a := &Answer{
		Destination: destination(f),
		Protocol:    strings.TrimRight(f.Network, "46"),
		Client:      f.Client.Addr(),
		User:        f.User,
		Session:     f.Session,
		Listener:    f.Listener,
		LocalPort:   f.LocalPort,
	}
	if e.Attach != nil {
		a.Attach = e.Attach.Name()
	}
	flows := []dialer.Flow{f}
	if !f.Dst.Addr().IsValid() {
		var err error
		if flows, _, err = e.Dialer.Resolve(ctx, f); err != nil {
			a.Refusal = err.Error()
			a.Walks = []Walk{e.walk(f)}
			return a
		}
	}
	var decidedBy []int // the rule that decides about the addresses of a.Walks[i]
	for _, f := range flows {
		f.Asked = e.asked(&f)
		e.hook(&f)
		if e.passed(&f) {
			a.Walks = append(a.Walks, e.passedBy(&f))
			decidedBy = append(decidedBy, noRule)
			continue
		}
		address, rule := e.address(ctx, f, q.Dial)
		i := slices.Index(decidedBy, rule)
		if i < 0 {
			i = len(a.Walks)
			decidedBy = append(decidedBy, rule)
			a.Walks = append(a.Walks, e.walk(f))
		}
		a.Walks[i].Addresses = append(a.Walks[i].Addresses, address)
	}
	return a
}

// Reachable reports whether one of the addresses may be dialled and packets to it are
// not lost on their way, and if they were dialled, whether one could be reached. A
// service refuses a source whose packets take a wrong way.
func (a *Answer) Reachable() bool {
	for _, w := range a.Walks {
		for _, d := range w.Addresses {
			if d.passable() && (d.Way == nil || d.Way.Fault == nil) && (d.Dialled == nil || d.Dialled.Err == "") {
				return true
			}
		}
	}
	return false
}

func destination(f dialer.Flow) string {
	host := f.Name
	if host == "" {
		host = f.Dst.Addr().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(f.Dst.Port())))
}

// address decides about one address and perhaps dials it; it returns the place of the
// rule that decided too.
func (e *Explainer) address(ctx context.Context, f dialer.Flow, dial bool) (Address, int) {
	var dec dialer.Decision
	var dialled *Dialled
	if dial {
		dec, dialled = e.dial(ctx, f) // decides by itself, and a pool may pick another member each time
	} else {
		dec = e.Dialer.Decide(f)
	}
	a := Address{Addr: f.Dst.Addr(), Rule: dec.Rule, From: dec.Addr, Port: dec.Port, Way: e.way(f, &dec), Dialled: dialled}
	if dec.Err == nil {
		a.Alone = e.alone(f)
	}
	if !a.passable() {
		a.Dialled = nil // connect(2) failed before it sent anything
	}
	switch {
	case dec.Err != nil:
		a.Refusal = dec.Err.Error()
	case dec.Source != nil:
		a.Source = dec.Source.Name
	case dec.Use.Kernel:
		a.Source = dec.Use.String()
	}
	if !dec.Ports.IsZero() {
		a.Ports = dec.Ports.String()
	}
	if dec.Use.Pool != nil && dec.Source != nil {
		a.Pool = pick(dec.Use.Pool, dec.Source)
	}
	return a, dec.Index
}

func pick(p *dialer.Pool, s *dialer.Source) *Pick {
	how := p.Pick.String()
	if p.Pick == dialer.Sticky {
		how += " by " + joinKeys(p.By)
		if p.For > 0 {
			how += " for " + shortDuration(p.For)
		}
	}
	member := slices.IndexFunc(p.Of, func(m dialer.Member) bool { return m.Source == s })
	return &Pick{Pool: p.Name, How: how, Member: member + 1, Of: len(p.Of)}
}

func joinKeys(keys []dialer.Key) string {
	if len(keys) == 0 {
		return dialer.ByClient.String()
	}
	words := make([]string, len(keys))
	for i, k := range keys {
		words[i] = k.String()
	}
	return strings.Join(words, ", ")
}

// shortDuration writes 30m0s as 30m and 24h0m0s as 24h.
func shortDuration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// dial connects to the address of f and closes the connection at once.
func (e *Explainer) dial(ctx context.Context, f dialer.Flow) (dialer.Decision, *Dialled) {
	start := time.Now()
	c, dec, err := e.Dialer.DialFlow(ctx, f)
	d := &Dialled{Seconds: time.Since(start).Seconds()}
	if refused := (*dialer.RefusedError)(nil); errors.As(err, &refused) {
		dec.Err = refused.Decision.Err
		return dec, nil
	}
	if err != nil {
		d.Err = reason(err).Error()
		return dec, d
	}
	if local, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		d.Local = local
	}
	if err := c.Close(); err != nil {
		d.Err = reason(err).Error()
	}
	e.Dialer.Release(&dec)
	return dec, d
}

// reason takes off what the answer says in other places: the operation, and both
// addresses.
func reason(err error) error {
	if oe := (*net.OpError)(nil); errors.As(err, &oe) {
		return oe.Err
	}
	return err
}
