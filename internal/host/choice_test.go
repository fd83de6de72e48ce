package host

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// oneLink has a veth pair and nothing else.
const oneLink = `
ip link set lo up
ip link add w1 type veth peer name p1
ip link set w1 up
ip link set p1 up
`

// twoLinks has two of them.
const twoLinks = oneLink + `
ip link add w2 type veth peer name p2
ip link set w2 up
ip link set p2 up
`

// choices are the rows of what decides about the source that the kernel takes.
var choices = []struct {
	name   string
	script string
	q      RouteQuery // Dst, Mark and Link
	dst    string
	want   Cause
	text   string // a part of it
	err    error
}{
	{
		name: "primary", script: oneLink + `
ip addr add 192.0.2.10/24 dev w1
ip route add default via 192.0.2.1`,
		dst: "203.0.113.9", want: ByPrimary, text: "the primary address of w1",
	},
	{
		name: "route src", script: oneLink + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 192.0.2.20/24 dev w1
ip route add default via 192.0.2.1 src 192.0.2.20`,
		dst: "203.0.113.9", want: ByRoute, text: "the src of the route default via 192.0.2.1 dev w1",
	},
	{
		name: "on the link, in the second subnet", script: oneLink + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w1`,
		dst: "198.51.100.7", want: BySubnet, text: "in the destination's subnet 198.51.100.0/24",
	},
	{
		name: "gateway in the second subnet", script: oneLink + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w1
ip addr add 198.51.100.11/24 dev w1
ip route add default via 198.51.100.1`,
		dst: "203.0.113.9", want: ByGateway, text: "in the subnet of the gateway 198.51.100.1, the first added of its 2",
	},
	{
		name: "several in one subnet", script: oneLink + `
ip addr add 192.0.2.30/24 dev w1
ip addr add 192.0.2.10/24 dev w1
ip addr add 192.0.2.20/24 dev w1
ip route add default via 192.0.2.1`,
		dst: "203.0.113.9", want: ByPrimary, text: "the primary address of w1, the first added of its 3",
	},
	{
		name: "several in the destination's subnet", script: oneLink + `
ip addr add 192.0.2.30/24 dev w1
ip addr add 192.0.2.10/24 dev w1`,
		dst: "192.0.2.7", want: BySubnet, text: "192.0.2.0/24, the first added of its 2",
	},
	{
		name: "link without address", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w2
ip route add default dev w1`,
		dst: "203.0.113.9", want: ByOtherLink, text: "an address of w2, since w1 has none",
	},
	{
		name: "link without address, one on lo", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w2
ip addr add 198.51.100.99/32 dev lo
ip route add default dev w1`,
		dst: "203.0.113.9", want: ByOtherLink, text: "an address of lo, since w1 has none",
	},
	{
		name: "link-local address first, global route", script: oneLink + `
ip addr add 169.254.7.7/16 dev w1 scope link
ip addr add 192.0.2.10/24 dev w1
ip route add default via 192.0.2.1`,
		dst: "203.0.113.9", want: ByGateway, text: "in the subnet of the gateway",
	},
	{
		name: "link-local address first, gateway elsewhere", script: oneLink + `
ip addr add 169.254.7.7/16 dev w1 scope link
ip addr add 192.0.2.10/24 dev w1
ip route add default via 198.51.100.1 onlink dev w1`,
		dst: "203.0.113.9", want: ByScope, text: "which is of scope global",
	},
	{
		name: "link-local address first, route of scope link", script: oneLink + `
ip addr add 169.254.7.7/16 dev w1 scope link
ip addr add 192.0.2.10/24 dev w1
ip route add 203.0.113.0/24 dev w1 scope link`,
		dst: "203.0.113.9", want: ByScope, text: "which is of scope link",
	},
	{
		name: "own address", script: oneLink + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 192.0.2.20/24 dev w1`,
		dst: "192.0.2.20", want: ByOwn, text: "the primary address of the destination's subnet",
	},
	{
		name: "own primary address", script: oneLink + `
ip addr add 192.0.2.10/24 dev w1`,
		dst: "192.0.2.10", want: ByOwn, text: "the destination itself",
	},
	{name: "loopback", script: oneLink, dst: "127.0.0.9", want: ByRoute, text: "the src of the route local 127.0.0.0/8 dev lo"},
	{
		name: "AnyIP", script: oneLink + `
ip route add local 198.18.0.0/16 dev lo`,
		dst: "198.18.7.7", want: ByOwn, text: "the destination itself",
	},
	{
		name: "mark", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w2
ip route add default via 192.0.2.1
ip route add default via 198.51.100.1 table 102
ip rule add fwmark 1 lookup 102 priority 1000`,
		q: RouteQuery{Mark: 1}, dst: "203.0.113.9", want: ByPrimary,
		text: "the primary address of w2 (table 102 by ip rule 1000: from all fwmark 0x1 lookup 102)",
	},
	{
		name: "mark, route src", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w2
ip addr add 198.51.100.20/24 dev w2
ip route add default via 192.0.2.1
ip route add default via 198.51.100.1 src 198.51.100.20 table 102
ip rule add fwmark 0x10/0xf0 lookup 102 priority 1000`,
		q: RouteQuery{Mark: 0x17}, dst: "203.0.113.9", want: ByRoute, text: "by ip rule 1000: from all fwmark 0x10/0xf0 lookup 102",
	},
	{
		name: "rule on the port", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w2
ip route add default via 192.0.2.1
ip route add default via 198.51.100.1 table 102
ip rule add dport 7 lookup 102 priority 1000`,
		dst: "203.0.113.9", want: ByPrimary, text: "the primary address of w2 (table 102",
	},
	{
		name: "bound to a link", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w2
ip route add default via 192.0.2.1
ip route add default via 198.51.100.1 metric 99`,
		q: RouteQuery{Link: "w2"}, dst: "203.0.113.9", want: ByPrimary, text: "w2",
	},
	{
		name: "bound to a link without a route", script: twoLinks + `
ip addr add 192.0.2.10/24 dev w1
ip addr add 198.51.100.10/24 dev w2
ip route add default via 192.0.2.1`,
		q: RouteQuery{Link: "w2"}, dst: "203.0.113.9", want: ByPrimary, text: "w2",
	},
	{name: "no route", script: oneLink + "ip addr add 192.0.2.10/24 dev w1", dst: "203.0.113.9", err: ErrNoRoute},
	{name: "unreachable", script: oneLink + "ip route add unreachable 203.0.113.0/24", dst: "203.0.113.9", err: ErrUnreachable},
	{name: "prohibit", script: oneLink + "ip route add prohibit 203.0.113.0/24", dst: "203.0.113.9", err: ErrProhibited},
	{name: "blackhole", script: oneLink + "ip route add blackhole 203.0.113.0/24", dst: "203.0.113.9", err: ErrBlackhole},

	{
		name: "v6 only", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByScope, text: "the only address with the scope",
	},
	{
		name: "v6 route src", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:1::20/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1 src 2001:db8:1::10`,
		dst: "2001:db8:9::9", want: ByRoute, text: "the src of the route default via 2001:db8:1::1 dev w1",
	},
	{
		name: "v6 same prefix, the newest", script: oneLink + `
ip addr add 2001:db8:1::30/64 dev w1 nodad
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:1::20/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByNewest, text: "the newest of the addresses of w1",
	},
	{
		name: "v6 longest match", script: oneLink + `
ip addr add 2001:db8:9:1::10/64 dev w1 nodad
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByMatch, text: "with 63 leading bits of the destination; 2001:db8:1::10 has 44 (RFC 6724 rule 8)",
	},
	{
		name: "v6 match is no longer than the prefix", script: oneLink + `
ip addr add 2001:db8:9:1::10/32 dev w1 nodad
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByMatch, text: "with 44 leading bits",
	},
	{
		name: "v6 ULA label", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add fd00:1::10/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1`,
		dst: "fd00:9::9", want: ByLabel, text: "with the label of the destination, 5; 2001:db8:1::10 has another",
	},
	{
		name: "v6 global, beside a ULA", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add fd00:1::10/64 dev w1 nodad
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByLabel, text: "label of the destination, 1; fd00:1::10 has another",
	},
	{
		name: "v6 addrlabel", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:1::20/64 dev w1 nodad
ip addrlabel add prefix 2001:db8:1::10/128 label 99
ip addrlabel add prefix 2001:db8:9::/48 label 99
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByLabel, text: "label of the destination, 99",
	},
	{
		name: "v6 addrlabel of a link", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:1::20/64 dev w1 nodad
ip addrlabel add prefix 2001:db8:1::10/128 dev w1 label 99
ip addrlabel add prefix 2001:db8:1::20/128 dev p1 label 99
ip addrlabel add prefix 2001:db8:9::/48 label 99
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByLabel, text: "label of the destination, 99",
	},
	{
		name: "v6 deprecated", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:9::20/64 dev w1 nodad valid_lft forever preferred_lft 0
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByAge, text: "not deprecated; 2001:db8:9::20 is",
	},
	{
		name: "v6 all deprecated", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad valid_lft forever preferred_lft 0
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByScope,
	},
	{
		name: "v6 outgoing link before a longer match", script: twoLinks + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:9::10/64 dev w2 nodad
ip -6 route add 2001:db8:9::9/128 via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByLink, text: "an address of w1, the outgoing link; 2001:db8:9::10 is on w2",
	},
	{
		name: "v6 link without a global address", script: twoLinks + `
ip addr add 2001:db8:1::10/64 dev w2 nodad
ip -6 route add default dev w1`,
		dst: "2001:db8:9::9", want: ByScope,
	},
	{
		name: "v6 equal on two other links", script: twoLinks + `
ip addr add 2001:db8:1::10/64 dev w2 nodad
ip addr add 2001:db8:1::11/64 dev p2 nodad
ip -6 route add default dev w1`,
		dst: "2001:db8:9::9", want: ByOtherLink,
	},
	{
		name: "v6 only those of the link", script: twoLinks + `
sysctl -q net.ipv6.conf.w1.use_oif_addrs_only=1
ip addr add 2001:db8:9::10/64 dev w2 nodad
ip addr add fd00:1::10/64 dev w1 nodad
ip addr add fd00:1::11/64 dev w1 nodad
ip -6 route add 2001:db8:9::9/128 dev w1`,
		dst: "2001:db8:9::9", want: ByNewest,
	},
	{
		name: "v6 tentative", script: oneLink + `
sysctl -q net.ipv6.conf.w1.dad_transmits=100
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:9::20/64 dev w1
ip -6 route add default via 2001:db8:1::1`,
		dst: "2001:db8:9::9", want: ByScope,
	},
	{
		name: "v6 own address", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:1::20/64 dev w1 nodad`,
		dst: "2001:db8:1::10", want: ByOwn, text: "the destination itself",
	},
	{
		name: "v6 loopback", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad`,
		dst: "::1", want: ByOwn,
	},
	{
		name: "v6 on the link", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:2::10/64 dev w1 nodad`,
		dst: "2001:db8:1::9", want: ByMatch,
	},
	{
		name: "v6 AnyIP", script: oneLink + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip -6 route add local 2001:db8:64::/64 dev lo`,
		dst: "2001:db8:64::9", want: ByScope,
	},
	{
		name: "v6 mark", script: twoLinks + `
ip addr add 2001:db8:1::10/64 dev w1 nodad
ip addr add 2001:db8:2::10/64 dev w2 nodad
ip -6 route add default via 2001:db8:1::1
ip -6 route add default via 2001:db8:2::1 table 102
ip -6 rule add fwmark 1 lookup 102 priority 1000`,
		q: RouteQuery{Mark: 1}, dst: "2001:db8:9::9", want: ByLink, text: "(table 102 by ip rule 1000: from all fwmark 0x1 lookup 102)",
	},
	{name: "v6 no route", script: oneLink, dst: "2001:db8:9::9", err: ErrNoRoute},
	{name: "v6 unreachable", script: oneLink + "ip -6 route add unreachable 2001:db8:9::/48", dst: "2001:db8:9::9", err: ErrUnreachable},
	{name: "v6 prohibit", script: oneLink + "ip -6 route add prohibit 2001:db8:9::/48", dst: "2001:db8:9::9", err: ErrProhibited},
	{name: "v6 blackhole", script: oneLink + "ip -6 route add blackhole 2001:db8:9::/48", dst: "2001:db8:9::9", err: ErrBlackhole},
}

// TestKernelChoice compares what is explained with the address that a socket, which is
// not bound, then has.
func TestKernelChoice(t *testing.T) {
	nstest.Need(t, "ip", "sysctl")
	for _, tt := range choices {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, func() error {
				if err := commands(tt.script); err != nil {
					return err
				}
				for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
					q := tt.q
					q.Dst, q.Protocol, q.DstPort = netip.MustParseAddr(tt.dst), protocol, 7
					c, err := KernelChoice(q)
					real, connectErr := unbound(q)
					if tt.err != nil {
						e := (*RouteError)(nil)
						if !errors.Is(err, tt.err) || !errors.As(err, &e) || !errors.Is(connectErr, e.Errno) {
							t.Errorf("got %v, and connect(2) %v; want %v", err, connectErr, tt.err)
						}
						continue
					}
					if err != nil || connectErr != nil {
						return errors.Join(err, connectErr)
					}
					if c.Addr != real || c.Cause != tt.want || !strings.Contains(c.String(), tt.text) {
						t.Errorf("got %v (%s), want %s, %q; a socket has %v", c, c.Cause, tt.want, tt.text, real)
					}
				}
				return nil
			})
		})
	}
}

// unbound returns the address that a socket has after connect(2) without bind(2).
func unbound(q RouteQuery) (netip.Addr, error) {
	kind := unix.SOCK_STREAM
	if q.Protocol == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(int(family(q.Dst)), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(q.Mark)); err != nil {
		return netip.Addr{}, fmt.Errorf("SO_MARK: %w", err)
	}
	if q.Link != "" {
		if err := unix.BindToDevice(fd, q.Link); err != nil {
			return netip.Addr{}, fmt.Errorf("SO_BINDTODEVICE: %w", err)
		}
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: q.Dst.As16(), Port: int(q.DstPort)}
	if q.Dst.Is4() {
		to = &unix.SockaddrInet4{Addr: q.Dst.As4(), Port: int(q.DstPort)}
	}
	// A connection to this host may be refused at once; it has had its address then.
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return netip.Addr{}, err
	}
	name, err := unix.Getsockname(fd)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), err
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr), err
	}
	return netip.Addr{}, err
}
