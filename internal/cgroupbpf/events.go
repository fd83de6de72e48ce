//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
)

// What the hooks cannot do, as an Event has it in Err.
var (
	ErrHeldPort    = errors.New("the socket holds its port already")
	ErrOtherPort   = errors.New("the rule wants another source port than the socket has")
	ErrOtherSource = errors.New("the socket has kept what the source of an earlier destination gave it")
)

// An Event is one decision of the hooks: of a call of connect(2), or of a datagram that names its destination and is not as
// the last one of its socket. What no rule and no default decides, as connections to loopback, has none.
type Event struct {
	Time      time.Time
	Program   string         // how the thread that called is called (comm), which it chooses itself: up to 15 bytes, any of them
	PID, UID  uint32         // of its process, as the host counts; 0 for the kernel
	Protocol  string         // "tcp", "udp", "icmp", "ipv6-icmp", or a number
	Dst       netip.AddrPort // what it named
	Rule      string         // the rule that decided; "default"
	Source    string         // the name of the source, "kernel" where the kernel chooses; "" where the program chose, or none is up
	Src       netip.Addr     // what it leaves from; not valid where it is refused, or the kernel chooses
	LocalPort uint16         // what it leaves from, or was to; 0: any
	Err       error          // why it was refused, a *dialer.RefusedError; nil: it was not
}

// event tells what e means, which a hook wrote under the rules of g.
func (e *hooksEvent) event(g *epoch, state dialer.State, sinceBoot int64) *Event {
	out := &Event{
		Time:      time.Unix(0, int64(e.At)+sinceBoot), // #nosec G115 -- nanoseconds since boot
		Program:   e.program(),
		PID:       e.Pid,
		UID:       e.Uid,
		Protocol:  protocolName(e.Protocol),
		Dst:       netip.AddrPortFrom(netipAddr(e.Dst), e.Port),
		Rule:      g.rules.names[e.Rule],
		LocalPort: e.LocalPort,
	}
	if e.Err != 0 {
		out.Err = e.refused(g, state, out)
	} else if a := netipAddr(e.Src); !a.IsUnspecified() {
		out.Src = a
	}
	if e.Manner&own != 0 {
		return out
	}
	if out.LocalPort == 0 && e.Err == 0 {
		out.LocalPort = e.SourcePort
	}
	switch {
	case e.Member != noMember:
		out.Source = g.rules.sources[e.Member].Name
	case e.Err == 0:
		out.Source = "kernel"
	}
	return out
}

// NO_MEMBER, SENT and OWN of c/rules.h and c/event.h.
const (
	noMember = noRule
	sent     = 1
	own      = 2
)

func (e *hooksEvent) program() string {
	b := make([]byte, 0, len(e.Comm))
	for _, c := range e.Comm {
		if c == 0 {
			break
		}
		b = append(b, byte(c)) // #nosec G115 -- the same bits
	}
	return string(b)
}

func protocolName(p uint8) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "ipv6-icmp"
	}
	return fmt.Sprint(p)
}

// refused is the error of what out tells.
func (e *hooksEvent) refused(g *epoch, state dialer.State, out *Event) error {
	f := dialer.Flow{Network: out.Protocol, Dst: out.Dst, LocalPort: out.LocalPort}
	d := dialer.Decision{Rule: out.Rule, Index: int(e.Rule), Err: e.reason(g, state, &f)}
	if d.Index == len(g.rules.names)-1 {
		d.Index = -1 // the default
	}
	return &dialer.RefusedError{Flow: f, Decision: d}
}

// reason says why a call was refused: by the rules, or since the hook could not do what they say.
func (e *hooksEvent) reason(g *epoch, state dialer.State, f *dialer.Flow) error {
	switch {
	case unix.Errno(-e.Verdict) == unix.EPERM:
		return dialer.ErrDenied
	case e.Verdict != 0:
		return g.noneUp(e.Use, state, f)
	case unix.Errno(-e.Err) != unix.EPERM:
		return fmt.Errorf("bind %v: %w", netip.AddrPortFrom(netipAddr(e.Src), e.SourcePort), unix.Errno(-e.Err))
	case e.SourcePort != 0 && e.SourcePort != e.LocalPort:
		return fmt.Errorf("%w: %d, and not %d", ErrOtherPort, e.SourcePort, e.LocalPort)
	case e.Member != noMember && e.LocalPort != 0 && e.Manner&sent == 0:
		return fmt.Errorf("%w: %d", ErrHeldPort, e.LocalPort)
	}
	return ErrOtherSource
}

// noneUp says for the sources of a use why they cannot serve, in the words of the proxy.
func (g *epoch) noneUp(use uint32, state dialer.State, f *dialer.Flow) error {
	t := g.tables[use]
	if t == nil {
		var err error
		if t, err = dialer.NewTable(nil, g.rules.wanted[use]); err != nil {
			return fmt.Errorf("%w: %w", dialer.ErrSourceDown, err)
		}
		g.tables[use] = t
	}
	d := dialer.Dialer{Table: t, State: state}
	if err := d.Decide(*f).Err; err != nil {
		return err
	}
	return fmt.Errorf("%w: it was not then, and is by now", dialer.ErrSourceDown)
}
