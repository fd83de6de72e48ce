package explain

import (
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

// hook leaves of f what a hook in the kernel knows: addresses and ports, and where it is
// attached. Where names are resolved for it, Dialer's table has their addresses.
func (e *Explainer) hook(f *dialer.Flow) {
	if e.Attach == nil {
		return
	}
	f.Name, f.Client, f.Asked = "", netip.AddrPort{}, netip.AddrPort{}
	f.User, f.Session, f.Listener = "", "", ""
	f.Service = e.Attach.Service
}

// near reports whether a is an address that hooks leave to the kernel, but where a rule
// has a prefix of such addresses: of this host, its links or a group.
func near(a netip.Addr) bool {
	return a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// passed reports whether the hooks of an [[attach]] leave f to the kernel.
func (e *Explainer) passed(f *dialer.Flow) bool {
	if e.Attach == nil || !near(f.Dst.Addr()) {
		return false
	}
	p := e.Dialer.Decide(*f).Prefix
	return !p.IsValid() || !near(p.Addr()) || p.Bits() == 0
}

// passedBy is the way of a flow that the hooks leave alone.
func (e *Explainer) passedBy(f *dialer.Flow) Walk {
	dec := dialer.Decision{Use: dialer.Use{Kernel: true}}
	return Walk{
		Steps: []Step{{
			Rule:    "kernel",
			Verdict: Matches,
			Use:     dec.Use.String(),
			Reason:  "what stays on this host or its links is left to the kernel",
		}},
		Addresses: []Address{{Addr: f.Dst.Addr(), Rule: "kernel", Source: dec.Use.String(), Way: e.way(*f, &dec), Alone: e.alone(*f)}},
	}
}

// attached is the one step of an [[attach]] that does not ask the rules.
func (e *Explainer) attached() Step {
	name := e.Attach.Name()
	return Step{
		Rule:     name,
		Verdict:  Matches,
		Reason:   "the use of an [[attach]] comes before the rules",
		Use:      e.Attach.Use.String(),
		Position: e.Config.Position("attach", name),
	}
}
