package dialer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// A Resolver turns a name into addresses. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A Dialer opens connections from the address that its Table chooses for each. Its
// zero value dials as the zero net.Dialer does. It is safe for concurrent use as
// long as its fields are not changed.
//
// Every address of a name is judged by the rules and dialled by itself, with the
// fallback of RFC 8305. An address that the rules refuse is passed over; when none
// is left the error lists each with its reason. Multipath TCP is never used, since
// its further subflows would leave from other addresses.
type Dialer struct {
	// Table chooses. Nil lets the kernel choose, as net.Dialer without LocalAddr.
	Table *Table

	// State knows which sources are down and how many flows each has. Nil takes all
	// for up.
	State State

	// Limiter bounds the flows of each source. DialFlow and ListenFlow take a place, one
	// for all addresses of a name that are tried side by side from the same source, and
	// who gets their connection or listener calls Release when it is closed. DialContext
	// does not ask it, as nobody would give the place back. Nil: no limit.
	Limiter Limiter

	// Resolver resolves names, each once for a dial. Nil means net.DefaultResolver.
	Resolver Resolver

	// Timeout bounds a whole dial: the name and all its addresses. Zero means none,
	// and the system's own still holds.
	Timeout time.Duration

	// FallbackDelay is how long an address is tried alone before the next one is
	// tried beside it (RFC 8305 section 5). Zero means 300 ms; a negative one tries
	// the next only when one has failed. An address that does not answer is given up after 8
	// delays where 8 more come after it.
	FallbackDelay time.Duration

	// PreferIPv4 tries the IPv4 addresses of a name first.
	PreferIPv4 bool

	// KeepAlive and KeepAliveConfig are as in net.Dialer: KeepAliveConfig counts when
	// its Enable is set, else a negative KeepAlive turns keep-alive off.
	KeepAlive       time.Duration
	KeepAliveConfig net.KeepAliveConfig

	// Control is called on every socket before the source is bound, as in net.Dialer.
	Control func(network, address string, c syscall.RawConn) error

	// Guard may refuse what the rules let through, with its error as the reason. Dst
	// of the flow is the address about to be dialled.
	Guard func(Flow, Decision) error

	// OnDial is called after each attempt on an address, with its outcome.
	OnDial func(Flow, Decision, error)
}

type flowKey struct{}

// WithFlow returns a context that tells DialContext more of the flow than a network
// and an address: its client, user, session, listener and local port. It is how an
// http.Transport's dials get them.
func WithFlow(ctx context.Context, f Flow) context.Context {
	return context.WithValue(ctx, flowKey{}, f)
}

// Dial is DialContext with a background context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to address on a tcp or udp network, as net.Dialer's
// DialContext does, from the source the rules choose. The connection is a
// *net.TCPConn for the tcp networks. Errors are *net.OpError with the chosen source
// in Source; a refusal has a *RefusedError inside.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	f, _ := ctx.Value(flowKey{}).(Flow)
	f.Network = network
	host, port, err := splitHostPort(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	f.Name, f.Dst = "", netip.AddrPortFrom(netip.Addr{}, port)
	if a, err := netip.ParseAddr(host); err == nil {
		f.Dst = netip.AddrPortFrom(a, port)
	} else {
		f.Name = host
	}
	unlimited := *d
	unlimited.Limiter = nil
	c, _, err := unlimited.DialFlow(ctx, f)
	return c, err
}

func splitHostPort(ctx context.Context, network, address string) (string, uint16, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err == nil {
		return host, uint16(port), nil
	}
	n, err := net.DefaultResolver.LookupPort(ctx, network, service)
	return host, uint16(n), err
}

// DialFlow connects f: to Dst, or where that has no address yet, to one of the
// addresses of Name. It returns the decision by which the connection was made; with
// an error, the one of the address that came first.
func (d *Dialer) DialFlow(ctx context.Context, f Flow) (net.Conn, Decision, error) {
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
		defer cancel()
	}
	if f.Dst.Addr().IsValid() {
		f.Dst = netip.AddrPortFrom(f.Dst.Addr().Unmap(), f.Dst.Port())
		if err := f.fits(); err != nil {
			return nil, Decision{}, opError(&f, &Decision{}, err)
		}
		return d.dialAddr(ctx, &f)
	}
	flows, dec, err := d.Resolve(ctx, f)
	if err != nil {
		return nil, dec, opError(&f, &dec, err)
	}
	if len(flows) == 1 {
		return d.dialAddr(ctx, &flows[0])
	}
	return d.race(ctx, &f, flows)
}

