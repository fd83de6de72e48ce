package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
)

// tester makes the tests of one source in one family.
type tester struct {
	source *dialer.Source
	place
	probe  Probe
	target string
	host   Host
	names  *atomic.Pointer[Resolver]
}

// test is what a prober calls.
func (t *tester) test(ctx context.Context) (netip.Addr, error) {
	d, err := t.dialer()
	if err != nil {
		return netip.Addr{}, err
	}
	from := d.Decide(dialer.Flow{Network: t.network("tcp"), Dst: netip.AddrPortFrom(t.anybody(), 1)})
	if from.Err != nil {
		return netip.Addr{}, errNoResult
	}
	switch t.probe.Kind {
	case ProbeTCP:
		err = t.connect(ctx, d)
	case ProbeHTTP:
		err = t.get(ctx, d)
	case ProbeICMP:
		err = t.ping(ctx, d)
	case ProbeDNS:
		err = t.ask(ctx, d)
	}
	if exhausted(err) || t.nameless(err) {
		err = fmt.Errorf("%w: %w", errNoResult, err)
	}
	return from.Addr, err
}

// dialer returns a Dialer whose flows leave from the source, whatever its probe says.
func (t *tester) dialer() (*dialer.Dialer, error) {
	table, err := dialer.NewTable(nil, dialer.Use{Source: t.source})
	if err != nil {
		return nil, err
	}
	return &dialer.Dialer{
		Table:     table,
		State:     &State{Host: t.host},
		Resolver:  t.names.Load(),
		KeepAlive: -1,
	}, nil
}

// network returns tcp or udp of the family.
func (t *tester) network(name string) string {
	if t.is4 {
		return name + "4"
	}
	return name + "6"
}

// anybody is an address of the family.
func (t *tester) anybody() netip.Addr {
	if t.is4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	return netip.MustParseAddr("2001:db8::1")
}

// nameless reports whether the target is a name without an address of the family.
func (t *tester) nameless(err error) bool {
	var d *net.DNSError
	return t.probe.Kind != ProbeDNS && errors.As(err, &d) && d.IsNotFound
}

func (t *tester) connect(ctx context.Context, d *dialer.Dialer) error {
	c, err := d.DialContext(ctx, t.network("tcp"), t.target)
	if err != nil {
		return err
	}
	return c.Close()
}

func (t *tester) get(ctx context.Context, d *dialer.Dialer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.target, nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "srcproxy")
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.DialContext(ctx, t.network("tcp"), address)
		},
		DisableKeepAlives: true,
	}
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 400 {
		err = errors.New("the answer is " + answer.Status)
	}
	return errors.Join(err, answer.Body.Close())
}

// ask asks a name server. Whatever it says of the name, it can be reached.
func (t *tester) ask(ctx context.Context, d *dialer.Dialer) error {
	name, server, _ := strings.Cut(t.target, "@")
	s, err := netip.ParseAddrPort(server)
	if a, ok := addrOf(server); err != nil && ok {
		s, err = netip.AddrPortFrom(a, dnsPort), nil
	}
	if err != nil {
		return err
	}
	u := upstream{dialer: d, timeout: t.probe.Timeout}
	_, err = u.exchange(ctx, s, question{strings.ToLower(strings.TrimSuffix(name, ".")), dnsmessage.TypeA})
	return err
}

// ping sends an echo request to the target's first address of the family.
func (t *tester) ping(ctx context.Context, d *dialer.Dialer) error {
	f := dialer.Flow{Network: t.network("udp"), Name: t.target}
	if a, ok := addrOf(t.target); ok {
		f.Dst, f.Name = netip.AddrPortFrom(a, 0), ""
	} else {
		flows, _, err := d.Resolve(ctx, f)
		if err != nil {
			return err
		}
		f = flows[0]
	}
	dec := d.Decide(f)
	if dec.Err != nil {
		return dec.Err
	}
	return ping(ctx, t.source, dec.Addr, f.Dst.Addr())
}
