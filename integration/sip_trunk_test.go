//go:build linux

package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// trunkConfig is the SIP trunk of many phones; calls of the provider go to 5080.
const trunkConfig = `
default = "deny"

[sources]
voip = "198.51.100.30"

[[listen]]
udp         = "127.0.0.1:5060"
to          = "203.0.113.5:5060"
use         = "voip"
source_port = 5060
share       = "sip"
inbound     = "127.0.0.1:5080"
idle        = "1s"
`

// trunkRules count what the provider gets: from the one address and port, whichever
// of its ports it goes to, and from anywhere else. Behind the first, fragments have
// no ports.
const trunkRules = `
table inet sip {
	counter good {
	}
	counter other {
	}
	chain arrivals {
		type filter hook prerouting priority -300; policy accept;
		iifname != "wan0" accept
		icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report } accept
		ip saddr 198.51.100.30 ip daddr 203.0.113.5 udp sport 5060 counter name good accept
		ip saddr 198.51.100.30 ip daddr 203.0.113.5 ip frag-off & 0x1fff != 0 counter name good accept
		counter name other
	}
}
`

// trunk is the program with a configuration, and a provider that counts.
func trunk(t *testing.T, config string) *rig {
	t.Helper()
	nstest.Need(t, "sipp", "nft")
	r := newRig(t)
	r.count()
	r.serve(config)
	return r
}

// count starts to count at the provider.
func (r *rig) count() {
	r.t.Helper()
	rules := exec.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader(trunkRules)
	if got := r.Server.Run(r.t, rules); got.Err != nil {
		r.t.Fatal(got)
	}
}

// answers starts a sipp that answers calls in a namespace.
func (r *rig) answers(n *nstest.Namespace, address string, port int) {
	r.t.Helper()
	n.Start(r.t, r.command("sipp", "-sn", "uas", "-i", address, "-p", fmt.Sprint(port), "-nostdin"))
	eventually(r.t, "sipp listens", func() bool { return listensUDP(r.t, n, port) })
}

// calls makes calls from address to another, and fails unless all are successful.
func (r *rig) calls(n *nstest.Namespace, from, to string, calls int, more ...string) {
	r.t.Helper()
	args := []string{to, "-i", from, "-p", "5070", "-m", fmt.Sprint(calls), "-nostdin", "-timeout", "50s"}
	if len(more) == 0 || more[0] != "-sf" {
		args = append(args, "-sn", "uac")
	}
	got := n.Run(r.t, r.command("sipp", append(args, more...)...))
	if ok := successful(got.Stdout); got.Err != nil || ok != fmt.Sprint(calls) {
		r.t.Errorf("%s of %d calls from %s were successful: %v\n%s", ok, calls, from, got.Err, lastLines(got.Stdout, 60))
	}
}

// wantOnePort fails unless all that the provider got came from S:5060.
func (r *rig) wantOnePort() {
	r.t.Helper()
	good, other := counter(r.t, r.Server, "good"), counter(r.t, r.Server, "other")
	if good == 0 || other != 0 {
		r.t.Errorf("the provider got %d packets from 198.51.100.30:5060 and %d others, want some and 0", good, other)
	}
	r.t.Logf("%d packets from 198.51.100.30:5060, %d others", good, other)
}

// phones makes calls from two phones at once.
func (r *rig) phones(calls int, more ...string) {
	var both sync.WaitGroup
	for _, phone := range []string{"127.0.0.2", "127.0.0.3"} {
		both.Go(func() { r.calls(r.Proxy, phone, "127.0.0.1:5060", calls, more...) })
	}
	both.Wait()
}

// TestSIPTwoPhones has two phones call through one S:5060 at once.
func TestSIPTwoPhones(t *testing.T) {
	r := trunk(t, trunkConfig)
	r.answers(r.Server, "203.0.113.5", 5060)
	r.phones(100, "-r", "50", "-d", "200")
	r.wantOnePort()
}

// TestSIPReloads reloads while two phones are in calls.
func TestSIPReloads(t *testing.T) {
	r := trunk(t, trunkConfig)
	r.answers(r.Server, "203.0.113.5", 5060)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.phones(60, "-r", "20", "-d", "1500")
	}()
	reloads := 0
	for running := true; running; reloads++ {
		if e := r.reload(trunkConfig + fmt.Sprintf("# reload %d\n", reloads)); e.text("msg") != "reloaded" {
			t.Fatalf("reload: %v", e)
		}
		select {
		case <-ended:
			running = false
		case <-time.After(200 * time.Millisecond): // between reloads
		}
	}
	t.Logf("%d reloads", reloads)
	r.wantOnePort()
}

