package host_test

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/internal/host"
)

// TestByRoute tells addresses of interfaces, which have a local route of their own, from
// those that are local with their prefix.
func TestByRoute(t *testing.T) {
	s := host.NewSnapshot(nil, nil, []netip.Prefix{
		netip.MustParsePrefix("2001:db8:64::/64"),
		netip.MustParsePrefix("2001:db8:64::7/128"),
		netip.MustParsePrefix("2001:db8::1/128"),
	})
	for a, want := range map[string]bool{
		"2001:db8:64::1": true, "2001:db8:64::7": false, "2001:db8::1": false, "2001:db8::2": false,
	} {
		if got := s.ByRoute(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: got %v, want %v", a, got, want)
		}
	}
}
