//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	sameDestinations = 10_000
	sameRules        = 300
)

// sameDrawer draws rules and destinations that meet each other.
type sameDrawer struct {
	*rand.Rand
	prefixes []netip.Prefix
	ports    []uint16
	uses     []dialer.Use
}

func newSameDrawer(seed uint64) *sameDrawer {
	d := &sameDrawer{Rand: rand.New(rand.NewPCG(seed, 5)), ports: []uint16{1, 25, 53, 80, 443, 1024, 5060, 65535}}
	for range 200 { // nested, as each lies in one that is there already or is drawn anew
		d.prefixes = append(d.prefixes, d.prefix())
	}
	four := &dialer.Source{Name: "four", Addrs: []netip.Addr{nstest.ProxyV4(40)}}
	six := &dialer.Source{Name: "six", Addrs: []netip.Addr{nstest.ProxyV6(40)}}
	d.uses = []dialer.Use{{}, {}, {}, leaveFrom(four), leaveFrom(six)}
	for i := nstest.FirstSource; i < 40; i++ {
		d.uses = append(d.uses, leaveFrom(both(i)))
	}
	for i := range 12 {
		p := &dialer.Pool{Name: fmt.Sprintf("p%d", i), Of: []dialer.Member{{Source: six}}}
		if i%2 == 0 {
			p.Pick, p.By = dialer.Sticky, []dialer.Key{dialer.ByDestination}
		}
		for range 1 + d.IntN(6) {
			p.Of = append(p.Of, dialer.Member{Source: both(nstest.FirstSource + d.IntN(30)), Weight: d.IntN(5)})
		}
		d.uses = append(d.uses, dialer.Use{Pool: p}, dialer.Use{Pool: p})
	}
	return d
}

// addr draws an address: of a prefix that rules may have, or any.
func (d *sameDrawer) addr() netip.Addr {
	if len(d.prefixes) > 0 && d.IntN(4) > 0 {
		p := d.prefixes[d.IntN(len(d.prefixes))]
		return d.in(p)
	}
	if d.IntN(2) == 0 {
		return d.in(netip.MustParsePrefix("0.0.0.0/0"))
	}
	return d.in(netip.MustParsePrefix("2000::/3"))
}