// fits reports whether the network of f and the family of its destination agree.
func (f *Flow) fits() error {
	is4 := f.Dst.Addr().Is4()
	switch f.Network {
	case "tcp", "udp":
		return nil
	case "tcp4", "udp4":
		if is4 {
			return nil
		}
	case "tcp6", "udp6":
		if !is4 {
			return nil
		}
	default:
		return net.UnknownNetworkError(f.Network)
	}
	return &net.AddrError{Err: "address is not of network " + f.Network, Addr: f.Dst.Addr().String()}
}

// Resolve returns f once for each address of its Name that its network allows, in the
// order in which they are to be tried. A name that the rules refuse whatever its address
// is not resolved. The decision returned is the one of the name; an address that f has
// does not count.
func (d *Dialer) Resolve(ctx context.Context, f Flow) ([]Flow, Decision, error) {
	var dec Decision
	f.Dst = netip.AddrPortFrom(netip.Addr{}, f.Dst.Port())
	if d.Table != nil {
		if dec = d.Table.lookup(&f, choice{}); !errors.Is(dec.Err, ErrUnresolved) {
			return nil, dec, &RefusedError{f, dec}
		}
	}
	resolver := d.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	if f.Name == "" {
		return nil, dec, &net.AddrError{Err: "missing address", Addr: ""}
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", f.Name)
	if err != nil {
		return nil, dec, err
	}
	var flows []Flow
	for _, a := range order(addrs, d.PreferIPv4) {
		f.Dst = netip.AddrPortFrom(a, f.Dst.Port())
		if f.fits() == nil {
			flows = append(flows, f)
		}
	}
	if len(flows) == 0 {
		return nil, dec, &net.DNSError{Err: "no address of this family", Name: f.Name, IsNotFound: true}
	}
	return flows, dec, nil
}

// maxAddrs bounds the addresses of one name that are tried.
const maxAddrs = 32

// order returns the addresses without repetition, the families taking turns and the
// preferred one first (RFC 8305 section 4).
func order(addrs []netip.Addr, preferIPv4 bool) []netip.Addr {
	var first, second []netip.Addr
	seen := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		a = a.Unmap()
		if seen[a] || len(seen) == maxAddrs {
			continue
		}
		seen[a] = true
		if a.Is4() == preferIPv4 {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	out := make([]netip.Addr, 0, len(seen))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// Decide returns the decision for one address: what the table says, in the light of
// State and Guard. It sends nothing.
func (d *Dialer) Decide(f Flow) Decision { return d.decide(&f, nil) }

// DecideNext is Decide for a flow for which sources were tried that could not be used:
// of a pool, another member is picked. See Decision.Retries.
func (d *Dialer) DecideNext(f Flow, tried []*Source) Decision { return d.decide(&f, tried) }

func (d *Dialer) decide(f *Flow, tried []*Source) Decision {
	dec := Decision{Rule: "no table", Index: -1, Use: Use{Kernel: true}}
	if d.Table != nil {
		dec = d.Table.lookup(f, choice{state: d.State, limiter: d.Limiter, tried: tried})
	}
	if dec.Err == nil && d.Guard != nil {
		dec.Err = d.Guard(*f, dec)
	}
	return dec
}

// dialAddr decides on one address and dials it, from the pool's next member where
// the pool wants that and the first could not be used on this side.
func (d *Dialer) dialAddr(ctx context.Context, f *Flow) (net.Conn, Decision, error) {
	var tried []*Source
	var failed attempts
	for {
		dec := d.decide(f, tried)
		if dec.Err != nil && len(failed) > 0 {
			return nil, dec, opError(f, &dec, append(failed, dec.Err))
		}
		c, err := d.connect(ctx, f, &dec)
		if d.OnDial != nil {
			d.OnDial(*f, dec, err)
		}
		if err == nil {
			return c, dec, nil
		}
		if !dec.Retries(err) {
			return nil, dec, opError(f, &dec, err)
		}
		tried = append(tried, dec.Source)
		failed = append(failed, err)
	}
}

// Retries reports whether the next member of the pool may be tried after err, for which
// the source of dec could not be used. One that has become full since it was picked
// never took part.
func (dec *Decision) Retries(err error) bool {
	p := dec.Use.Pool
	if p == nil || dec.Source == nil {
		return false
	}
	return errors.Is(err, ErrLimit) || p.Retry && (errors.Is(err, ErrPorts) || errors.Is(err, ErrSourceDown))
}

// Enter takes a place of the Limiter for a flow that leaves by dec from a socket that
// is not opened by d. Its error matches ErrLimit. Release gives the place back.
func (d *Dialer) Enter(dec *Decision) error {
	if d.Limiter == nil || dec.Source == nil {
		return nil
	}
	return d.Limiter.Enter(dec.Source)
}

// Release gives back the place that DialFlow, ListenFlow or Enter took for dec.
func (d *Dialer) Release(dec *Decision) {
	if d.Limiter != nil && dec.Source != nil {
		d.Limiter.Leave(dec.Source)
	}
}

// connect opens one socket from the address that dec chose, under the source's limit.
func (d *Dialer) connect(ctx context.Context, f *Flow, dec *Decision) (net.Conn, error) {
	if dec.Err != nil {
		return nil, &RefusedError{*f, *dec}
	}
	if err := ctx.Err(); err != nil {
		return nil, err // net would still send a SYN
	}
	if err := d.Enter(dec); err != nil {
		return nil, refused(f, dec, err)
	}
	c, err := d.open(ctx, f, dec)
	if err != nil {
		d.Release(dec)
	}
	return c, err
}

// refused is the refusal of a flow whose decision was made, for a reason found later.
func refused(f *Flow, dec *Decision, reason error) error {
	r := *dec
	r.Err = reason
	return &RefusedError{*f, r}
}

func (d *Dialer) open(ctx context.Context, f *Flow, dec *Decision) (net.Conn, error) {
	nd := net.Dialer{
		KeepAlive:       d.KeepAlive,
		KeepAliveConfig: d.KeepAliveConfig,
		ControlContext: func(_ context.Context, network, address string, c syscall.RawConn) error {
			if d.Control != nil {
				if err := d.Control(network, address, c); err != nil {
					return err
				}
			}
			return prepare(c, dec)
		},
	}
	nd.SetMultipathTCP(false)
	// The source is handed over and not bound in ControlContext: net binds what it is
	// given after that, be it the wildcard, and with IP_BIND_ADDRESS_NO_PORT the second
	// bind would take the place of the first.
	local := netip.AddrPortFrom(dec.Addr, dec.Port)
	if life, ok := d.State.(LifeState); ok && dec.Source != nil {
		var done func()
		ctx, done = life.While(ctx, dec.Source, dec.Addr)
		defer done()
	}
	var c net.Conn
	var err error
	if isUDP(f.Network) {
		c, err = dialUDP(ctx, &nd, f, local)
	} else {
		c, err = dialTCP(ctx, &nd, f, local)
	}
	if err == nil {
		return c, nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, ErrSourceDown) {
		return nil, refused(f, dec, cause)
	}
	if oe := (*net.OpError)(nil); errors.As(err, &oe) {
		err = oe.Err // the caller names the operation, with the source in it
	}
	if reason := localReason(f, dec, err); reason != nil {
		return nil, refused(f, dec, reason)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.DeadlineExceeded // net gives one or the other, whichever timer is first
	}
	return nil, err
}

func dialTCP(ctx context.Context, nd *net.Dialer, f *Flow, local netip.AddrPort) (net.Conn, error) {
	c, err := nd.DialTCP(ctx, f.Network, local, f.Dst)
	if err != nil {
		return nil, err // and not a net.Conn that holds a nil *net.TCPConn
	}
	return c, nil
}

func isUDP(network string) bool { return len(network) >= 3 && network[:3] == "udp" }
