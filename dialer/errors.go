package dialer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// The reasons for which a flow is refused, matched by errors.Is.
var (
	ErrDenied     = errors.New("denied")                          // a rule says deny
	ErrNoSource   = errors.New("no source of this family")        // the rule's source lacks the destination's family
	ErrSourceDown = errors.New("source is not usable")            // its address is not on this host, or it is down
	ErrPorts      = errors.New("no free local port")              // all ports to this destination are taken, or none may be used
	ErrLimit      = errors.New("a limit is reached")              // the source has as many flows as it may have
	ErrUnresolved = errors.New("the address is needed to decide") // Lookup was asked with a name only
)

// A RefusedError says that no packet was sent for a flow because a rule forbids it
// or its source cannot be used. It matches ErrDenied, ErrNoSource, ErrSourceDown,
// ErrPorts or ErrLimit, and the system call's error where there was one.
type RefusedError struct {
	Flow     Flow
	Decision Decision
}

// Error names the rule, the destination and the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %v", quoteRule(e.Decision), e.Decision.Err)
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Decision.Err }

// quoteRule returns how messages name the rule that decided d.
func quoteRule(d Decision) string {
	if d.Index < 0 {
		return d.Rule
	}
	return fmt.Sprintf("rule %q", d.Rule)
}

// attempts lists why each address of a name could not be dialled.
type attempts []error

func (a attempts) Error() string {
	texts := make([]string, len(a))
	for i, err := range a {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (a attempts) Unwrap() []error { return a }

// Timeout reports whether every attempt timed out; it makes the net.OpError around
// attempts a net.Error that tells the truth.
func (a attempts) Timeout() bool {
	for _, err := range a {
		var t interface{ Timeout() bool }
		if !errors.As(err, &t) || !t.Timeout() {
			return false
		}
	}
	return len(a) > 0
}

// opError returns err as the *net.OpError that the net package would give, with
// the chosen source in it.
func opError(f *Flow, d *Decision, err error) error {
	oe := &net.OpError{Op: "dial", Net: f.Network, Err: err, Addr: address(f)}
	if d.Addr.IsValid() {
		oe.Source = netAddr(f.Network, netip.AddrPortFrom(d.Addr, d.Port))
	}
	return oe
}

// address is what a flow wants to reach: the address once it is known, else the name.
func address(f *Flow) net.Addr {
	if f.Dst.Addr().IsValid() {
		return netAddr(f.Network, f.Dst)
	}
	return nameAddr{f.Network, net.JoinHostPort(f.Name, fmt.Sprint(f.Dst.Port()))}
}

func netAddr(network string, a netip.AddrPort) net.Addr {
	if strings.HasPrefix(network, "udp") {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

// nameAddr is a destination that was asked for by name.
type nameAddr struct{ network, text string }

func (a nameAddr) Network() string { return a.network }
func (a nameAddr) String() string  { return a.text }
