//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
	"github.com/srcproxy/srcproxy/internal/socks"
)

const sameConfig = `
default = "same"
[[rules]]
to  = "203.0.113.66"
use = "deny"
[[rules]]
map = { "203.0.113.2" = "same" }
[[listen]]
name  = "all"
mixed = ":1080"
allow = ["127.0.0.0/8", "198.51.100.0/24", "2001:db8::/32"]
[[listen]]
name  = "eleven"
mixed = "198.51.100.11:1081"
allow = "198.51.100.0/24"
[[listen]]
tcp   = ":2525"
to    = "203.0.113.1:80"
use   = "same"
allow = "198.51.100.0/24"
[[listen]]
udp   = ":5300"
to    = "203.0.113.1:7"
use   = "same"
allow = "198.51.100.0/24"
`

// asks is a client on the far side, which reaches the proxy at all its addresses.
type asks struct {
	*rig
	from *nstest.Namespace
}

func (a asks) dial(t *testing.T, address netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := a.from.Dial(net.Dialer{Timeout: patience}, "tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c.(*net.TCPConn)
}

// connect opens a connection to dst by the proxy at asked.
func (a asks) connect(t *testing.T, asked, dst netip.AddrPort) (*net.TCPConn, error) {
	t.Helper()
	c := a.dial(t, asked)
	_, err := handshake(c, connect5(dst))
	return c, err
}

func greeting(t *testing.T, c net.Conn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Errorf("no greeting: %v", err)
	}
	return strings.TrimSpace(line)
}

// TestSame leaves by the address that the client connected to: by TCP and UDP, by proxies
// and forwards, on addresses of interfaces and on those of a prefix that is routed here.
func TestSame(t *testing.T) {
	r := newRig(t)
	r.Server.GreetTCP(t, "[::]:80")
	r.Server.GreetTCP(t, "0.0.0.0:80")
	tellUDP(t, r.Server)
	leaks := r.Server.CountLeaks(t, "wan0")
	r.serve(sameConfig)
	a := asks{r, r.Server}
	for i := 10; i <= 13; i++ {
		routed := netip.MustParseAddr(fmt.Sprintf("2001:db8:64::%d", i)) // on no interface
		for _, asked := range []netip.Addr{nstest.ProxyV4(i), nstest.ProxyV6(i), routed} {
			leaks.Allow(asked)
			t.Run(asked.String(), func(t *testing.T) { a.sameAt(t, asked) })
		}
	}
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets from addresses that nobody asked: %q", n, details)
	}
}

func (a asks) sameAt(t *testing.T, asked netip.Addr) {
	t.Helper()
	targets := []netip.Addr{nstest.ServerV4(1), nstest.ServerV4(2)}
	if asked.Is6() {
		targets = []netip.Addr{nstest.ServerV6(1), nstest.ServerV6(2)}
	}
	for _, dst := range targets {
		c, err := a.connect(t, at(asked, 1080), at(dst, 80))
		if err != nil {
			t.Fatal(err)
		}
		if got := greeting(t, c); got != asked.String() {
			t.Errorf("CONNECT to %v came from %s", dst, got)
		}
	}
	a.associateAt(t, asked, targets[0])
	a.bindAt(t, asked, targets[0])
	if asked.Is6() {
		return
	}
	if got := greeting(t, a.dial(t, at(asked, 2525))); got != asked.String() {
		t.Errorf("the TCP forward came from %s", got)
	}
	u, err := a.from.Dial(net.Dialer{}, "udp", at(asked, 5300).String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got := toldUDP(t, u, "who am I"); got != asked.String() {
		t.Errorf("the UDP forward came from %s", got)
	}
}

// toldUDP sends a datagram and returns the answer.
func toldUDP(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience)) // of an open socket
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	n, err := c.Read(b)
	if err != nil {
		t.Error(err)
	}
	return string(b[:n])
}

