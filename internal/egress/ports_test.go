package egress_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/internal/egress"
)

// TestCountPorts counts a port once for all its destinations, and finds the destination
// that has the most of them.
func TestCountPorts(t *testing.T) {
	a := netip.MustParseAddrPort
	var ends []egress.End
	add := func(source, network, src string, dst ...string) {
		for _, d := range dst {
			ends = append(ends, egress.End{Source: source, Network: network, Src: a(src), Dst: a(d)})
		}
	}
	for i := range 3 {
		add("batch", "tcp", fmt.Sprintf("198.51.100.64:4000%d", i), "203.0.113.1:80", "203.0.113.2:80")
	}
	add("batch", "tcp", "198.51.100.65:40000", "203.0.113.1:80")
	add("batch", "udp", "198.51.100.64:40000", "203.0.113.1:80")
	add("batch", "tcp", "198.51.100.64:40003", "203.0.113.2:80")
	add("kernel", "tcp", "[2001:db8::1]:40000", "[2001:db8:2::1]:443")
	got := egress.CountPorts(slices.Values(ends), func(source string) int { return len(source) })
	want := []egress.PortUse{
		{"batch", 6, "tcp", netip.MustParseAddr("198.51.100.64"), a("203.0.113.2:80"), 4, 5},
		{"kernel", 1, "tcp", netip.MustParseAddr("2001:db8::1"), a("[2001:db8:2::1]:443"), 1, 6},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := egress.CountPorts(slices.Values[[]egress.End](nil), nil); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
