package server

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/socks"
)

// associate asks the proxy for an association and returns its connection and where
// datagrams are to be sent.
func associate(t *testing.T, proxy string) (net.Conn, netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2+4+4+2)
	for n := 0; n < len(b); {
		k, err := c.Read(b[n:])
		if err != nil {
			t.Fatalf("%x, %v", b[:n], err)
		}
		n += k
	}
	if b[3] != 0 {
		t.Fatalf("the answer is %x", b)
	}
	return c, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), uint16(b[10])<<8|uint16(b[11]))
}

// TestAssociate relays a datagram from the source of the rules, and ends with the
// connection.
func TestAssociate(t *testing.T) {
	p := run(t, mixed("127.0.0.1:0"))
	far, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.11:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	dst := far.LocalAddr().(*net.UDPAddr).AddrPort()
	c, relay := associate(t, p.addrs[0].String())
	u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	for _, s := range []interface{ SetDeadline(time.Time) error }{u, far} {
		if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.Write(socks.AppendDatagram(nil, socks.Addr{Addr: dst}, []byte("ping"))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := far.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != "ping" || from.Addr() != netip.MustParseAddr("127.0.0.2") {
		t.Fatalf("the far end got %q from %v, %v, want the ping from 127.0.0.2", b[:n], from, err)
	}
	if _, err := far.WriteToUDPAddrPort([]byte("pong"), from); err != nil {
		t.Fatal(err)
	}
	n, err = u.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := socks.ParseDatagram(b[:n]); err != nil || string(d.Payload) != "pong" || d.Dst.Addr != dst {
		t.Errorf("the client got %q, %v, want the pong from %v", b[:n], err, dst)
	}
	_ = c.Close()
	l := p.log.wait(t, "flow", 1)[0]
	if l.text("in") != "4" || l.text("out") != "4" {
		t.Errorf("log line %v, want 4 bytes both ways", l)
	}
}

// TestAssociateDrain ends an association at the limit of the drain.
func TestAssociateDrain(t *testing.T) {
	p := run(t, strings.Replace(mixed("127.0.0.1:0"), `drain = "20s"`, `drain = "50ms"`, 1))
	c, _ := associate(t, p.addrs[0].String())
	p.end()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came, want the end", n)
	}
}

// TestAssociateReload judges what an association sends after a reload by the new rules.
func TestAssociateReload(t *testing.T) {
	proxy := freeAddr(t)
	p := run(t, mixed(proxy))
	far, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.11:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	_, relay := associate(t, proxy)
	p.change("default = \"deny\"\n[[listen]]\nmixed = \""+proxy+"\"\n", "reloaded")
	u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	dst := socks.Addr{Addr: far.LocalAddr().(*net.UDPAddr).AddrPort()}
	if _, err := u.Write(socks.AppendDatagram(nil, dst, []byte("ping"))); err != nil {
		t.Fatal(err)
	}
	l := p.log.wait(t, "flow", 1)[0]
	if !strings.Contains(l.text("err"), "denied") {
		t.Errorf("log line %v, want a refusal", l)
	}
	if err := far.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, from, err := far.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes came from %v", n, from)
	}
}
