package host

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestArrives asks the kernel what rp_filter lets in: by any of several next hops, and
// with a rule for the address by its own link alone.
func TestArrives(t *testing.T) {
	nstest.Need(t, "ip", "sysctl")
	inNamespace(t, func() error {
		if err := commands(twoProviders); err != nil {
			return err
		}
		for _, tt := range []struct {
			name, commands string
			w1, w2         error // whether packets to the address of w2 are let in by the links
		}{
			{"no filter", "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.w1.rp_filter=0 net.ipv4.conf.w2.rp_filter=0", nil, nil},
			{"one strict", "sysctl -qw net.ipv4.conf.w2.rp_filter=1", nil, ErrReversePath},
			{"all strict", "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.w2.rp_filter=0", nil, ErrReversePath},
			{"loose", "sysctl -qw net.ipv4.conf.w2.rp_filter=2", nil, nil},
			{"by source", "sysctl -qw net.ipv4.conf.w2.rp_filter=1\nip rule add from 192.0.2.7 lookup 107 priority 900", ErrReversePath, nil},
			{"next hops", "ip rule del priority 900\nip route replace default metric 0 nexthop via 198.51.100.1 nexthop via 192.0.2.1", nil, nil},
		} {
			if err := commands(tt.commands); err != nil {
				return err
			}
			for link, want := range map[string]error{"w1": tt.w1, "w2": tt.w2} {
				if err := Arrives(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.0.2.7"), link); !errors.Is(err, want) {
					t.Errorf("%s: by %s: got %v, want %v", tt.name, link, err, want)
				}
			}
		}
		return nil
	})
}
