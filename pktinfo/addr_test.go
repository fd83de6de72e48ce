//go:build linux

package pktinfo_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/srcproxy/srcproxy/pktinfo"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

func udpClient(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c
}

// portAt returns c's port at address host.
func portAt(c interface{ LocalAddr() net.Addr }, host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

// TestArrivalAddress asks a wildcard socket at each of its addresses; each
// answer must come from the address asked.
func TestArrivalAddress(t *testing.T) {
	var v4 []string
	for i := 2; i <= 9; i++ {
		v4 = append(v4, fmt.Sprintf("127.0.0.%d", i))
	}
	tests := []struct {
		name, network, address string
		asked                  []string
	}{
		{"v4", "udp4", "0.0.0.0:0", v4},
		{"v6", "udp6", "[::]:0", []string{"::1"}},
		{"dual-stack", "udp", "[::]:0", append([]string{"::1"}, v4...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := listen(t, &pktinfo.ListenConfig{}, tt.network, tt.address)
			client := udpClient(t)
			for _, host := range tt.asked {
				askAndAnswer(t, server, client, host)
			}
		})
	}
}

// TestBroadcast asks at an address that cannot be a source: the answer comes
// from the host's own.
func TestBroadcast(t *testing.T) {
	for _, network := range []string{"udp4", "udp"} {
		server := listen(t, &pktinfo.ListenConfig{}, network, ":0")
		client := listen(t, &pktinfo.ListenConfig{}, "udp4", "127.0.0.1:0")
		asked := &pktinfo.Addr{Peer: portAt(server, "127.255.255.255")}
		write(t, client, "who is there", asked)
		_, from := read(t, server)
		if got := from.(*pktinfo.Addr).Local; got != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%s: Local is %v", network, got)
		}
		write(t, server, "I am", from)
		if got, from := read(t, client); got != "I am" || from.(*pktinfo.Addr).Peer != portAt(server, "127.0.0.1") {
			t.Errorf("%s: got %q from %v", network, got, from)
		}
	}
}

func askAndAnswer(t *testing.T, server *pktinfo.Conn, client *net.UDPConn, host string) {
	t.Helper()
	want := portAt(server, host)
	if _, err := client.WriteToUDPAddrPort([]byte("ask"), want); err != nil {
		t.Fatal(err)
	}
	m := pktinfo.Message{Buf: make([]byte, 10)}
	if err := server.ReadMsg(&m); err != nil {
		t.Fatal(err)
	}
	if m.Addr.Local != want.Addr() || m.Addr.Peer.Addr().Is4In6() || m.Addr.IfIndex == 0 {
		t.Errorf("asked %v: Addr is %+v", host, m.Addr)
	}
	if _, err := server.WriteTo([]byte("answer"), &m.Addr); err != nil {
		t.Fatal(err)
	}
	_, from, err := client.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != want {
		t.Errorf("asked %v, answered from %v", want, from)
	}
}

