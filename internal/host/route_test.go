package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// commands runs a script line by line in the namespace of the calling thread.
func commands(script string) error {
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.TrimSpace(line), err, out)
		}
	}
	return settle()
}

// settle waits until all usable addresses are local: the kernel adds the route of an IPv6
// address a moment after the address, also without duplicate address detection.
func settle() error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		s, err := Read()
		missing := func(a Address) bool { return a.Flags.Usable() && !s.Local(a.Addr) }
		if err != nil || !slices.ContainsFunc(s.Addresses(), missing) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not all of %v are local after 10 s", s.Addresses())
		}
	}
}

// twoProviders has a link and an address at each of two providers, and all kinds of
// routes that refuse.
const twoProviders = `
ip link set lo up
ip link add w1 type veth peer name p1
ip link add w2 type veth peer name p2
ip link set w1 up
ip link set p1 up
ip link set w2 up
ip link set p2 up
ip addr add 198.51.100.10/24 dev w1
ip addr add 192.0.2.7/24 dev w2
ip addr add 198.51.100.99/32 dev lo
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:2::7/64 dev w2 nodad
ip route add default via 198.51.100.1
ip route add default via 192.0.2.1 dev w2 table 107
ip route add default via 192.0.2.1 dev w2 metric 500
ip route add unreachable 203.0.113.1
ip route add prohibit 203.0.113.2
ip route add blackhole 203.0.113.3
ip route add local 198.18.0.0/16 dev lo
ip route add 203.0.113.16/28 via 198.51.100.1 src 198.51.100.99
ip rule add from 192.0.2.99 lookup 107 priority 1000
ip rule add fwmark 0x7 lookup 107 priority 1001
ip rule add ipproto udp dport 5060-5070 lookup 107 priority 1002
ip rule add ipproto tcp sport 4000 lookup 107 priority 1003
ip rule add uidrange 4321-4322 lookup 107 priority 1004
ip -6 route add default via 2001:db8:1::1
ip -6 route add default via 2001:db8:2::1 dev w2 table 107
ip -6 route add unreachable 2001:db8:9::1
ip -6 route add prohibit 2001:db8:9::2
ip -6 route add blackhole 2001:db8:9::3
ip -6 route add local 2001:db8:64::/64 dev lo
ip -6 rule add fwmark 0x7/0xff lookup 107 priority 1001
`

