//go:build linux

package integration

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestInit: with what init writes, flows leave as they do without srcproxy, and each
// line that is off can be taken on.
func TestInit(t *testing.T) {
	r := newRig(t)
	path := r.path("new.toml")
	if res := r.program("init", "-c", path); res.Err != nil {
		t.Fatal(res)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`wan0     = ["198.51.100.1", "2001:db8:1::1"]`,
		`#wan0-2  = { ip = "198.51.100.10-198.51.100.41" }`,
		`#wan0-3  = "2001:db8:1::10"`,
	} {
		if !strings.Contains(string(text), "\n"+line+" ") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
	if res := r.program("check", "--strict", "-c", path); res.Err != nil {
		t.Errorf("check: %v", res)
	}
	for _, wild := range []string{"0.0.0.0:7", "[::]:7"} {
		r.Server.GreetTCP(t, wild)
	}
	r.serve(strings.ReplaceAll(string(text), "#wan0-", "wan0-"))
	for dst, want := range map[netip.Addr]netip.Addr{nstest.ServerV4(9): nstest.ProxyV4(1), nstest.ServerV6(9): nstest.ProxyV6(1)} {
		c, err := r.through("127.0.0.1:1080", at(dst, 7))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAddr(c); err != nil || got != want {
			t.Errorf("to %v: from %v, %v, want from %v", dst, got, err, want)
		}
		c.Close()
	}
}
