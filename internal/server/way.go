package server

import (
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/host"
)

// Where packets to the rest of the world go is asked for with these destinations, to which
// nothing is ever sent: they are reserved, and on no link. RFC 7600 section 4.8, RFC 5180
// section 8.
var (
	anywhere4 = netip.MustParseAddr("192.0.0.8")
	anywhere6 = netip.MustParseAddr("2001:2::1")
)

// Way implements admin.Service.
func (s service) Way(st *egress.Status) string {
	src, ok := firstAddr(st.Addr)
	if !ok {
		return ""
	}
	q := host.RouteQuery{Src: src, Dst: anywhere6}
	if x := s.view.Load().sources[st.Name]; x != nil {
		q.Link, q.Mark = x.Device, x.Mark
	}
	if src.Is4() {
		q.Dst = anywhere4
	}
	a, err := host.Route(q)
	switch {
	case err != nil:
		return "" // its addresses reach their own link, or nothing
	case a.Gateway.IsValid():
		return a.Link + " via " + a.Gateway.String()
	}
	return a.Link
}

// firstAddr returns an address of what a source is said to have: an address, a prefix or
// a range.
func firstAddr(text string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked().Addr().Next(), true
	}
	text, _, _ = strings.Cut(text, "-")
	a, err := netip.ParseAddr(text)
	return a, err == nil
}
