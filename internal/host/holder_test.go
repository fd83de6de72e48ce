package host

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestPortHolder(t *testing.T) {
	listen := func(network, addr string) netip.AddrPort {
		t.Helper()
		var a net.Addr
		if strings.HasPrefix(network, "tcp") {
			l, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			a = l.Addr()
		} else {
			c, err := net.ListenPacket(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			a = c.LocalAddr()
		}
		return netip.MustParseAddrPort(a.String())
	}
	for _, tt := range []struct{ network, addr, ask string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", "127.0.0.2:0", "0.0.0.0"},
		{"tcp4", "0.0.0.0:0", "127.0.0.3"},
		{"tcp6", "[::1]:0", "::"},
		{"tcp", "[::]:0", "127.0.0.1"},
		{"udp4", "127.0.0.1:0", "127.0.0.1"},
		{"udp6", "[::1]:0", "::1"},
	} {
		a := listen(tt.network, tt.addr)
		ask := netip.AddrPortFrom(netip.MustParseAddr(tt.ask), a.Port())
		h, ok := PortHolder(tt.network[:3], ask)
		if !ok || h.PID != os.Getpid() || h.Command == "" || h.UID != os.Getuid() {
			t.Errorf("%s %v asked as %v: got %+v, %v, want this process", tt.network, a, ask, h, ok)
		}
	}
	a := listen("tcp4", "127.0.0.1:0")
	for _, other := range []string{"127.0.0.9", "::1"} {
		if h, ok := PortHolder("tcp", netip.AddrPortFrom(netip.MustParseAddr(other), a.Port())); ok {
			t.Errorf("%s is held by %v, who has 127.0.0.1", other, h)
		}
	}
}

func TestHolderString(t *testing.T) {
	for h, want := range map[Holder]string{
		{PID: 812, Command: "nginx"}: "pid 812 (nginx)",
		{UID: 33}:                    "a process of user 33",
	} {
		if got := h.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzParseSocket looks for lines on which the parser panics.
func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0")
	f.Add("  12: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9 1")
	f.Fuzz(func(t *testing.T, line string) {
		s, ok := parseSocket(line)
		if ok && !s.local.Addr().IsValid() {
			t.Errorf("%q: got %+v", line, s)
		}
	})
}
