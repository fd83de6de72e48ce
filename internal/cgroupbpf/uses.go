//go:build linux

package cgroupbpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/srcproxy/srcproxy/dialer"
)

// use numbers u. What hooks cannot do is an error, which is kept.
func (c *compiler) use(u dialer.Use) uint32 {
	switch {
	case u.Kernel:
		return useKernel
	case u == dialer.Use{}:
		return useDeny
	}
	if n, ok := c.numbers[u]; ok {
		return n
	}
	if u.Same {
		c.fail(errors.New("use same: no client connects to the kernel plane, so there is no address that it asked"))
		return useDeny
	}
	n := uint32(len(c.uses)) // #nosec G115 -- at most one for each rule and map key
	c.numbers[u] = n
	pool := u.Pool
	if u.Source != nil {
		pool = &dialer.Pool{Of: []dialer.Member{{Source: u.Source}}}
	}
	kind, err := kindOf(pool)
	if err != nil {
		c.fail(fmt.Errorf("pool %q: %w", pool.Name, err))
		return useDeny
	}
	c.wanted = append(c.wanted, u)
	c.uses = append(c.uses, hooksUse{
		Kind:  kind,
		Span:  uint64(max(pool.For, 0)),
		First: uint32(len(c.members)), // #nosec G115 -- at most maxMembers for each use
		Count: uint32(len(pool.Of)),   // #nosec G115 -- see kindOf
	})
	for _, m := range pool.Of {
		c.member(m)
	}
	return n
}

func kindOf(p *dialer.Pool) (hooksKind, error) {
	if len(p.Of) > maxMembers {
		return 0, fmt.Errorf("has %d members; the kernel plane takes %d", len(p.Of), maxMembers)
	}
	switch p.Pick {
	case dialer.FirstUp:
		return hooksKindFIRST_UP, nil
	case dialer.RoundRobin:
		return hooksKindROUND_ROBIN, nil
	case dialer.Random:
		return hooksKindRANDOM, nil
	case dialer.Sticky:
		if !slices.Equal(p.By, []dialer.Key{dialer.ByDestination}) {
			return 0, errors.New(`the kernel plane knows neither clients nor names: write by = ["destination"]`)
		}
		return hooksKindSTICKY, nil
	}
	return 0, fmt.Errorf("the kernel plane cannot pick by %v: write first-up, round-robin, random or sticky", p.Pick)
}

func (c *compiler) member(m dialer.Member) {
	if err := c.fits(m.Source); err != nil {
		c.fail(fmt.Errorf("source %q: %w", m.Source.Name, err))
	}
	if m.Weight > math.MaxUint32 {
		c.fail(fmt.Errorf("source %q: weight %d is above %d", m.Source.Name, m.Weight, uint32(math.MaxUint32)))
	}
	c.sources = append(c.sources, m.Source)
	c.members = append(c.members, hooksMember{
		Id:     m.Source.Hash(),
		Weight: uint32(max(m.Weight, 1)), // #nosec G115 -- checked above
		Mark:   m.Source.Mark,
	})
}

// fits reports what hooks cannot do of s.
func (c *compiler) fits(s *dialer.Source) error {
	switch {
	case s.Prefix.IsValid():
		return errors.New("is a prefix; the kernel plane cannot give each connection an address of its own: name single addresses")
	case s.First.IsValid():
		return errors.New("is a range; name its addresses as sources of a pool for the kernel plane")
	case !s.Ports.IsZero():
		return errors.New("has ports; the kernel plane cannot limit them: leave them out, or fix one with source_port in a rule")
	case s.Device != "":
		return errors.New("has a device; the kernel plane cannot choose one for each datagram: route by the address, with ip rule from")
	case s.Mark != 0 && !c.options.MarkWildcard:
		return errors.New("has a mark; the kernel plane cannot set one for each datagram, but for connections: write wildcard_port = \"mark\"")
	}
	return nil
}

// address returns a as the maps hold it.
func address(a netip.Addr) (out hooksAddress) {
	b := a.As16()
	for i := range out.Word {
		out.Word[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}

// netipAddr is the inverse of address.
func netipAddr(a hooksAddress) netip.Addr {
	var b [16]byte
	for i, w := range a.Word {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

// key returns p as the maps hold it: an IPv4 prefix is mapped.
func key(p netip.Prefix) hooksPrefix {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return hooksPrefix{Bits: uint32(bits), Address: address(p.Addr())} // #nosec G115 -- at most 128
}

// prefixOf is the inverse of key.
func prefixOf(k hooksPrefix) netip.Prefix {
	a, bits := netipAddr(k.Address), int(k.Bits)
	if a.Is4() {
		bits -= 96
	}
	return netip.PrefixFrom(a, bits)
}

// keyOf returns a text that only equal lists share.
func (c *compiler) keyOf(list []hooksCandidate) string {
	c.key = c.key[:0]
	for _, e := range list {
		c.key = binary.NativeEndian.AppendUint32(c.key, e.Rule)
		c.key = binary.NativeEndian.AppendUint32(c.key, e.Use)
		for _, v := range []uint16{e.PortLow, e.PortHigh, e.LocalLow, e.LocalHigh, e.SourcePort} {
			c.key = binary.NativeEndian.AppendUint16(c.key, v)
		}
		c.key = append(c.key, e.Protocol, e.Deliberate)
	}
	return string(c.key)
}