func TestRoute(t *testing.T) {
	nstest.Need(t, "ip")
	addr := netip.MustParseAddr
	uid := uint32(4322)
	inNamespace(t, func() error {
		if err := commands(twoProviders); err != nil {
			return err
		}
		for _, tt := range []struct {
			q    RouteQuery
			want string // of the answer, with the type unless it is unicast
			err  error
		}{
			{RouteQuery{Dst: addr("203.0.113.9")}, "dev w1 via 198.51.100.1 table main", nil},
			{RouteQuery{Dst: addr("::ffff:203.0.113.9")}, "dev w1 via 198.51.100.1 table main", nil},
			{RouteQuery{Dst: addr("198.51.100.7")}, "dev w1 table main", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Src: addr("192.0.2.7")}, "dev w1 via 198.51.100.1 table main", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Mark: 7}, "dev w2 via 192.0.2.1 table 107", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Link: "w2"}, "dev w2 via 192.0.2.1 table main", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Link: "p2"}, "dev p2", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Protocol: unix.IPPROTO_UDP, DstPort: 5065}, "dev w2 via 192.0.2.1 table 107", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Protocol: unix.IPPROTO_UDP, DstPort: 5071}, "dev w1 via 198.51.100.1 table main", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Protocol: unix.IPPROTO_TCP, DstPort: 5065}, "dev w1 via 198.51.100.1 table main", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Protocol: unix.IPPROTO_TCP, SrcPort: 4000}, "dev w2 via 192.0.2.1 table 107", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), UID: &uid}, "dev w2 via 192.0.2.1 table 107", nil},
			{RouteQuery{Dst: addr("198.51.100.10")}, "local dev lo table local", nil},
			{RouteQuery{Dst: addr("198.18.1.2")}, "local dev lo table local", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Src: addr("198.18.1.2")}, "dev w1 via 198.51.100.1 table main", nil},
			{RouteQuery{Dst: addr("203.0.113.9"), Src: addr("198.51.100.77")}, "", ErrForeign},
			{RouteQuery{Dst: addr("203.0.113.9"), Src: addr("127.0.0.2")}, "", ErrLoopback},
			{RouteQuery{Dst: addr("203.0.113.1")}, "", ErrUnreachable},
			{RouteQuery{Dst: addr("203.0.113.2")}, "", ErrProhibited},
			{RouteQuery{Dst: addr("203.0.113.3")}, "", ErrBlackhole},

			{RouteQuery{Dst: addr("2001:db8:77::1")}, "dev w1 via 2001:db8:1::1 table main", nil},
			{RouteQuery{Dst: addr("2001:db8:1::5")}, "dev w1 table main", nil},
			{RouteQuery{Dst: addr("2001:db8:77::1"), Src: addr("2001:db8:2::7")}, "dev w1 via 2001:db8:1::1 table main", nil},
			{RouteQuery{Dst: addr("2001:db8:77::1"), Src: addr("2001:db8:2::7"), Mark: 0x107}, "dev w2 via 2001:db8:2::1 table 107", nil},
			{RouteQuery{Dst: addr("2001:db8:77::1"), Src: addr("2001:db8:64::99")}, "dev w1 via 2001:db8:1::1 table main", nil},
			{RouteQuery{Dst: addr("2001:db8:77::1"), Src: addr("2001:db8:65::99")}, "", ErrForeign},
			{RouteQuery{Dst: addr("2001:db8:9::1")}, "", ErrUnreachable},
			{RouteQuery{Dst: addr("2001:db8:9::2")}, "", ErrProhibited},
			{RouteQuery{Dst: addr("2001:db8:9::3")}, "", ErrBlackhole},
		} {
			a, err := Route(tt.q)
			got := a.String()
			if a.Type != RouteUnicast {
				got = a.Type.String() + " " + got
			}
			if !errors.Is(err, tt.err) || err == nil && got != tt.want {
				t.Errorf("%v: got %q, %v, want %q, %v", tt.q, got, err, tt.want, tt.err)
			}
		}
		if err := commands("ip route del default metric 0\nip route del default metric 500\nip -6 route del default"); err != nil {
			return err
		}
		for _, dst := range []string{"203.0.113.9", "2001:db8:77::1"} {
			_, err := Route(RouteQuery{Dst: addr(dst)})
			if e := (*RouteError)(nil); !errors.Is(err, ErrNoRoute) || !errors.Is(err, unix.ENETUNREACH) || !errors.As(err, &e) {
				t.Errorf("no default route: got %v", err)
			}
		}
		return nil
	})
}

func TestRouteOfTheAnswer(t *testing.T) {
	nstest.Need(t, "ip")
	inNamespace(t, func() error {
		if err := commands(twoProviders); err != nil {
			return err
		}
		a, err := Route(RouteQuery{Dst: netip.MustParseAddr("203.0.113.20")})
		if err != nil {
			return err
		}
		want := TableRoute{
			Type:    RouteUnicast,
			Dst:     netip.MustParsePrefix("203.0.113.16/28"),
			Link:    "w1",
			Gateway: netip.MustParseAddr("198.51.100.1"),
			Src:     netip.MustParseAddr("198.51.100.99"),
			Table:   TableMain, Protocol: unix.RTPROT_BOOT,
		}
		if a.Route != want || a.PrefSrc != want.Src || a.Assumed {
			t.Errorf("got %+v, want %+v", a, want)
		}
		a, err = Route(RouteQuery{Dst: netip.MustParseAddr("203.0.113.9"), Link: "p1"})
		if err != nil || !a.Assumed {
			t.Errorf("on a link without a route: got %+v, %v, want it assumed", a, err)
		}
		return nil
	})
}