// in draws an address of p; often one at its edge.
func (d *sameDrawer) in(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	fill := d.IntN(4)
	for i := p.Bits(); i < 8*len(b); i++ {
		bit := byte(0x80) >> (i % 8)
		if fill == 0 || fill > 1 && d.IntN(2) == 0 {
			b[i/8] |= bit
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (d *sameDrawer) prefix() netip.Prefix {
	a := d.addr()
	return netip.PrefixFrom(a, min(a.BitLen(), 8+d.IntN(a.BitLen()))).Masked()
}

func (d *sameDrawer) portRange() dialer.PortRange {
	a, b := d.ports[d.IntN(len(d.ports))], d.ports[d.IntN(len(d.ports))]
	return dialer.PortRange{Lo: min(a, b), Hi: max(a, b)}
}

func (d *sameDrawer) use() dialer.Use { return d.uses[d.IntN(len(d.uses))] }

func (d *sameDrawer) rule() dialer.Rule {
	r := dialer.Rule{Protocol: []string{"", "", "tcp", "udp"}[d.IntN(4)]}
	if d.IntN(3) == 0 {
		r.Ports = append(r.Ports, d.portRange(), d.portRange())
	}
	match := func() dialer.Match { return dialer.MatchPrefix(d.prefixes[d.IntN(len(d.prefixes))]) }
	if d.IntN(4) == 0 {
		r.Map = make(map[dialer.Match]dialer.Use)
		for range 1 + d.IntN(20) {
			r.Map[match()] = d.use()
		}
		return r
	}
	for range 1 + d.IntN(3) {
		r.To = append(r.To, match())
	}
	r.Use = d.use()
	return r
}

// flow draws one flow; those to addresses that the kernel plane leaves alone are not for this test.
func (d *sameDrawer) flow() dialer.Flow {
	for {
		a := d.addr()
		if a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a.Is4() && a.As4()[0] == 0 || a.Is4() && a.As4()[0] >= 240 {
			continue
		}
		port := d.ports[d.IntN(len(d.ports))]
		if d.IntN(2) == 0 {
			port += uint16(d.IntN(3)) - 1
		}
		if port != 0 {
			return dialer.Flow{Network: []string{"tcp", "udp"}[d.IntN(2)], Dst: netip.AddrPortFrom(a, port)}
		}
	}
}

// throughProxy is what the dialer does with a flow: the address that it leaves from, or the name of the error.
func throughProxy(d *dialer.Dialer, f dialer.Flow) string {
	if f.Network == "tcp" { // nobody answers there
		dec := d.Table.Lookup(f)
		return verdictOf(dec.Addr, dec.Err)
	}
	c, _, err := d.DialFlow(context.Background(), f)
	if err != nil {
		return verdictOf(netip.Addr{}, err)
	}
	defer c.Close()
	return verdictOf(c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(), nil)
}

func verdictOf(a netip.Addr, err error) string {
	switch {
	case err == nil:
		return a.Unmap().String()
	case errors.Is(err, dialer.ErrDenied):
		return "EPERM"
	case errors.Is(err, dialer.ErrNoSource):
		return "EADDRNOTAVAIL"
	}
	return err.Error()
}

// hookedFlows opens each flow that stands in its standard input.
const hookedFlows = `
for line in sys.stdin:
    network, to, port, v6 = line.split()
    s = socket(AF_INET6 if v6 == "6" else AF_INET, SOCK_STREAM if network == "tcp" else SOCK_DGRAM)
    s.setblocking(False)
    e = s.connect_ex((to, int(port)))
    if e in (0, errno.EINPROGRESS): print(s.getsockname()[0].removeprefix("::ffff:"))
    else: print(errno.errorcode[e])
    s.close()
`

// TestKernelPlaneAgreesWithProxy opens 10,000 flows by the same rules on both planes: they leave from the same addresses.
// Half of the IPv4 destinations are given as mapped ones to the kernel plane.
func TestKernelPlaneAgreesWithProxy(t *testing.T) {
	h := newHooked(t)
	d := newSameDrawer(1)
	rules := make([]dialer.Rule, sameRules)
	for i := range rules {
		rules[i] = d.rule()
	}
	otherwise := leaveFrom(both(11))
	h.rule(cgroupbpf.Options{}, otherwise, rules...)
	h.attach()
	table, err := dialer.NewTable(rules, otherwise)
	if err != nil {
		t.Fatal(err)
	}
	flows, input := make([]dialer.Flow, sameDestinations), strings.Builder{}
	for i := range flows {
		flows[i] = d.flow()
		a, family := flows[i].Dst.Addr(), "4"
		if a.Is6() || i%2 == 0 {
			family = "6"
		}
		text := a.String()
		if a.Is4() && family == "6" {
			text = "::ffff:" + text
		}
		fmt.Fprintln(&input, flows[i].Network, text, flows[i].Dst.Port(), family)
	}
	cmd := h.python(hookedFlows)
	cmd.Stdin = strings.NewReader(input.String())
	got := h.output(cmd)
	if len(got) != len(flows) {
		t.Fatalf("%d answers, the last is %q", len(got), got[len(got)-1])
	}
	seen := make(map[string]int)
	err = h.Proxy.Do(func() error {
		proxy := &dialer.Dialer{Table: table}
		for i, f := range flows {
			want := throughProxy(proxy, f)
			seen[want]++
			if got[i] != want {
				t.Errorf("%s to %v: the kernel plane has %s, the proxy %s", f.Network, f.Dst, got[i], want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 30 || seen["EPERM"] == 0 || seen["EADDRNOTAVAIL"] == 0 {
		t.Errorf("the flows met %v, want more ends", seen)
	}
	t.Logf("%d flows, %d sources of both families, %d denied, %d without a source",
		len(flows), len(seen)-2, seen[unix.ErrnoName(unix.EPERM)], seen[unix.ErrnoName(unix.EADDRNOTAVAIL)])
}
