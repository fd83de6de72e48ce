package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/host"
)

const (
	dnsPort         = 53
	defaultTimeout  = 3 * time.Second
	defaultAttempts = 2 // as in resolv.conf(5)

	// otherFamily is how long the one family is waited for when the other is there: a
	// server that does not answer about AAAA must not hold up every name.
	otherFamily = 500 * time.Millisecond

	// failureTTL is how long a name is not asked about again when no server had an answer
	// (RFC 9520 section 3.2).
	failureTTL = time.Second
)

// upstream is the servers to ask, and what they said. It is not changed once made.
type upstream struct {
	dialer   *dialer.Dialer
	servers  []netip.AddrPort
	timeout  time.Duration // for one query to one server
	attempts int
	rotate   bool
	turn     atomic.Uint32 // of the server to begin with, where they rotate
	identity string        // of servers and sources
	cache    *cache
}

// system sets what resolv.conf says.
func (u *upstream) system(conf *host.ResolvConf) {
	for _, a := range conf.Servers {
		u.servers = append(u.servers, netip.AddrPortFrom(a, dnsPort))
	}
	if len(u.servers) == 0 {
		u.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	u.timeout = orElse(u.timeout, conf.Timeout)
	u.attempts = orElse(conf.Attempts, u.attempts)
	u.rotate = conf.Rotate
}

// identify tells apart what may be answered differently: other servers, or the same
// ones asked from other sources.
func (u *upstream) identify(cache int) string {
	var b strings.Builder
	fmt.Fprintln(&b, cache)
	for _, s := range u.servers {
		use := dialer.Use{Kernel: true}
		if u.dialer.Table != nil {
			use = u.dialer.Table.Lookup(dialer.Flow{Network: "udp", Dst: s}).Use
		}
		fmt.Fprintln(&b, s, use)
		if use.Source != nil {
			fmt.Fprintf(&b, "%+v\n", *use.Source)
		}
		if use.Pool != nil {
			for _, m := range use.Pool.Of {
				fmt.Fprintf(&b, "%+v\n", *m.Source)
			}
		}
	}
	return b.String()
}

// lookup asks for all kinds at the same time.
func (u *upstream) lookup(ctx context.Context, name string, kinds []dnsmessage.Type) ([]netip.Addr, error) {
	var open []*flight
	for _, kind := range kinds {
		open = append(open, u.cache.join(question{name, kind}, u.resolve))
	}
	defer func() { u.cache.leave(open) }()
	var addrs []netip.Addr
	var failed error
	var late <-chan time.Time
	for len(open) > 0 {
		first, last := open[0], open[len(open)-1]
		done := first
		select {
		case <-first.done:
			open = open[1:]
		case <-last.done:
			done, open = last, open[:len(open)-1]
		case <-late:
			return addrs, nil
		case <-ctx.Done():
			return nil, interrupted(name, ctx.Err())
		}
		addrs = append(addrs, done.answer.addrs...)
		failed = worse(failed, done.answer.err)
		if len(addrs) > 0 && late == nil {
			late = time.After(otherFamily)
		}
	}
	if len(addrs) > 0 {
		return addrs, nil
	}
	return nil, failed
}

// worse returns the error that says less about the name: that one family has no address
// is no answer when the other could not be asked about.
func worse(a, b error) error {
	if d := (*net.DNSError)(nil); a == nil || errors.As(a, &d) && d.IsNotFound && b != nil {
		return b
	}
	return a
}

func interrupted(name string, err error) *net.DNSError {
	return &net.DNSError{Err: err.Error(), UnwrapErr: err, Name: name, IsTimeout: errors.Is(err, context.DeadlineExceeded)}
}

// resolve answers q, over its aliases where the server leaves them to us.
func (u *upstream) resolve(ctx context.Context, q question) answer {
	if _, err := newQuery(q, false); err != nil { // a label is too long
		return answer{err: notFound(q.name, noSuchName)}
	}
	ttl := maxTTL
	next := q.name
	for range maxChain {
		a := u.ask(ctx, question{next, q.kind})
		a.ttl = min(a.ttl, ttl)
		if a.next == "" {
			return a.about(q.name)
		}
		next, ttl = a.next, a.ttl
	}
	err := fmt.Sprintf("the name leads to more than %d others", maxChain)
	return answer{err: &net.DNSError{Err: err, Name: q.name}, ttl: failureTTL}
}

// about makes the error of a name at the end of a chain one of the name that was asked
// for.
func (a answer) about(name string) answer {
	if d := (*net.DNSError)(nil); errors.As(a.err, &d) && d.Name != name {
		e := *d
		e.Name = name
		a.err = &e
	}
	return a
}

// ask asks the servers in turn until one of them has an answer.
func (u *upstream) ask(ctx context.Context, q question) answer {
	begin := u.first()
	reasons := make([]error, len(u.servers))
	for range u.attempts {
		for i := range u.servers {
			k := (begin + i) % len(u.servers)
			if refused(reasons[k]) {
				continue
			}
			a, err := u.exchange(ctx, u.servers[k], q)
			if err == nil {
				return a
			}
			if ctx.Err() != nil {
				return answer{err: interrupted(q.name, ctx.Err())}
			}
			reasons[k] = err
		}
	}
	return u.failure(q.name, reasons)
}

// first returns the place of the server to begin with.
func (u *upstream) first() int {
	if !u.rotate {
		return 0
	}
	return int(u.turn.Add(1) % uint32(len(u.servers)))
}

// refused reports whether it was on this side that a query could not be sent: by a
// rule, or as its source is down.
func refused(err error) bool {
	var r *dialer.RefusedError
	return errors.As(err, &r)
}

// failure is the answer when no server had one, with the reason of each. One that lies
// on this side is not remembered: the address may be back with the next flow.
func (u *upstream) failure(name string, reasons []error) answer {
	e := &net.DNSError{Name: name, IsTimeout: true, IsTemporary: true}
	ttl := time.Duration(0)
	texts := make([]string, len(reasons))
	for i, err := range reasons {
		if !refused(err) {
			ttl = failureTTL
		}
		e.IsTimeout = e.IsTimeout && isTimeout(err)
		texts[i] = reason(err)
	}
	if len(texts) == 1 {
		e.Server, e.Err = u.servers[0].String(), texts[0]
	} else {
		for i := range texts {
			texts[i] = fmt.Sprintf("%v: %s", u.servers[i], texts[i])
		}
		e.Err = strings.Join(texts, "; ")
	}
	if e.IsTimeout {
		e.UnwrapErr = context.DeadlineExceeded
	}
	return answer{err: e, ttl: ttl}
}

// reason is what is told of a query that failed.
func reason(err error) string {
	if isTimeout(err) {
		return "no answer in time"
	}
	if o := (*net.OpError)(nil); errors.As(err, &o) {
		err = o.Err // the server stands before it already
	}
	return err.Error()
}
