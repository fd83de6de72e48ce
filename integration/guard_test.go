//go:build linux

package integration

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const guardConfig = `
default = "wan"

[sources]
wan  = ["198.51.100.10", "2001:db8:1::10"]
wide = ["198.51.100.11", "2001:db8:1::11"]

[[rules]]
name = "wide"
to   = ["0.0.0.0/0", "::/0"]
port = 7
use  = "wide"

[[rules]]
name = "one door"
to   = "127.0.0.8"
use  = "127.0.0.1"

[[listen]]
mixed = "192.0.2.1:1080"
allow = "192.0.2.0/24"
`

// TestGuard asks from another host for the addresses of the proxy host itself:
// no rule lies inside their ranges, so they are refused, whatever wider rules
// say.
func TestGuard(t *testing.T) {
	r := newRig(t, nstest.WithClient)
	victims := []*nstest.Server{r.Proxy.EchoTCP(t, "0.0.0.0:7"), r.Proxy.EchoTCP(t, "[::]:7")}
	r.serve(guardConfig)
	for _, a := range []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), netip.MustParseAddr("0.0.0.0"), netip.IPv6Unspecified(),
		nstest.ProxyV4(1), nstest.ProxyV4(10), nstest.ProxyV6(10), nstest.LanV4(1), nstest.LanV4(8), nstest.LanV6(1),
		netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255"),
		netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1"),
	} {
		want := refused(replyRuleset)
		if a.IsUnspecified() {
			want = replyHost // no destination at all
		}
		if _, err := r.through("192.0.2.1:1080", at(a, 7)); err != want {
			t.Errorf("%v: %v, want %v", a, err, want)
		}
	}
	for _, name := range []string{"localhost", "echo.example", "v4.evil.example", "v6.evil.example", "zero.evil.example"} {
		c := r.dial("192.0.2.1:1080")
		if _, err := handshake(c, connect5Name(name, 7)); err == nil {
			t.Errorf("%s is granted", name)
		}
	}
	for _, v := range victims {
		if peers := v.Peers(); len(peers) > 0 {
			t.Errorf("the proxy host was called by %v", peers)
		}
	}
	// Port 7 is decided by the wide rule; another port by the one that lies inside.
	door := r.Proxy.EchoTCP(t, "127.0.0.8:8")
	if _, err := r.through("192.0.2.1:1080", door.Addr); err != nil {
		t.Errorf("a rule inside the range: %v", err)
	}
}

// TestOpenListener wants a listener for the world to be refused, unless the
// file says that it is meant.
func TestOpenListener(t *testing.T) {
	r := newRig(t)
	const open = "default = \"deny\"\n[[listen]]\nmixed = \"192.0.2.1:1080\"\n"
	got := r.program("check", "-c", r.write("config.toml", open))
	if got.Err == nil || !strings.Contains(got.Stdout+got.Stderr, "config.toml:3") {
		t.Errorf("check: got %v\nwant an error at config.toml:3", got)
	}
	r.launch(open)
	if err := r.proc.Wait(patience); err == nil {
		t.Error("serve went well")
	}
	got = r.program("check", "-c", r.write("config.toml", open+"open = true\n"))
	if got.Err != nil {
		t.Errorf("check with open = true: %v", got)
	}
}

// TestAllow wants clients outside of allow to get nothing.
func TestAllow(t *testing.T) {
	r := newRig(t, nstest.WithClient)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.serve("default = \"198.51.100.10\"\n[[listen]]\nmixed = \"192.0.2.1:1080\"\nallow = \"192.0.2.64/27\"\n")
	if _, err := r.through("192.0.2.1:1080", at(nstest.ServerV4(1), 7)); err == nil {
		t.Error("a client outside of allow is served")
	}
	if e := r.reload("default = \"198.51.100.10\"\n[[listen]]\nmixed = \"192.0.2.1:1080\"\nallow = \"192.0.2.100\"\n"); e.text("msg") != "reloaded" {
		t.Fatalf("reload: %v", e)
	}
	if _, err := r.through("192.0.2.1:1080", at(nstest.ServerV4(1), 7)); err != nil {
		t.Errorf("a client inside: %v", err)
	}
	wantSources(t, s, nstest.ProxyV4(10), 1)
}
