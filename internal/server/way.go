package server

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

// way tells how packets from an address of a source leave this host towards dst, or
// where that is not valid, for the rest of the world.
func (s *server) way(src egress.Source, a, dst netip.Addr) egress.Way {
	gateway := src.Gateway6
	if a.Is4() {
		gateway = src.Gateway4
	}
	var w explain.Way
	var ok bool
	if dst.IsValid() {
		w, ok = explain.Toward(explain.Kernel{}, s.host.Now(), src.Source, a, gateway, dst)
	} else {
		w, ok = explain.Outward(explain.Kernel{}, s.host.Now(), src.Source, a, gateway)
	}
	if !ok {
		return egress.Way{}
	}
	out := egress.Way{Text: leavesBy(w.RouteAnswer)}
	if w.Fault != nil {
		out.Fault = faultOf(&w, gateway)
	}
	if other, ok := w.Elsewhere(); ok {
		out.Text, out.Partly = leavesBy(other)+", to some destinations", true
	}
	return out
}

// leavesBy returns "eth0 via 198.51.100.1".
func leavesBy(a host.RouteAnswer) string {
	if a.Gateway.IsValid() {
		return a.Link + " via " + a.Gateway.String()
	}
	return a.Link
}

// faultOf is what is wrong with w in one line, with the cure, and with what to write
// where nothing is wrong after all: not every address belongs to a provider.
func faultOf(w *explain.Way, gateway netip.Addr) error {
	text := w.Fault.Text
	if len(w.Fault.Cure) > 0 {
		text += fmt.Sprintf(" (cure: %s)", strings.Join(w.Fault.Cure, " && "))
	} else if w.Fault.Hint != "" {
		text += fmt.Sprintf(" (%s)", w.Fault.Hint)
	}
	if !gateway.IsValid() && w.Gateway.IsValid() {
		text += fmt.Sprintf("; where that way is right, write gateway = %q to the source", w.Gateway)
	}
	return errors.New(text)
}

// Way implements admin.Service.
func (s service) Way(st *egress.Status) string { return st.Egress }