// TestMappedReference notes why the control messages are our own: x/net's
// ipv6 package drops an IPv4 source on a dual-stack socket. When this test
// fails the reason has gone.
func TestMappedReference(t *testing.T) {
	u := udpClient(t)
	p := ipv6.NewPacketConn(u)
	if err := p.SetControlMessage(ipv6.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	client := udpClient(t)
	if _, err := client.WriteToUDPAddrPort([]byte("ask"), portAt(u, "127.0.0.3")); err != nil {
		t.Fatal(err)
	}
	_, cm, from, err := p.ReadFrom(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteTo([]byte("answer"), &ipv6.ControlMessage{Src: cm.Dst}, from); err != nil {
		t.Fatal(err)
	}
	_, answered, err := client.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	if got := answered.Addr().Unmap(); got == netip.MustParseAddr("127.0.0.3") {
		t.Errorf("x/net answered from %v: it has learnt about mapped addresses", got)
	}
}

func TestSourceOfWrites(t *testing.T) {
	tests := []struct {
		name, network, address string
		peer, local, want      string
		err                    error
	}{
		{"chosen on wildcard", "udp4", "0.0.0.0:0", "127.0.0.1", "127.0.0.3", "127.0.0.3", nil},
		{"chosen on dual-stack", "udp", ":0", "127.0.0.1", "127.0.0.3", "127.0.0.3", nil},
		{"mapped spelling", "udp", ":0", "::ffff:127.0.0.1", "::ffff:127.0.0.3", "127.0.0.3", nil},
		{"mapped on v4 socket", "udp4", ":0", "::ffff:127.0.0.1", "::ffff:127.0.0.3", "127.0.0.3", nil},
		{"none on bound", "udp4", "127.0.0.4:0", "127.0.0.1", "", "127.0.0.4", nil},
		{"v6", "udp", ":0", "::1", "::1", "::1", nil},
		{"not here, v4", "udp4", ":0", "127.0.0.1", "192.0.2.1", "", unix.ENETUNREACH},
		{"not here, dual-stack", "udp", ":0", "127.0.0.1", "192.0.2.1", "", unix.ENETUNREACH},
		{"not here, v6", "udp", ":0", "::1", "2001:db8::1", "", unix.EINVAL},
		{"other family", "udp", ":0", "127.0.0.1", "::1", "", unix.EINVAL},
		{"other family, mapped", "udp", ":0", "::1", "127.0.0.3", "", unix.EINVAL},
		{"v6 peer of v4 socket", "udp4", ":0", "::1", "", "", unix.EAFNOSUPPORT},
		{"no peer", "udp4", ":0", "", "127.0.0.3", "", unix.EDESTADDRREQ},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := listen(t, &pktinfo.ListenConfig{}, tt.network, tt.address)
			client := udpClient(t)
			var a pktinfo.Addr
			if tt.peer != "" {
				a.Peer = portAt(client, tt.peer)
			}
			if tt.local != "" {
				a.Local = netip.MustParseAddr(tt.local)
			}
			_, err := c.WriteTo([]byte("x"), &a)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if tt.err != nil {
				wantSource(t, err, a.Local.Unmap())
				return
			}
			_, from, err := client.ReadFromUDPAddrPort(make([]byte, 10))
			if err != nil {
				t.Fatal(err)
			}
			if got := from.Addr().Unmap(); got != netip.MustParseAddr(tt.want) {
				t.Errorf("sent from %v, want %v", got, tt.want)
			}
		})
	}
}

func wantSource(t *testing.T, err error, local netip.Addr) {
	t.Helper()
	var oe *net.OpError
	if !errors.As(err, &oe) || oe.Source == nil {
		t.Fatalf("got %#v, want a net.OpError with Source", err)
	}
	if got := oe.Source.(*net.UDPAddr).AddrPort().Addr().Unmap(); local.IsValid() && got != local {
		t.Errorf("Source is %v, want %v", got, local)
	}
}

func TestWriteToKinds(t *testing.T) {
	c := listen(t, &pktinfo.ListenConfig{}, "udp", ":0")
	self := portAt(c, "127.0.0.1")
	good := []net.Addr{&pktinfo.Addr{Peer: self}, net.UDPAddrFromAddrPort(self), textAddr(self.String())}
	for _, a := range good {
		write(t, c, "x", a)
		if got, _ := read(t, c); got != "x" {
			t.Errorf("%T: got %q", a, got)
		}
	}
	for _, a := range []net.Addr{nil, (*pktinfo.Addr)(nil), (*net.UDPAddr)(nil), textAddr("nowhere"), textAddr("localhost:1")} {
		if _, err := c.WriteTo([]byte("x"), a); err == nil {
			t.Errorf("%T %v: no error", a, a)
		}
	}
}

type textAddr string

func (textAddr) Network() string  { return "udp" }
func (a textAddr) String() string { return string(a) }

func TestConnected(t *testing.T) {
	server := udpClient(t)
	u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(portAt(server, "127.0.0.1")))
	if err != nil {
		t.Fatal(err)
	}
	c, err := pktinfo.New(u)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write(t, c, "to the far end", nil)
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WriteToUDPAddrPort([]byte("back"), from); err != nil {
		t.Fatal(err)
	}
	if got, a := read(t, c); got != "back" || a.(*pktinfo.Addr).Peer != portAt(server, "127.0.0.1") {
		t.Errorf("got %q from %v", got, a)
	}
	// As with net.UDPConn, a refusal is the next call's error.
	_ = server.Close()
	write(t, c, "refused", nil)
	if _, _, err := c.ReadFrom(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v, want ECONNREFUSED", err)
	}
}