func TestWrongEgress(t *testing.T) {
	nstest.Need(t, "ip")
	inNamespace(t, func() error {
		if err := commands(twoProviders + "ip addr add 198.51.100.11/24 dev w2 metric 1000\nip -6 route add default via 2001:db8:2::1 dev w2 metric 2000\n"); err != nil {
			return err
		}
		s, err := Read()
		if err != nil {
			return err
		}
		for _, tt := range []struct {
			src, dst string
			link     string // of the query
			owner    string // "" when the way is right
		}{
			{"198.51.100.10", "203.0.113.9", "", ""},
			{"192.0.2.7", "203.0.113.9", "", "w2"},
			{"192.0.2.7", "203.0.113.9", "w2", ""},
			{"192.0.2.7", "192.0.2.8", "", ""},
			{"198.51.100.99", "203.0.113.9", "", ""}, // of lo
			{"198.18.0.1", "203.0.113.9", "", ""},    // AnyIP
			{"198.51.100.11", "203.0.113.9", "", ""}, // w2, and w1 is in the same network
			{"192.0.2.7", "198.51.100.10", "", ""},   // stays here
			{"2001:db8:1::10", "2001:db8:77::1", "", ""},
			{"2001:db8:2::7", "2001:db8:77::1", "", "w2"},
			{"2001:db8:2::7", "2001:db8:77::1", "w2", ""},
			{"2001:db8:1::10", "2001:db8:77::1", "w2", "w1"},
		} {
			src := netip.MustParseAddr(tt.src)
			a, err := Route(RouteQuery{Dst: netip.MustParseAddr(tt.dst), Src: src, Link: tt.link})
			if err != nil {
				t.Errorf("%s from %s: %v", tt.dst, tt.src, err)
			}
			if owner, wrong := s.WrongEgress(src, a); owner.Name != tt.owner || wrong != (tt.owner != "") {
				t.Errorf("%s from %s, %v: got %q, %v, want %q", tt.dst, tt.src, a, owner.Name, wrong, tt.owner)
			}
		}
		return nil
	})
}

func TestReadPolicy(t *testing.T) {
	nstest.Need(t, "ip")
	inNamespace(t, func() error {
		if err := commands(twoProviders + "ip route add 203.0.113.128/25 nexthop via 198.51.100.1 nexthop via 192.0.2.1\nip rule add not from 192.0.2.0/24 to 198.18.5.0/24 iif lo fwmark 0x0/0xf0 sport 1-2 oif w1 lookup 9 priority 50\n"); err != nil {
			return err
		}
		p, err := ReadPolicy()
		if err != nil {
			return err
		}
		var text strings.Builder
		for _, r := range p.Routes {
			fmt.Fprintf(&text, "%v table %v src %v hops %d metric %d\n", r, r.Table, r.Src, r.Hops, r.Metric)
		}
		for _, r := range p.Rules {
			fmt.Fprintln(&text, r)
		}
		for _, want := range []string{
			"default via 192.0.2.1 dev w2 table 107 src invalid IP hops 0 metric 0\n",
			"default via 192.0.2.1 dev w2 table main src invalid IP hops 0 metric 500\n",
			"203.0.113.16/28 via 198.51.100.1 dev w1 table main src 198.51.100.99 hops 0 metric 0\n",
			"203.0.113.128/25 via 198.51.100.1 dev w1 table main src invalid IP hops 2 metric 0\n",
			"unreachable 203.0.113.1/32 table main",
			"local 198.18.0.0/16 dev lo table local",
			"default via 2001:db8:1::1 dev w1 table main src invalid IP hops 0 metric 1024\n",
			"default via 2001:db8:2::1 dev w2 table 107 src invalid IP hops 0 metric 1024\n",
			"0: from all lookup local\n50: not from 192.0.2.0/24 to 198.18.5.0/24 fwmark 0x0/0xf0 iif lo oif w1 sport 1-2 lookup 9\n1000: from 192.0.2.99 lookup 107\n1001: from all fwmark 0x7 lookup 107\n1002: from all ipproto udp dport 5060-5070 lookup 107\n1003: from all ipproto tcp sport 4000 lookup 107\n1004: from all uidrange 4321-4322 lookup 107\n32766: from all lookup main\n",
			"1001: from all fwmark 0x7/0xff lookup 107\n",
		} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("want in it %q", want)
			}
		}
		if t.Failed() {
			t.Logf("got\n%s", text.String())
		}
		return nil
	})
}

