package pktinfo

import (
	"net"
	"net/netip"
	"strconv"
)

// unmap turns an IPv4-mapped IPv6 address into an IPv4 address.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// addrOf returns a, whatever type it is, as an Addr. A nil a is the zero Addr.
func addrOf(a net.Addr) (Addr, error) {
	switch a := a.(type) {
	case nil:
		return Addr{}, nil
	case *Addr:
		if a == nil {
			return Addr{}, nil
		}
		return Addr{Peer: unmap(a.Peer), Local: a.Local.Unmap(), IfIndex: a.IfIndex}, nil
	case *net.UDPAddr:
		return Addr{Peer: addrPortOf(a)}, nil
	}
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return Addr{}, &net.AddrError{Err: "not an IP address and a port", Addr: a.String()}
	}
	return Addr{Peer: unmap(p)}, nil
}

// addrPortOf returns a as an AddrPort, or the zero AddrPort when a is no
// *net.UDPAddr. The zone is kept as it is.
func addrPortOf(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok || u == nil {
		return netip.AddrPort{}
	}
	return unmap(u.AddrPort())
}

// zoneIndex returns the interface index that a zone stands for: decimal, or an
// interface's name.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}
