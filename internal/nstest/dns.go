//go:build linux

package nstest

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// ServeDNS answers on DNSServer, over UDP: the addresses of names (keys in lower
// case, without the last dot), and NXDOMAIN for every other name. The Peers of
// the Server are who asked.
func (n *Namespace) ServeDNS(t testing.TB, names map[string][]netip.Addr) *Server {
	t.Helper()
	at := netip.AddrPortFrom(DNSServer(), 53).String()
	return n.ServeUDP(t, at, func(_, _ netip.AddrPort, b []byte) []byte { return answerDNS(b, names) })
}

// answerDNS is the answer to the query b, nil when b is none.
func answerDNS(b []byte, names map[string][]netip.Addr) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	addrs, known := names[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	m.Response, m.RecursionAvailable = true, true
	m.Additionals = nil // no EDNS
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		if body := resource(q.Type, a); body != nil {
			h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: body})
		}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func resource(t dnsmessage.Type, a netip.Addr) dnsmessage.ResourceBody {
	switch {
	case t == dnsmessage.TypeA && a.Is4():
		return &dnsmessage.AResource{A: a.As4()}
	case t == dnsmessage.TypeAAAA && a.Is6():
		return &dnsmessage.AAAAResource{AAAA: a.As16()}
	}
	return nil
}
