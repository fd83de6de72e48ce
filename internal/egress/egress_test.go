package egress_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

type hostOf []netip.Addr

func (h hostOf) Local(a netip.Addr) bool {
	return slices.Contains(h, a)
}

func (hostOf) ByRoute(netip.Addr) bool { return false }

func (hostOf) LinkAddr(string, bool) netip.Addr { return netip.Addr{} }

func TestDown(t *testing.T) {
	here, gone := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("198.51.100.11")
	s := &egress.State{Host: hostOf{here}}
	for _, tt := range []struct {
		name   string
		source *dialer.Source
		addr   netip.Addr
		want   error
	}{
		{"on this host", &dialer.Source{Addrs: []netip.Addr{here}}, here, nil},
		{"gone", &dialer.Source{Addrs: []netip.Addr{gone}}, gone, egress.ErrAbsent},
		{"gone but freebind", &dialer.Source{Addrs: []netip.Addr{gone}, FreeBind: true}, gone, nil},
		{"a prefix without a local route", &dialer.Source{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, gone, egress.ErrAbsent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := s.Down(tt.source, tt.addr); !errors.Is(got, tt.want) {
				t.Errorf("Down = %v, want %v", got, tt.want)
			}
		})
	}
}
