//go:build linux

package cgroupbpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// drawn is a list of rules that fuzz input has drawn. The universe is small, so that rules overlap and flows hit.
type drawn struct {
	b     []byte
	rules []dialer.Rule
	// otherwise is the default.
	otherwise dialer.Use
}

var (
	drawnDsts = []string{
		"10.1.2.3", "10.1.2.2", "10.1.3.1", "10.200.0.1", "192.0.2.1", "127.0.0.1", "127.5.0.1", "169.254.1.1", "224.0.0.5", "239.1.2.3",
		"255.255.255.255", "0.0.0.0", "8.8.8.8", "2001:db8::1", "2001:db8::2", "2001:db9::1", "::1", "::", "fe80::1", "fe80:0:0:1::1", "ff02::1",
		"64:ff9b::10.1.2.3", "64:ff9b::10.1.3.1", "64:ff9b:1:2::10.1.2.3", "2002:a01:203::1", "::10.1.2.3", "64:ff9b::127.0.0.1", "64:ff9b:2::10.1.2.3",
	}
	drawnLengths = []int{0, 1, 4, 8, 10, 16, 24, 30, 31, 32, 48, 64, 96, 112, 127, 128}
	drawnPorts   = []uint16{1, 24, 25, 53, 80, 443, 1024, 5060, 32768, 65534, 65535}
	drawnTo      = []string{"a.example", "*.example", ".test"}
	drawnService = []string{"a.service", "b.service"}
)

func (d *drawn) below(n int) int {
	if len(d.b) == 0 {
		return 0
	}
	v := int(d.b[0])
	d.b = d.b[1:]
	return v % n
}

// one reports true once in n.
func (d *drawn) one(n int) bool { return d.below(n) == n-1 }

func draw[E any](d *drawn, list []E) E { return list[d.below(len(list))] }

// several makes a list: none of it most often.
func several[E any](d *drawn, rare int, element func() E) []E {
	if !d.one(rare) {
		return nil
	}
	list := make([]E, 1+d.below(3))
	for i := range list {
		list[i] = element()
	}
	return list
}

// drawSources are those that hooks can do: of both families and of one, alone and in pools.
func drawSources() []dialer.Use {
	source := func(name string, addrs ...string) *dialer.Source {
		s := &dialer.Source{Name: name}
		for _, a := range addrs {
			s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
		}
		return s
	}
	both, other := source("both", "198.51.100.1", "2001:db8:1::1"), source("other", "198.51.100.2", "2001:db8:1::2")
	four, six := source("", "198.51.100.4"), source("six", "2001:db8:1::6")
	uses := []dialer.Use{{}, {Kernel: true}, {Source: both}, {Source: other}, {Source: four}, {Source: six}}
	for _, pick := range []dialer.Pick{dialer.FirstUp, dialer.Sticky} {
		p := &dialer.Pool{Name: "p" + pick.String(), Pick: pick, Of: []dialer.Member{{Source: six}, {Source: both, Weight: 3}, {Source: other}, {Source: four}}}
		if pick == dialer.Sticky {
			p.By = []dialer.Key{dialer.ByDestination}
		}
		uses = append(uses, dialer.Use{Pool: p})
	}
	return uses
}

func newDrawn(data []byte) *drawn {
	d := &drawn{b: data}
	uses := drawSources()
	d.rules = make([]dialer.Rule, d.below(24))
	for i := range d.rules {
		d.rules[i] = d.rule(i, uses)
	}
	d.otherwise = draw(d, uses)
	return d
}

func (d *drawn) match() dialer.Match {
	if d.one(8) {
		m, err := dialer.ParseMatch(draw(d, drawnTo))
		if err != nil {
			panic(err)
		}
		return m
	}
	a := netip.MustParseAddr(draw(d, drawnDsts))
	return dialer.MatchPrefix(netip.PrefixFrom(a, min(draw(d, drawnLengths), a.BitLen())))
}

func (d *drawn) ports() dialer.PortRange {
	a, b := draw(d, drawnPorts), draw(d, drawnPorts)
	if d.one(2) {
		b = a
	}
	return dialer.PortRange{Lo: min(a, b), Hi: max(a, b)}
}

func (d *drawn) rule(i int, uses []dialer.Use) dialer.Rule {
	r := dialer.Rule{
		Name:      fmt.Sprintf("r%d", i),
		Ports:     several(d, 4, d.ports),
		LocalPort: several(d, 6, d.ports),
		Service:   several(d, 6, func() string { return draw(d, drawnService) }),
		User:      several(d, 12, func() string { return "ann" }),
	}
	if !d.one(5) {
		r.To = several(d, 1, d.match)
	}
	if d.one(3) {
		r.Protocol = draw(d, []string{"tcp", "udp"})
	}
	if d.one(8) {
		r.SourcePort = draw(d, drawnPorts)
	}
	r.Use = draw(d, uses)
	if d.one(4) {
		r.Use, r.Map = dialer.Use{}, make(map[dialer.Match]dialer.Use)
		for range 1 + d.below(4) {
			r.Map[d.match()] = draw(d, uses)
		}
	}
	return r
}

func (d *drawn) flow() dialer.Flow {
	f := dialer.Flow{Network: draw(d, []string{"tcp", "udp"}), Service: drawnService[0]}
	port := func() uint16 { return draw(d, drawnPorts) + uint16(d.below(3)) - 1 }
	f.Dst = netip.AddrPortFrom(netip.MustParseAddr(draw(d, drawnDsts)), port())
	if d.one(2) {
		f.LocalPort = port()
	}
	return f
}

func (d *drawn) String() string {
	var b strings.Builder
	for _, r := range d.rules {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	fmt.Fprintf(&b, "default %v", d.otherwise)
	return b.String()
}

// random returns the i-th of a fixed series of inputs.
func random(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 11))
	b := make([]byte, 300+r.IntN(1500))
	for j := range b {
		b[j] = byte(r.Uint32())
	}
	return b
}
