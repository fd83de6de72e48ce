//go:build linux

package nstest_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

func TestMain(m *testing.M) {
	nstest.Main(m, nstest.Setup{
		Hosts: []string{"203.0.113.9 server.example"},
		Prepare: func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "prepared"), nil, 0o600)
		},
	})
}

func TestMainPrepares(t *testing.T) {
	if _, err := os.Stat(filepath.Join(nstest.Dir(t), "prepared")); err != nil {
		t.Error(err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", "server.example")
	if err != nil || len(addrs) != 1 || addrs[0].Unmap() != nstest.ServerV4(9) {
		t.Errorf("server.example is %v, %v, want the line of Setup.Hosts", addrs, err)
	}
	ifs, err := net.Interfaces()
	if err != nil || len(ifs) != 1 || ifs[0].Flags&net.FlagUp == 0 {
		t.Errorf("interfaces are %v, %v, want the loopback alone, up", ifs, err)
	}
}

func from(a netip.Addr) net.Dialer {
	return net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))}
}

func TestServersRecordSource(t *testing.T) {
	top := nstest.NewTopology(t)
	for _, test := range []struct {
		name        string
		src, dst    netip.Addr
		wildcard    string
		kernelsPick bool
	}{
		{name: "v4", src: nstest.ProxyV4(12), dst: nstest.ServerV4(200), wildcard: "0.0.0.0:4007"},
		{name: "v6", src: nstest.ProxyV6(12), dst: nstest.ServerV6(40), wildcard: "[::]:6007"},
		{name: "v4 by the kernel", src: nstest.ProxyV4(1), dst: nstest.ServerV4(7), wildcard: "0.0.0.0:4008", kernelsPick: true},
		{name: "v6 by the kernel", src: nstest.ProxyV6(1), dst: nstest.ServerV6(7), wildcard: "[::]:6008", kernelsPick: true},
		{name: "v6 of the routed prefix", src: netip.MustParseAddr("2001:db8:64::5"), dst: nstest.ServerV6(7), wildcard: "[::]:6009"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "v6 of the routed prefix" {
				top.Proxy.AddAddr(t, "lo", netip.PrefixFrom(test.src, 128))
			}
			s := top.Server.GreetTCP(t, test.wildcard)
			d := from(test.src)
			if test.kernelsPick {
				d.LocalAddr = nil
			}
			c, err := top.Proxy.Dial(d, "tcp", netip.AddrPortFrom(test.dst, s.Addr.Port()).String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			line, err := bufio.NewReader(c).ReadString('\n')
			if want := test.src.String() + "\n"; err != nil || line != want {
				t.Errorf("greeting is %q, %v, want %q", line, err, want)
			}
			if got := s.Sources(); got[test.src] != 1 || len(got) != 1 {
				t.Errorf("sources are %v, want %v once", got, test.src)
			}
		})
	}
}

func TestEchoUDPAnswersFromTheAddressAsked(t *testing.T) {
	top := nstest.NewTopology(t)
	for _, test := range []struct {
		wildcard string
		src      netip.Addr
		dst      []netip.Addr
	}{
		{"0.0.0.0:7", nstest.ProxyV4(10), []netip.Addr{nstest.ServerV4(1), nstest.ServerV4(250)}},
		{"[::]:7", nstest.ProxyV6(10), []netip.Addr{nstest.ServerV6(1), nstest.ServerV6(33)}},
	} {
		s := top.Server.EchoUDP(t, test.wildcard)
		for _, dst := range test.dst {
			d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(test.src, 0))}
			c, err := top.Proxy.Dial(d, "udp", netip.AddrPortFrom(dst, 7).String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// A connected socket takes datagrams from dst alone.
			if got := exchange(t, c, "ping"); got != "ping" {
				t.Errorf("%v answered %q, want %q", dst, got, "ping")
			}
		}
		if got := s.Sources()[test.src]; got != len(test.dst) {
			t.Errorf("%d datagrams from %v, want %d", got, test.src, len(test.dst))
		}
	}
}