func TestListen(t *testing.T) {
	for _, network := range []string{"tcp", "unixgram", "ip4:1", ""} {
		if _, err := pktinfo.Listen(network, ":0"); !errors.As(err, new(*net.OpError)) {
			t.Errorf("%q: got %v", network, err)
		}
	}
	if _, err := pktinfo.Listen("udp", "192.0.2.1:0"); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("got %v, want EADDRNOTAVAIL", err)
	}
	if _, err := pktinfo.New(nil); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v, want EINVAL", err)
	}
	var lc pktinfo.ListenConfig
	for _, a := range []string{"127.0.0.8:0", "[::1]:0", "[::ffff:127.0.0.8]:0"} {
		c, err := lc.ListenAddrPort(t.Context(), "udp", netip.MustParseAddrPort(a))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); got.Unmap() != netip.MustParseAddrPort(a).Addr().Unmap() {
			t.Errorf("%v: bound to %v", a, got)
		}
		_ = c.Close()
	}
	c, err := lc.ListenAddrPort(t.Context(), "udp", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestFreeBind(t *testing.T) {
	lc := pktinfo.ListenConfig{FreeBind: true}
	for _, a := range []string{"192.0.2.1:0", "[2001:db8::1]:0"} {
		c, err := lc.ListenAddrPort(t.Context(), "udp", netip.MustParseAddrPort(a))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}

func TestTransparent(t *testing.T) {
	inNamespace(t, 65536, func(t *testing.T) { // IP_TRANSPARENT needs CAP_NET_ADMIN
		c := listen(t, &pktinfo.ListenConfig{Transparent: true}, "udp", ":0")
		client := udpClient(t)
		for _, host := range []string{"127.0.0.9", "::1"} {
			want := portAt(c, host)
			if _, err := client.WriteToUDPAddrPort([]byte("x"), want); err != nil {
				t.Fatal(err)
			}
			m := pktinfo.Message{Buf: make([]byte, 10)}
			if err := c.ReadMsg(&m); err != nil {
				t.Fatal(err)
			}
			if m.OrigDst != want || m.Addr.Local != want.Addr() {
				t.Errorf("got OrigDst %v, Addr %+v, want %v", m.OrigDst, m.Addr, want)
			}
		}
	})
}

func TestMTUDiscover(t *testing.T) {
	tests := map[pktinfo.MTUDiscover]int{
		pktinfo.MTUDiscoverDefault: unix.IP_PMTUDISC_WANT,
		pktinfo.MTUDiscoverDont:    unix.IP_PMTUDISC_DONT,
		pktinfo.MTUDiscoverWant:    unix.IP_PMTUDISC_WANT,
		pktinfo.MTUDiscoverDo:      unix.IP_PMTUDISC_DO,
		pktinfo.MTUDiscoverProbe:   unix.IP_PMTUDISC_PROBE,
	}
	for v, want := range tests {
		c := listen(t, &pktinfo.ListenConfig{MTUDiscover: v}, "udp", ":0")
		got := [2]int{option(t, c, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER), option(t, c, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER)}
		if diff := cmp.Diff([2]int{want, want}, got); diff != "" {
			t.Errorf("%d: -want +got\n%s", v, diff)
		}
	}
}

func option(t *testing.T, c *pktinfo.Conn, level, opt int) (v int) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var oerr error
	if err := rc.Control(func(fd uintptr) { v, oerr = unix.GetsockoptInt(int(fd), level, opt) }); err != nil || oerr != nil {
		t.Fatal(err, oerr)
	}
	return v
}

// TestControlReference compares the control messages with x/net's, where
// those are right: one family for a socket.
func TestControlReference(t *testing.T) {
	for _, ifIndex := range []int{0, 1, 70000} {
		a4, a6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
		want4 := (&ipv4.ControlMessage{Src: a4.AsSlice(), IfIndex: ifIndex}).Marshal()
		want6 := (&ipv6.ControlMessage{Src: a6.AsSlice(), IfIndex: ifIndex}).Marshal()
		if diff := cmp.Diff(want4, pktinfo.AppendControl(nil, a4, ifIndex, 0)); diff != "" {
			t.Errorf("IPv4, interface %d: -x/net +ours\n%s", ifIndex, diff)
		}
		if diff := cmp.Diff(want6, pktinfo.AppendControl(nil, a6, ifIndex, 0)); diff != "" {
			t.Errorf("IPv6, interface %d: -x/net +ours\n%s", ifIndex, diff)
		}
	}
}