// TestRuleFor asks for the rule that leads to the table that the kernel names.
func TestRuleFor(t *testing.T) {
	nstest.Need(t, "ip")
	addr := netip.MustParseAddr
	uid := uint32(4321)
	inNamespace(t, func() error {
		if err := commands(twoProviders + "ip addr add 192.0.2.99/24 dev w2\n"); err != nil {
			return err
		}
		p, err := ReadPolicy()
		if err != nil {
			return err
		}
		for _, tt := range []struct {
			q    RouteQuery
			want uint32 // the priority; 0: no rule of its own
		}{
			{RouteQuery{Dst: addr("203.0.113.9")}, 0},
			{RouteQuery{Dst: addr("203.0.113.9"), Src: addr("192.0.2.99"), Mark: 7}, 1000},
			{RouteQuery{Dst: addr("203.0.113.9"), Mark: 7}, 1001},
			{RouteQuery{Dst: addr("203.0.113.9"), Mark: 0x107}, 0},
			{RouteQuery{Dst: addr("203.0.113.9"), Protocol: unix.IPPROTO_UDP, DstPort: 5070}, 1002},
			{RouteQuery{Dst: addr("203.0.113.9"), Protocol: unix.IPPROTO_TCP, SrcPort: 4000}, 1003},
			{RouteQuery{Dst: addr("203.0.113.9"), UID: &uid}, 1004},
			{RouteQuery{Dst: addr("2001:db8:77::1"), Mark: 0x107}, 1001},
		} {
			a, err := Route(tt.q)
			if err != nil {
				return err
			}
			r, ok := p.RuleFor(tt.q, a.Table)
			if r.Priority != tt.want || ok != (tt.want != 0) {
				t.Errorf("%v, %v: got rule %q, want priority %d", tt.q, a, r, tt.want)
			}
		}
		return nil
	})
}

// TestRoutesChanged: routes, rules, links and addresses are told, each by a new channel.
func TestRoutesChanged(t *testing.T) {
	nstest.Need(t, "ip")
	inNamespace(t, func() error {
		if err := commands(twoProviders); err != nil {
			return err
		}
		h, err := Watch(t.Context(), nil)
		if err != nil {
			return err
		}
		for _, change := range []string{
			"ip route add 203.0.113.64/26 via 198.51.100.1",
			"ip rule add from 192.0.2.7 lookup 107",
			"ip -6 rule add from 2001:db8:2::7 lookup 107",
			"ip -6 route add 2001:db8:88::/48 via 2001:db8:1::1",
			"ip addr add 192.0.2.8/24 dev w2",
			"ip link set w2 down",
		} {
			changed := h.RoutesChanged()
			if err := commands(change); err != nil {
				return err
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				return fmt.Errorf("%s: not told after 10 s", change)
			}
		}
		return nil
	})
}

// FuzzParseRoute looks for messages on which the parsers panic.
func FuzzParseRoute(f *testing.F) {
	f.Add(make([]byte, 12), uint16(unix.RTA_MULTIPATH), []byte{8, 0, 0, 0, 1, 0, 0, 0})
	f.Add([]byte{unix.AF_INET, 24, 32, 0, 254, 2, 0, 1, 0, 0, 0, 0}, uint16(unix.RTA_DST), []byte{192, 0, 2, 1})
	f.Add([]byte{unix.AF_INET6, 200}, uint16(fraUIDRange), make([]byte, 8))
	f.Fuzz(func(_ *testing.T, header []byte, kind uint16, value []byte) {
		b := slices.Concat(header, native32(uint32(len(value)+4)|uint32(kind)<<16), value)
		if r, ok := (linkTable{1: "lo"}).parseRoute(b); ok {
			_ = r.String()
		}
		if l, ok := parseLabel(b); ok {
			labelTable{l}.of(netip.IPv6Loopback(), 1)
		}
		if r, ok := parseRule(b); ok {
			_ = r.String()
			r.Selects(RouteQuery{Dst: netip.IPv6Loopback()})
		}
	})
}