func exchange(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestClientReachesOnlyTheProxy(t *testing.T) {
	top := nstest.NewTopology(t, nstest.WithClient)
	s := top.Server.EchoTCP(t, "0.0.0.0:80")
	if c, err := top.Client.Dial(from(nstest.LanV4(100)), "tcp", nstest.ServerV4(1).String()+":80"); err == nil {
		c.Close()
		t.Errorf("the client reached the server directly, as %v", s.Peers())
	}
	for _, a := range []netip.Addr{nstest.LanV4(1), nstest.LanV4(8), nstest.LanV6(1), nstest.LanV6(8)} {
		p := top.Proxy.EchoTCP(t, netip.AddrPortFrom(a, 80).String())
		c, err := top.Client.Dial(net.Dialer{Timeout: 5 * time.Second}, "tcp", p.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := exchange(t, c, "x"); got != "x" {
			t.Errorf("got %q from %v", got, a)
		}
	}
}

func TestRunAndHTTP(t *testing.T) {
	nstest.Need(t, "curl")
	top := nstest.NewTopology(t)
	s := top.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	r := top.Proxy.Run(t, exec.Command("curl", "-sS", "--interface", nstest.ProxyV4(15).String(), "http://server.example/"))
	if want := nstest.ProxyV4(15).String(); r.Err != nil || r.Stdout != want {
		t.Errorf("got %v\nwant %s", r, want)
	}
	if got := s.Sources()[nstest.ProxyV4(15)]; got != 1 {
		t.Errorf("%d connections seen, want 1", got)
	}
	if r := top.Proxy.Run(t, exec.Command("false")); r.Err == nil {
		t.Error("false succeeded")
	}
}

func TestServeDNS(t *testing.T) {
	nstest.Need(t, "curl")
	top := nstest.NewTopology(t)
	top.Server.ServeDNS(t, map[string][]netip.Addr{"dns.example": {nstest.ServerV4(3), nstest.ServerV6(3)}})
	top.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	if r := top.Proxy.Run(t, exec.Command("curl", "-sS", "-4", "http://DNS.example/")); r.Stdout != nstest.ProxyV4(1).String() {
		t.Errorf("got %v", r)
	}
	r := top.Proxy.Run(t, exec.Command("curl", "-sS", "http://unknown.example/"))
	if !strings.Contains(r.Stderr, "Could not resolve host") {
		t.Errorf("got %v", r)
	}
}

func TestProcessEndsWithItsTest(t *testing.T) {
	nstest.Dir(t)
	var child *nstest.Process
	t.Run("inner", func(t *testing.T) {
		n := nstest.NewNamespace(t, "n")
		child = n.Start(t, exec.Command("sh", "-c", "sleep 1000 & sleep 1000"))
		if err := child.Wait(0); !errors.Is(err, nstest.ErrStillRunning) {
			t.Errorf("Wait is %v, want ErrStillRunning", err)
		}
	})
	select {
	case <-child.Done():
	default:
		t.Error("the process outlived its test")
	}
	// The sleep in the background is init's to wait for; it only must not run.
	for deadline := time.Now().Add(5 * time.Second); syscall.Kill(-child.Pid(), 0) == nil; {
		if time.Now().After(deadline) {
			t.Fatal("a grandchild outlived its test")
		}
		runtime.Gosched()
	}
}

func TestDoEndsWithTheError(t *testing.T) {
	n := nstest.NewNamespace(t, "n")
	want := errors.New("x")
	if got := n.Do(func() error { return want }); got != want {
		t.Errorf("Do is %v, want %v", got, want)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do is nil after the function ended its goroutine")
	}
}

func TestSysctl(t *testing.T) {
	a, b := nstest.NewNamespace(t, "a"), nstest.NewNamespace(t, "b")
	a.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40000")
	l, err := a.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.Addr().(*net.TCPAddr).Port; got != 40000 {
		t.Errorf("port is %d, want 40000", got)
	}
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	r := b.Run(t, exec.Command("cat", path))
	if strings.HasPrefix(r.Stdout, "40000") {
		t.Errorf("the other namespace has %s", r.Stdout)
	}
}

func TestCountLeaks(t *testing.T) {
	top := nstest.NewTopology(t)
	leaks := top.Server.CountLeaks(t, "wan0")
	s4, s6 := top.Server.EchoTCP(t, "0.0.0.0:80"), top.Server.EchoTCP(t, "[::]:86")
	leaks.Allow(nstest.ProxyV4(10), nstest.ProxyV6(10))
	leaks.AllowTo(nstest.ServerV4(2), netip.PrefixFrom(nstest.ProxyV4(11), 32))
	visit := func(src, dst netip.Addr, port uint16) {
		t.Helper()
		c, err := top.Proxy.Dial(from(src), "tcp", netip.AddrPortFrom(dst, port).String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	visit(nstest.ProxyV4(10), nstest.ServerV4(1), s4.Addr.Port())
	visit(nstest.ProxyV6(10), nstest.ServerV6(1), s6.Addr.Port())
	visit(nstest.ProxyV4(11), nstest.ServerV4(2), s4.Addr.Port())
	if n, details := leaks.Leaks(t); n != 0 {
		t.Fatalf("%d leaks from allowed sources: %q", n, details)
	}
	key := nstest.Packets{Src: nstest.ProxyV4(10), Dst: nstest.ServerV4(1), Protocol: "tcp"}
	if got := leaks.Seen(t)[key]; got < 3 {
		t.Errorf("%d packets of %v, want at least 3", got, key)
	}
	visit(nstest.ProxyV4(11), nstest.ServerV4(3), s4.Addr.Port())
	if n, details := leaks.Leaks(t); n < 3 || len(details) != 1 {
		t.Errorf("%d leaks, %q, want at least 3 of one kind", n, details)
	}
	visit(nstest.ProxyV6(1), nstest.ServerV6(1), s6.Addr.Port())
	if n, details := leaks.Leaks(t); n < 6 || len(details) != 2 {
		t.Errorf("%d leaks, %q, want at least 6 of two kinds", n, details)
	}
}

func TestDelAddr(t *testing.T) {
	top := nstest.NewTopology(t)
	for _, p := range []netip.Prefix{netip.PrefixFrom(nstest.ProxyV4(20), 24), netip.PrefixFrom(nstest.ProxyV6(20), 64)} {
		listen := func() error {
			l, err := top.Proxy.Listen("tcp", netip.AddrPortFrom(p.Addr(), 0).String())
			if err == nil {
				l.Close()
			}
			return err
		}
		top.Proxy.DelAddr(t, "wan0", p)
		if err := listen(); err == nil {
			t.Errorf("listening on %v, which was taken away", p)
		}
		top.Proxy.AddAddr(t, "wan0", p)
		if err := listen(); err != nil {
			t.Error(err)
		}
	}
}
