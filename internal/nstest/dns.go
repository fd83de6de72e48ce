//go:build linux

package nstest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// ServeDNS answers on DNSServer as ServeDNSOn does, and returns the Server that is asked
// over UDP.
func (n *Namespace) ServeDNS(t testing.TB, names map[string][]netip.Addr) *Server {
	t.Helper()
	udp, _ := n.ServeDNSOn(t, DNSServer(), names)
	return udp
}

// ServeDNSOn answers on port 53 of an address: the addresses of names (keys in lower
// case, without the last dot), and NXDOMAIN for every other name. What is too long for
// UDP is cut off there, and whole over TCP. The Peers of the Servers are who asked.
func (n *Namespace) ServeDNSOn(t testing.TB, a netip.Addr, names map[string][]netip.Addr) (udp, tcp *Server) {
	t.Helper()
	at := netip.AddrPortFrom(a, 53).String()
	udp = n.ServeUDP(t, at, func(_, _ netip.AddrPort, b []byte) []byte { return answerDNS(b, names, false) })
	tcp = n.ServeTCP(t, at, func(c *net.TCPConn) {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		answer := answerDNS(b, names, true)
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)) // the client may be gone
	})
	return udp, tcp
}

// answerDNS is the answer to the query b, nil when b is none.
func answerDNS(b []byte, names map[string][]netip.Addr, whole bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	addrs, known := names[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	limit := 512
	for _, r := range m.Additionals {
		if r.Header.Type == dnsmessage.TypeOPT {
			limit = max(limit, int(r.Header.Class))
		}
	}
	m.Response, m.RecursionAvailable = true, true
	m.Additionals = nil // no EDNS
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		if body := resource(q.Type, a); body != nil {
			h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: body})
		}
	}
	packed, err := m.Pack()
	if err == nil && len(packed) > limit && !whole {
		m.Truncated, m.Answers = true, nil
		packed, err = m.Pack()
	}
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