func (a asks) associateAt(t *testing.T, asked, dst netip.Addr) {
	t.Helper()
	relay, err := handshake(a.dial(t, at(asked, 1080)), []byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	u, err := a.from.Dial(net.Dialer{}, "udp", relay.String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	got := toldUDP(t, u, string(socks.AppendDatagram(nil, socks.Addr{Addr: at(dst, 7)}, []byte("who am I"))))
	d, err := socks.ParseDatagram([]byte(got))
	if err != nil || string(d.Payload) != asked.String() {
		t.Errorf("the datagram came from %s, %v", d.Payload, err)
	}
}

func (a asks) bindAt(t *testing.T, asked, peer netip.Addr) {
	t.Helper()
	c := a.dial(t, at(asked, 1080))
	request := connect5(at(peer, 0))
	request[1] = 2 // BIND
	where, err := handshake(c, request)
	if err != nil || where.Addr() != asked {
		t.Fatalf("BIND is at %v, %v", where, err)
	}
	connectBack(t, a.rig, peer, where)
	if from, err := readReply5(c); err != nil || from.Addr() != peer {
		t.Errorf("the peer of BIND is %v, %v, want %v", from, err, peer)
	}
}

// TestSameRefused: loopback and the other family are no addresses to leave by, and an
// address that goes away takes its connections along.
func TestSameRefused(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:80")
	r.Server.EchoTCP(t, "[::]:80")
	r.serve(sameConfig)
	a := asks{r, r.Server}
	dst := at(nstest.ServerV4(1), 80)
	if _, err := r.through("127.0.0.1:1080", dst); err != refused(replyRuleset) {
		t.Errorf("on loopback: %v, want %v", err, refused(replyRuleset))
	}
	if _, err := a.connect(t, at(nstest.ProxyV4(10), 1080), at(nstest.ServerV6(1), 80)); err != refused(replyNetwork) {
		t.Errorf("to the other family: %v, want %v", err, refused(replyNetwork))
	}
	for i, want := range []string{"the client connected to 127.0.0.1, which is loopback", "the client connected to 198.51.100.10, and the destination is IPv6"} {
		if got := r.log.wait(t, 2, "flow")[i].text("err"); !strings.Contains(got, want) {
			t.Errorf("err is %q, want %q in it", got, want)
		}
	}
	if got := s.Peers(); len(got) != 0 {
		t.Errorf("the server was called from %v", got)
	}
	for _, tt := range []struct{ listener, want string }{
		{"eleven", "from 198.51.100.11   same"},
		{"all", "which address the client connected to is not known"},
	} {
		if got := r.program("explain", dst.String(), "--listener", tt.listener, "-c", r.path("config.toml")); !strings.Contains(got.Stdout, tt.want) {
			t.Errorf("explain at %s: %v, want %q in it", tt.listener, got, tt.want)
		}
	}

	a.gone(t, dst)
}

// gone has the address of a client's connection go away, one of an interface and one of a
// prefix.
func (a asks) gone(t *testing.T, dst netip.AddrPort) {
	t.Helper()
	nstest.Need(t, "ip")
	r := a.rig
	routed, dst6 := netip.MustParseAddr("2001:db8:64::13"), at(nstest.ServerV6(1), 80)
	c6, err := a.connect(t, at(routed, 1080), dst6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryEcho(c6, "x"); err != nil {
		t.Fatal(err)
	}
	c, err := a.connect(t, at(nstest.ProxyV4(13), 1080), dst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryEcho(c, "x"); err != nil {
		t.Fatal(err)
	}
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV4(13), 24))
	r.log.wait(t, 3, "flow")
	if res := r.run("ip", "-6", "route", "del", "local", "2001:db8:64::/64", "dev", "lo"); res.Err != nil {
		t.Fatal(res)
	}
	for _, l := range r.log.wait(t, 4, "flow")[2:] {
		if !strings.Contains(l.text("err"), "source address went away") || l.text("source") != "same" {
			t.Errorf("a flow whose address has gone ended with %v", l)
		}
	}
}
