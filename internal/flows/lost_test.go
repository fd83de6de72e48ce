package flows_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/internal/flows"
)

func TestCloseLost(t *testing.T) {
	var r flows.Registry
	var closed []string
	open := func(source, src string) {
		i := flows.Info{Source: source}
		if src != "" {
			i.Src = netip.MustParseAddrPort(src)
		}
		r.Open(i, func(reason error) {
			if reason != flows.ErrSourceDown {
				t.Errorf("reason: got %v, want ErrSourceDown", reason)
			}
			closed = append(closed, source)
		})
	}
	open("wan1", "198.51.100.10:1000")
	open("wan2", "198.51.100.11:1001")
	open("free", "198.51.100.10:1002")
	open("mail", "[2001:db8::10]:1003")
	open("association", "")
	gone := []netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")}
	r.CloseLost(func(source string, src netip.Addr) bool { return source != "free" && slices.Contains(gone, src) })
	if want := []string{"wan1", "mail"}; !slices.Equal(closed, want) {
		t.Errorf("got %q, want %q", closed, want)
	}
}
