//go:build linux

package nstest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// leakRules count what comes in by a link, by source, destination and protocol.
// Neighbour discovery and multicast listener reports are the kernel's own talk;
// ARP never comes here. What a full set could not take falls through to missed.
const leakRules = `
table inet leak {
	counter missed {
	}
	set v4 {
		type ipv4_addr . ipv4_addr . inet_proto
		flags dynamic
		size 65535
	}
	set v6 {
		type ipv6_addr . ipv6_addr . inet_proto
		flags dynamic
		size 65535
	}
	chain arrivals {
		type filter hook prerouting priority -300; policy accept;
		iifname != "LINK" accept
		icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept
		update @v4 { ip saddr . ip daddr . meta l4proto counter } accept
		update @v6 { ip6 saddr . ip6 daddr . meta l4proto counter } accept
		counter name missed
	}
}
`

// Packets says which packets are meant.
type Packets struct {
	Src, Dst netip.Addr
	Protocol string // as nft prints it: tcp, udp, icmp, ipv6-icmp
}

// LeakCounter counts at the far end the packets that came from addresses which
// no rule names. Its methods are safe for concurrent use.
type LeakCounter struct {
	n *Namespace

	mu      sync.Mutex
	allowed map[netip.Addr]bool
	pairs   map[netip.Addr][]netip.Prefix // by destination
}

// CountLeaks starts to count in the namespace what arrives by the link. Nothing
// is allowed at first. One namespace has at most one counter.
func (n *Namespace) CountLeaks(t testing.TB, link string) *LeakCounter {
	t.Helper()
	Need(t, "nft")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(leakRules, "LINK", link))
	if r := n.Run(t, cmd); r.Err != nil {
		t.Fatalf("nft: %v", r)
	}
	return &LeakCounter{n: n, allowed: make(map[netip.Addr]bool), pairs: make(map[netip.Addr][]netip.Prefix)}
}

// Allow names addresses that packets may come from, wherever they go.
func (l *LeakCounter) Allow(addrs ...netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range addrs {
		l.allowed[a] = true
	}
}

// AllowTo names prefixes that packets to dst may come from.
func (l *LeakCounter) AllowTo(dst netip.Addr, sources ...netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range sources {
		if !slices.Contains(l.pairs[dst], p) {
			l.pairs[dst] = append(l.pairs[dst], p)
		}
	}
}

func (l *LeakCounter) allows(p Packets) bool {
	within := func(sources netip.Prefix) bool { return sources.Contains(p.Src) }
	return l.allowed[p.Src] || slices.ContainsFunc(l.pairs[p.Dst], within)
}

// Leaks is the number of packets from addresses that are not allowed, with a
// line for each kind of them.
func (l *LeakCounter) Leaks(t testing.TB) (packets uint64, details []string) {
	t.Helper()
	seen := l.Seen(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, count := range seen {
		if l.allows(p) {
			continue
		}
		packets += count
		details = append(details, fmt.Sprintf("%d %s packets from %v to %v", count, p.Protocol, p.Src, p.Dst))
	}
	slices.Sort(details)
	return packets, details
}

// Seen is all that was counted, allowed or not.
func (l *LeakCounter) Seen(t testing.TB) map[Packets]uint64 {
	t.Helper()
	r := l.n.Run(t, exec.Command("nft", "-j", "list", "table", "inet", "leak"))
	if r.Err != nil {
		t.Fatalf("nft: %v", r)
	}
	seen, err := parseCounters([]byte(r.Stdout))
	if err != nil {
		t.Fatalf("nft: %v in %s", err, r.Stdout)
	}
	return seen
}

// nftList is the part of nft's JSON that holds counters (libnftables-json(5)).
type nftList struct {
	Nftables []struct {
		Counter *struct {
			Name    string
			Packets uint64
		}
		Set *struct {
			Elem []struct {
				Elem struct {
					Val     struct{ Concat []any } // a protocol without a name is a number
					Counter struct{ Packets uint64 }
				}
			}
		}
	}
}

func parseCounters(b []byte) (map[Packets]uint64, error) {
	var list nftList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	seen := make(map[Packets]uint64)
	for _, object := range list.Nftables {
		if c := object.Counter; c != nil && c.Packets > 0 {
			return nil, fmt.Errorf("%d packets are missed: the sets are full", c.Packets)
		}
		if object.Set == nil {
			continue
		}
		for _, e := range object.Set.Elem {
			p, err := parsePackets(e.Elem.Val.Concat)
			if err != nil {
				return nil, err
			}
			seen[p] += e.Elem.Counter.Packets
		}
	}
	return seen, nil
}

func parsePackets(concat []any) (Packets, error) {
	if len(concat) != 3 {
		return Packets{}, fmt.Errorf("element %q has not three parts", concat)
	}
	src, err := netip.ParseAddr(fmt.Sprint(concat[0]))
	if err != nil {
		return Packets{}, err
	}
	dst, err := netip.ParseAddr(fmt.Sprint(concat[1]))
	if err != nil {
		return Packets{}, err
	}
	return Packets{Src: src, Dst: dst, Protocol: fmt.Sprint(concat[2])}, nil
}
