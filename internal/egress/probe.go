package egress

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
)

// A Probe says how to find out whether a source works: by what can be reached from it.
type Probe struct {
	Kind ProbeKind

	// Targets has one element, or one for each family. A family that none of them is of
	// is not probed; one with a name instead of an address is of both.
	Targets []string

	Every   time.Duration // from the begin of one test to that of the next, give or take a tenth
	Timeout time.Duration // of one test
	Rise    int           // tests that have to succeed in a row until a source is up again
	Fall    int           // tests that have to fail in a row until it is down
}

// ProbeKind is what a test does.
type ProbeKind string

// The kinds, and what a target of each is.
const (
	ProbeTCP  ProbeKind = "tcp"  // connect to "HOST:PORT"
	ProbeHTTP ProbeKind = "http" // get a URL, for an answer of 2xx or 3xx; a redirection is not followed
	ProbeICMP ProbeKind = "icmp" // ping "HOST"
	ProbeDNS  ProbeKind = "dns"  // ask for "NAME@SERVER" or "NAME@SERVER:PORT"; that there is no such name is an answer
)

// host returns the host of a target: a name, or an address with or without a port.
func (k ProbeKind) host(target string) string {
	switch k {
	case ProbeHTTP:
		if u, err := url.Parse(target); err == nil {
			return u.Host
		}
	case ProbeDNS:
		_, server, _ := strings.Cut(target, "@")
		return server
	}
	return target
}

// target returns what is probed in a family, or nothing.
func (p *Probe) target(is4 bool) string {
	for _, t := range p.Targets {
		a, ok := addrOf(p.Kind.host(t))
		if !ok || a.Is4() == is4 {
			return t
		}
	}
	return ""
}

// addrOf returns the address that s is or begins with, unless that is a name.
func addrOf(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap(), err == nil
}

// Probes tests sources, and tells Sources what it finds. It outlives reloads: a probe
// that stays as it is goes on, and keeps its state. Set the exported fields before use;
// all methods are safe for concurrent use.
type Probes struct {
	Host    Host
	Sources *Sources

	names atomic.Pointer[Resolver]

	mu      sync.Mutex
	running map[place]*prober
	closed  bool
}

// Set makes the probes of list those that run. Names in them are looked up by names.
func (p *Probes) Set(list []Source, names *Resolver) {
	p.names.Store(names)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	want := make(map[place]*prober)
	for _, s := range list {
		for _, b := range p.probersOf(&s) {
			want[b.place] = b
		}
	}
	for at, old := range p.running {
		if b := want[at]; b != nil && b.identity == old.identity {
			want[at] = old
			continue
		}
		old.stop()
		old.takeBack()
	}
	for at, b := range want {
		if p.running[at] != b {
			b.start()
		}
	}
	p.running = want
}

// Close ends all probes. What they found stays: that they end is no sign that a source
// works, and hooks that outlive this process keep what they were told last.
func (p *Probes) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, b := range p.running {
		b.stop()
	}
	p.running = nil
}

// probersOf returns a prober, not started, for each family of s that is probed.
func (p *Probes) probersOf(s *Source) []*prober {
	if s.Probe == nil {
		return nil
	}
	var out []*prober
	for _, x := range statesOf(s.Source) {
		target := s.Probe.target(x.is4)
		if target == "" {
			continue
		}
		b := &prober{
			place:    x.place,
			probe:    *s.Probe,
			target:   target,
			identity: fmt.Sprintf("%+v %+v", *s.Probe, *s.Source),
			report:   p.Sources.SetProbe,
		}
		t := tester{source: s.Source, place: x.place, probe: b.probe, target: target, host: p.Host, names: &p.names}
		b.test = t.test
		out = append(out, b)
	}
	return out
}

// prober tests one source in one family.
type prober struct {
	place
	probe    Probe
	target   string
	identity string // of probe and source

	// test makes one test, and returns the address that it was sent from. An error that
	// matches errNoResult tells nothing of the source.
	test   func(context.Context) (netip.Addr, error)
	report func(source string, from netip.Addr, err error)

	cancel context.CancelFunc
	done   chan struct{}

	// What follows belongs to run.
	from      netip.Addr
	good, bad int // in a row
	down      bool
	known     bool // a test succeeded, or enough of them failed
}

// errNoResult says that a test could not be made, for a reason that is not the source's:
// its address is away, which others tell, or no port or descriptor is free.
var errNoResult = errors.New("no result")

func (b *prober) start() {
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	b.done = make(chan struct{})
	go b.run(ctx)
}

// stop ends the tests. What they found stays.
func (b *prober) stop() {
	b.cancel()
	<-b.done
}

// takeBack lets the source be used again, once the tests have ended.
func (b *prober) takeBack() {
	if b.down {
		b.report(b.name, b.from, nil)
	}
}

// run tests until ctx is done. The first tests come soon: a source that does not work
// from the start is not to be used for long.
func (b *prober) run(ctx context.Context) {
	defer close(b.done)
	timer := time.NewTimer(rand.N(min(b.probe.Every, time.Second)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		b.once(ctx)
		every := b.probe.Every
		if !b.known {
			every = min(every, time.Second)
		}
		timer.Reset(time.Until(began.Add(every - every/10 + rand.N(every/5))))
	}
}

func (b *prober) once(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, b.probe.Timeout)
	defer cancel()
	from, err := b.test(limited)
	if ctx.Err() != nil || errors.Is(err, errNoResult) {
		return
	}
	b.from = from
	if err == nil {
		b.good, b.bad, b.known = b.good+1, 0, true
		if b.down && b.good >= b.probe.Rise {
			b.down = false
			b.report(b.name, from, nil)
		}
		return
	}
	b.good, b.bad = 0, b.bad+1
	b.down = b.down || b.bad >= b.probe.Fall
	if b.down {
		b.known = true
		b.report(b.name, from, b.reason(err))
	}
}

// reason is what is told of a test that failed. It does not wrap err: a client whose
// flow is refused must not be told that its own destination refused it.
func (b *prober) reason(err error) error {
	if isTimeout(err) {
		return fmt.Errorf("probe %s timed out", b.target)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // it repeats the target
	}
	if r := (*dialer.RefusedError)(nil); errors.As(err, &r) {
		err = r.Decision.Err // there is one rule
	}
	return fmt.Errorf("probe %s: %s", b.target, reason(err))
}

// exhausted reports whether err is about what this host has run out of.
func exhausted(err error) bool {
	for _, e := range []error{dialer.ErrPorts, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
