//go:build linux

package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestUDPAnswersFromTheAddressAsked asks each of 8 addresses of a wildcard
// listener from one socket: every answer comes from the address asked.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	for _, test := range []struct {
		name, listen string
		addr         func(int) netip.Addr
		client       string
		to           netip.Addr
		source       netip.Addr
	}{
		{"v4", `"0.0.0.0:5300"`, nstest.LanV4, "192.0.2.100:0", nstest.ServerV4(7), wan4},
		{"v6", `"[::]:5300"`, nstest.LanV6, "[2001:db8:8::100]:0", nstest.ServerV6(7), wan6},
		{"v4 of both", `":5300"`, nstest.LanV4, "192.0.2.100:0", nstest.ServerV4(7), wan4},
		{"v6 of both", `":5300"`, nstest.LanV6, "[2001:db8:8::100]:0", nstest.ServerV6(7), wan6},
		{"v6 to v4", `":5300"`, nstest.LanV6, "[2001:db8:8::100]:0", nstest.ServerV4(7), wan4},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nstest.WithClient)
			s := r.Server.EchoUDP(t, wildcard(test.to, 7))
			leaks := r.Server.CountLeaks(t, "wan0")
			leaks.Allow(test.source)
			r.serve(fmt.Sprintf("default = \"wan\"\n[sources]\nwan = [%q, %q]\n[[listen]]\nudp = %s\nto = %q\n",
				wan4, wan6, test.listen, at(test.to, 7)))
			c, err := r.Client.ListenPacket("udp", test.client)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for round := range 3 {
				askEach(t, c.(*net.UDPConn), test.addr, round)
			}
			if got := s.Sources(); len(got) != 1 || got[test.source] != 24 {
				t.Errorf("the server was called from %v, want 24 times from %v", got, test.source)
			}
			if n, details := leaks.Leaks(t); n != 0 {
				t.Errorf("%d packets from other addresses: %q", n, details)
			}
		})
	}
}

func wildcard(a netip.Addr, port uint16) string {
	if a.Is4() {
		return at(netip.IPv4Unspecified(), port).String()
	}
	return at(netip.IPv6Unspecified(), port).String()
}

// askEach sends to all 8 addresses, and then wants 8 answers.
func askEach(t *testing.T, c *net.UDPConn, addr func(int) netip.Addr, round int) {
	t.Helper()
	open := make(map[string]netip.AddrPort)
	for i := 1; i <= 8; i++ {
		asked := at(addr(i), 5300)
		text := fmt.Sprintf("round %d to %v", round, asked)
		open[text] = asked
		if _, err := c.WriteToUDPAddrPort([]byte(text), asked); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 200)
	for len(open) > 0 {
		_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open socket
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatalf("%v, with no answer to %v", err, open)
		}
		text := string(b[:n])
		if from = at(from.Addr().Unmap(), from.Port()); open[text] != from {
			t.Errorf("%q was answered from %v", text, from)
		}
		delete(open, text)
	}
}

const sipConfig = `
default = "deny"

[sources]
voip = "198.51.100.30"

[[listen]]
udp         = "127.0.0.1:5060"
to          = "203.0.113.5:5060"
use         = "voip"
source_port = 5060
idle        = "5m"
`

// sipRules count what the SIP server gets: from the address and port that the
// forward names, and from anywhere else.
const sipRules = `
table inet sip {
	counter good {
	}
	counter other {
	}
	chain arrivals {
		type filter hook prerouting priority -300; policy accept;
		iifname != "wan0" accept
		icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report } accept
		ip saddr 198.51.100.30 udp sport 5060 ip daddr 203.0.113.5 udp dport 5060 counter name good accept
		counter name other
	}
}
`

// TestSIPCalls makes 100 calls through the forward.
func TestSIPCalls(t *testing.T) {
	nstest.Need(t, "sipp", "nft")
	r := newRig(t)
	rules := exec.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader(sipRules)
	if got := r.Server.Run(t, rules); got.Err != nil {
		t.Fatal(got)
	}
	r.serve(sipConfig)
	uas := r.command("sipp", "-sn", "uas", "-i", "203.0.113.5", "-p", "5060", "-nostdin")
	r.Server.Start(t, uas)
	eventually(t, "sipp listens", func() bool { return listensUDP(t, r.Server, 5060) })

	got := r.run("sipp", "-sn", "uac", "127.0.0.1:5060", "-i", "127.0.0.1", "-p", "5070", "-m", "100", "-r", "50", "-d", "200", "-nostdin", "-timeout", "50s")
	if got.Err != nil {
		t.Errorf("sipp: %v\n%s", got.Err, lastLines(got.Stdout, 60))
	}
	if ok := successful(got.Stdout); ok != "100" {
		t.Errorf("%s calls were successful, want 100", ok)
	}
	good, other := counter(t, r.Server, "good"), counter(t, r.Server, "other")
	if good == 0 || other != 0 {
		t.Errorf("the server got %d packets from 198.51.100.30:5060 and %d others, want some and 0", good, other)
	}
	t.Logf("100 calls, %d packets from 198.51.100.30:5060, %d others", good, other)
}

func listensUDP(t testing.TB, n *nstest.Namespace, port int) bool {
	t.Helper()
	return listensUDPAt(t, n, fmt.Sprintf(":%04X ", port))
}

// listensUDPAt tells whether there is an IPv4 socket at an address as /proc writes it.
func listensUDPAt(t testing.TB, n *nstest.Namespace, address string) bool {
	t.Helper()
	got := n.Run(t, exec.Command("cat", "/proc/self/net/udp"))
	return strings.Contains(got.Stdout, address)
}

// successful reads sipp's last screen: "Successful call | 0 | 100".
func successful(screen string) string {
	line := screen[max(0, strings.LastIndex(screen, "Successful call")):]
	line, _, _ = strings.Cut(line, "\n")
	fields := strings.Split(line, "|")
	return strings.TrimSpace(fields[len(fields)-1])
}

func counter(t testing.TB, n *nstest.Namespace, name string) int {
	t.Helper()
	got := n.Run(t, exec.Command("nft", "list", "counter", "inet", "sip", name))
	_, after, _ := strings.Cut(got.Stdout, "packets ")
	var packets int
	if _, err := fmt.Sscan(after, &packets); err != nil {
		t.Fatalf("counter %s: %v in %v", name, err, got)
	}
	return packets
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
