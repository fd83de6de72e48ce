package egress_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

type hostOf []netip.Addr

func (h hostOf) Local(a netip.Addr) bool {
	return slices.Contains(h, a)
}

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

// TestResolver finds a short name in the hosts file, and asks for any other as it is.
func TestResolver(t *testing.T) {
	deny, err := dialer.NewTable(nil, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	r := egress.Resolver(&dialer.Dialer{Table: deny})
	addrs, err := r.LookupNetIP(t.Context(), "ip4", "localhost")
	if err != nil || len(addrs) == 0 || !addrs[0].Unmap().IsLoopback() {
		t.Errorf("localhost: got %v, %v", addrs, err)
	}
	for _, name := range []string{"intranet", "a.example", "a.example."} {
		_, err := r.LookupNetIP(t.Context(), "ip", name)
		want := strings.TrimSuffix(name, ".") + "."
		if de := (*net.DNSError)(nil); !errors.As(err, &de) || de.Name != want {
			t.Errorf("%s: got %v, want a look-up of %s that fails", name, err, want)
		}
	}
}
