package explain_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

func TestOutward(t *testing.T) {
	nstest.Need(t, "ip")
	n := nstest.NewNamespace(t, "host")
	script(t, n, providers+"ip route add blackhole 203.0.113.0/24\nip -6 route add unreachable 2001:db8:ffff::/48\nip route add local 198.18.0.0/24 dev lo\n")
	for _, tt := range []struct {
		name          string
		source        dialer.Source
		addr, gateway string
		way           string // empty: none
		fault         string
		cure          []string
	}{
		{"the link of the default route", dialer.Source{}, "198.51.100.10", "", "dev wan1 via 198.51.100.1 table main", "", nil},
		{"IPv6", dialer.Source{}, "2001:db8:1::10", "", "dev wan1 via 2001:db8:1::1 table main", "", nil},
		{
			"another link",
			dialer.Source{},
			"192.0.2.7", "", "dev wan1 via 198.51.100.1 table main",
			"packets from 192.0.2.7 leave by wan1 (via 198.51.100.1), but the address lives on wan2; that provider will drop them",
			[]string{"ip rule add from 192.0.2.7 lookup 120 priority "},
		},
		{
			"another link, IPv6",
			dialer.Source{},
			"2001:db8:2::7", "", "dev wan1 via 2001:db8:1::1 table main",
			"packets from 2001:db8:2::7 leave by wan1 (via 2001:db8:1::1), but the address lives on wan2; that provider will drop them",
			[]string{"ip -6 rule add from 2001:db8:2::7 lookup 107 priority "},
		},
		{"ruled", dialer.Source{}, "192.0.2.8", "", "dev wan2 via 192.0.2.1 table 120", "", nil},
		{"by device", dialer.Source{Device: "wan2"}, "192.0.2.7", "", "dev wan2 via 192.0.2.1 table main", "", nil},
		{"by mark", dialer.Source{Mark: 7}, "192.0.2.7", "", "dev wan2 via 192.0.2.1 table 120", "", nil},
		{"of the loopback", dialer.Source{}, "198.51.100.98", "", "dev wan1 via 198.51.100.1 table main", "", nil},
		{"AnyIP", dialer.Source{}, "198.18.0.1", "", "dev wan1 via 198.51.100.1 table main", "", nil},
		{"another link that is named", dialer.Source{}, "192.0.2.7", "198.51.100.1", "dev wan1 via 198.51.100.1 table main", "", nil},
		{
			"another gateway",
			dialer.Source{},
			"198.51.100.10", "198.51.100.2", "dev wan1 via 198.51.100.1 table main",
			"packets from 198.51.100.10 leave by wan1 (via 198.51.100.1), and not by the gateway 198.51.100.2 of the source",
			[]string{"ip route add default via 198.51.100.2 dev wan1 table ", "ip route add 198.51.100.0/24 dev wan1 table ", "ip rule add from 198.51.100.10 lookup "},
		},
		{
			"AnyIP with a gateway on another link",
			dialer.Source{},
			"198.18.0.1", "192.0.2.1", "dev wan1 via 198.51.100.1 table main",
			"packets from 198.18.0.1 leave by wan1 (via 198.51.100.1), and not by the gateway 192.0.2.1 of the source",
			[]string{"ip rule add from 198.18.0.1 lookup 120 priority "},
		},
		{"not here", dialer.Source{}, "192.0.2.99", "", "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var gateway netip.Addr
			if tt.gateway != "" {
				gateway = netip.MustParseAddr(tt.gateway)
			}
			w, ok := outward(t, n, &tt.source, netip.MustParseAddr(tt.addr), gateway)
			if ok != (tt.way != "") || ok && w.String() != tt.way {
				t.Errorf("got %v, %v, want %q", w, ok, tt.way)
			}
			if w.Fault == nil {
				w.Fault = new(explain.Fault)
			}
			if w.Fault.Text != tt.fault || len(w.Fault.Cure) != len(tt.cure) {
				t.Fatalf("fault: got %+v, want %q cured by %q", w.Fault, tt.fault, tt.cure)
			}
			for i, c := range w.Fault.Cure {
				if !strings.HasPrefix(c, tt.cure[i]) {
					t.Errorf("cure: got %q, want %q", c, tt.cure[i])
				}
			}
		})
	}
}

// outward is Outward in a namespace. IPv6 addresses get their local routes some time
// after they were added, so it waits until the host has those that it is to have.
func outward(t *testing.T, n *nstest.Namespace, s *dialer.Source, a, gateway netip.Addr) (w explain.Way, ok bool) {
	t.Helper()
	err := n.Do(func() error {
		h, err := host.Read()
		for err == nil && !h.Local(netip.MustParseAddr("2001:db8:2::7")) && t.Context().Err() == nil {
			h, err = host.Read()
		}
		if err == nil {
			w, ok = explain.Outward(explain.Kernel{}, h, s, a, gateway)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, ok
}

// TestOutwardCure runs the commands of a cure, and finds nothing to cure any more.
func TestOutwardCure(t *testing.T) {
	nstest.Need(t, "ip")
	n := nstest.NewNamespace(t, "host")
	script(t, n, providers)
	for addr, gateway := range map[string]string{"192.0.2.7": "", "2001:db8:2::7": "", "198.51.100.10": "198.51.100.2"} {
		a := netip.MustParseAddr(addr)
		g, _ := netip.ParseAddr(gateway)
		w, ok := outward(t, n, new(dialer.Source), a, g)
		if !ok || w.Fault == nil || len(w.Fault.Cure) == 0 {
			t.Fatalf("%s: got %+v, want a fault with a cure", addr, w)
		}
		script(t, n, strings.Join(w.Fault.Cure, "\n"))
		if w, ok := outward(t, n, new(dialer.Source), a, g); !ok || w.Fault != nil {
			t.Errorf("%s after the cure: got %v, %+v", addr, w, w.Fault)
		}
	}
}

// TestElsewhere finds that a source whose packets to the rest of the world go astray is
// right for the network that a route of its own leads to.
func TestElsewhere(t *testing.T) {
	nstest.Need(t, "ip")
	n := nstest.NewNamespace(t, "host")
	script(t, n, providers+"ip route add 203.0.113.64/26 via 192.0.2.1\nip route add 203.0.113.128/26 via 198.51.100.1\n")
	src, a := new(dialer.Source), netip.MustParseAddr("192.0.2.7")
	w, _ := outward(t, n, src, a, netip.Addr{})
	if other, ok := w.Elsewhere(); !ok || w.Fault == nil || other.String() != "dev wan2 via 192.0.2.1 table main" {
		t.Errorf("got %v, %v, fault %+v", other, ok, w.Fault)
	}
	if w, _ := outward(t, n, src, netip.MustParseAddr("2001:db8:2::7"), netip.Addr{}); w.Fault == nil {
		t.Errorf("IPv6: got %v without a fault", w)
	} else if other, ok := w.Elsewhere(); ok {
		t.Errorf("IPv6: got %v, want nothing", other)
	}
	for dst, right := range map[string]bool{"203.0.113.65": true, "203.0.113.129": false, "192.0.2.99": true, "198.51.100.10": true} {
		err := n.Do(func() error {
			h, err := host.Read()
			if err != nil {
				return err
			}
			if w, ok := explain.Toward(explain.Kernel{}, h, src, a, netip.Addr{}, netip.MustParseAddr(dst)); !ok || (w.Fault == nil) != right {
				t.Errorf("toward %s: got %v, %v, fault %+v", dst, w, ok, w.Fault)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
