package server

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/udprelay"
)

// rangeOf returns a configuration with a range of n ports from lo on.
func rangeOf(lo, n int) string {
	return fmt.Sprintf(`
default = "deny"
[sources]
rtp = "127.0.0.2"
[[listen]]
name = "media"
udp = "127.0.0.1:%d-%d"
to = "127.0.0.20"
use = "rtp"
source_port = "same"
`, lo, lo+n-1)
}

// freeRange returns the first of n ports that are free on the addresses.
func freeRange(t *testing.T, n int, addrs ...string) int {
	t.Helper()
	for lo := 20000; lo < 30000; lo += n {
		if allFree(lo, n, addrs) {
			return lo
		}
	}
	t.Fatal("no free ports")
	return 0
}

func allFree(lo, n int, addrs []string) bool {
	for _, a := range addrs {
		for port := lo; port < lo+n; port++ {
			c, err := net.ListenPacket("udp", fmt.Sprintf("%s:%d", a, port))
			if err != nil {
				return false
			}
			_ = c.Close() // nothing was sent
		}
	}
	return true
}

// TestRange serves a range of ports, and makes it larger and smaller while a flow goes on.
func TestRange(t *testing.T) {
	lo := freeRange(t, 20, "127.0.0.1", "127.0.0.2", "127.0.0.20")
	p := run(t, rangeOf(lo, 10))
	if n := len(p.addrs); n != 10 {
		t.Fatalf("%d addresses", n)
	}
	p.log.wait(t, "ready", 1)
	lines := p.log.all("listening")
	if want := fmt.Sprintf("127.0.0.1:%d-%d", lo, lo+9); len(lines) != 1 || lines[0].text("addr") != want {
		t.Errorf("log lines %v, want one with %s", lines, want)
	}
	client, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", lo+3))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }() // nothing is left to send
	far, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 20), Port: lo + 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }() // nothing is left to send
	want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), uint16(lo+3))
	for i, n := range []int{10, 20, 5} {
		p.change(rangeOf(lo, n), "reloaded")
		if _, err := client.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		_ = far.SetReadDeadline(time.Now().Add(limit)) // of an open socket
		b := make([]byte, 10)
		_, from, err := far.ReadFromUDPAddrPort(b)
		if err != nil || from != want || b[0] != byte(i) {
			t.Fatalf("got %d from %v, %v, want %d from %v", b[0], from, err, i, want)
		}
	}
	if n := len(p.log.all("flow")); n != 0 {
		t.Errorf("%d flows ended", n)
	}
}

// TestRangeTooLarge refuses what would leave no descriptors for flows.
func TestRangeTooLarge(t *testing.T) {
	kept, free := &udprelay.Settings{SamePort: true}, new(udprelay.Settings)
	for _, tt := range []struct {
		name     string
		settings *udprelay.Settings
		ports    uint16
		ok       bool
	}{
		{"ports kept", kept, 37, true},
		{"too many ports kept", kept, 38, false},
		{"free ports", free, 75, true},
		{"too many free ports", free, 76, false},
	} {
		p := &plan{udp: make(map[netip.AddrPort]*udprelay.Settings)}
		for port := range tt.ports {
			p.udp[netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port+1)] = tt.settings
		}
		s := &server{maxFiles: 100}
		if err := s.affordable(p); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}
