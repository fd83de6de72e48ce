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

const rtpConfig = `
default = "deny"

[sources]
voip = "198.51.100.30"

[[listen]]
udp         = "127.0.0.1:10000-10009"
to          = "203.0.113.5"
use         = "voip"
source_port = "same"
dscp        = "ef"
`

// rtpRules count what has the mark of RTP, and what has not.
const rtpRules = `
table inet sip {
	counter good {
	}
	counter other {
	}
	chain arrivals {
		type filter hook prerouting priority -300; policy accept;
		iifname != "wan0" accept
		ip saddr 198.51.100.30 ip daddr 203.0.113.5 ip dscp ef udp sport 10000-10009 counter name good accept
		ip protocol udp counter name other
	}
}
`

// TestRTPRange sends 1000 datagrams to ten ports: each arrives at the same port, from
// the same port, marked, and is answered.
func TestRTPRange(t *testing.T) {
	nstest.Need(t, "nft")
	const ports, rounds = 10, 100
	r := newRig(t)
	rules := exec.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader(rtpRules)
	if got := r.Server.Run(t, rules); got.Err != nil {
		t.Fatal(got)
	}
	var gateways [ports]*nstest.Server
	for i := range gateways {
		gateways[i] = r.Server.EchoUDP(t, fmt.Sprintf("203.0.113.5:%d", 10000+i))
	}
	r.serve(rtpConfig)
	c, err := r.Proxy.ListenPacket("udp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // nothing is left to send
	answered := 0
	b := make([]byte, 200)
	for i := range rounds {
		for p := range ports {
			to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(10000+p)))
			if _, err := c.WriteTo(fmt.Appendf(nil, "packet %d to port %d", i, p), to); err != nil {
				t.Fatal(err)
			}
		}
		for range ports {
			_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open socket
			n, from, err := c.ReadFrom(b)
			if err != nil {
				t.Fatalf("%v after %d answers", err, answered)
			}
			if want := fmt.Sprintf("packet %d to port %d", i, from.(*net.UDPAddr).Port-10000); string(b[:n]) != want {
				t.Errorf("from %v came %q, want %q", from, b[:n], want)
			}
			answered++
		}
	}
	for i, g := range gateways {
		want := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.30"), uint16(10000+i))
		peers := g.Peers()
		for _, p := range peers {
			if p != want {
				t.Fatalf("port %d was called from %v, want %v", 10000+i, p, want)
			}
		}
		if len(peers) != rounds {
			t.Errorf("port %d got %d datagrams, want %d", 10000+i, len(peers), rounds)
		}
	}
	if good, other := counter(t, r.Server, "good"), counter(t, r.Server, "other"); good != ports*rounds || other != 0 {
		t.Errorf("%d datagrams came from the same port with the mark and %d others, want %d and 0", good, other, ports*rounds)
	}
	t.Logf("%d datagrams, %d answers", ports*rounds, answered)
}