// TestSIPInbound has the provider call in, from another port than 5060: before
// anything was sent there, and after a silence of several times the idle time.
// SIP_SILENCE=200s makes it longer than what a NAT between remembers.
func TestSIPInbound(t *testing.T) {
	silence := 3 * time.Second
	if s := os.Getenv("SIP_SILENCE"); s != "" {
		var err error
		if silence, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	r := trunk(t, trunkConfig)
	r.answers(r.Proxy, "127.0.0.1", 5080)
	r.calls(r.Server, "203.0.113.5", "198.51.100.30:5060", 5)
	<-time.After(silence) // which is what is tested, not a wait for something
	r.calls(r.Server, "203.0.113.5", "198.51.100.30:5060", 5)
	r.answers(r.Server, "203.0.113.5", 5060)
	r.calls(r.Proxy, "127.0.0.2", "127.0.0.1:5060", 5)
	r.wantOnePort()
}

// TestSIPAddressComesAndGoes starts while the address of the trunk is not there, and
// takes it away again: calls come in as soon as it is there, and nothing leaves from
// another one meanwhile.
func TestSIPAddressComesAndGoes(t *testing.T) {
	nstest.Need(t, "sipp", "nft")
	voip := netip.MustParsePrefix("198.51.100.30/24")
	r := newRig(t)
	r.Proxy.DelAddr(t, "wan0", voip)
	r.count()
	r.serve(trunkConfig)
	r.answers(r.Proxy, "127.0.0.1", 5080)
	for range 2 {
		c, err := r.Proxy.ListenPacket("udp4", "127.0.0.2:5070")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteTo([]byte("OPTIONS"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5060"))); err != nil {
			t.Fatal(err)
		}
		_ = c.Close() // sipp wants the port
		r.Proxy.AddAddr(t, "wan0", voip)
		eventually(t, "the port is held", func() bool { return listensUDPAt(t, r.Proxy, "1E6433C6:13C4") })
		r.calls(r.Server, "203.0.113.5", "198.51.100.30:5060", 5)
		r.Proxy.DelAddr(t, "wan0", voip)
	}
	r.wantOnePort()
}

// TestSIPLargeInvites sends INVITEs of 4 kB over links of two sizes.
func TestSIPLargeInvites(t *testing.T) {
	for _, mtu := range []string{"1500", "1280"} {
		t.Run(mtu, func(t *testing.T) {
			r := trunk(t, trunkConfig)
			for _, n := range []*nstest.Namespace{r.Proxy, r.Server} {
				if got := n.Run(t, exec.Command("ip", "link", "set", "wan0", "mtu", mtu)); got.Err != nil {
					t.Fatal(got)
				}
			}
			r.answers(r.Server, "203.0.113.5", 5060)
			scenario := r.write("large.xml", strings.ReplaceAll(largeCall, "PADDING", strings.Repeat("4 kB of header. ", 256)))
			r.calls(r.Proxy, "127.0.0.2", "127.0.0.1:5060", 20, "-sf", scenario, "-r", "10")
			r.wantOnePort()
		})
	}
}

// largeCall is a call whose INVITE has a long header.
const largeCall = `<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="large INVITE">
  <send retrans="500"><![CDATA[
      INVITE sip:service@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:phone@[local_ip]:[local_port]>;tag=[call_number]
      To: <sip:service@[remote_ip]:[remote_port]>
      Call-ID: [call_id]
      CSeq: 1 INVITE
      Contact: sip:phone@[local_ip]:[local_port]
      Max-Forwards: 70
      X-Long: PADDING
      Content-Length: 0

  ]]></send>
  <recv response="100" optional="true"></recv>
  <recv response="180" optional="true"></recv>
  <recv response="200"></recv>
  <send><![CDATA[
      ACK sip:service@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:phone@[local_ip]:[local_port]>;tag=[call_number]
      To: <sip:service@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Max-Forwards: 70
      Content-Length: 0

  ]]></send>
  <send retrans="500"><![CDATA[
      BYE sip:service@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:phone@[local_ip]:[local_port]>;tag=[call_number]
      To: <sip:service@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 2 BYE
      Max-Forwards: 70
      Content-Length: 0

  ]]></send>
  <recv response="200"></recv>
</scenario>
`
