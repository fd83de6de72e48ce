//go:build linux

package integration

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// ssrfConfig forbids the loopback, and then decides by names: what a name
// leads to is judged once more.
const ssrfConfig = `
default = "198.51.100.10"

[[rules]]
name = "anything named example"
to   = "*.example"
use  = "198.51.100.11"

[[rules]]
name = "no loopback"
to   = ["127.0.0.0/8", "::1"]
use  = "deny"

[[listen]]
mixed = "127.0.0.1:1080"
`

// ssrfNames are spellings of the loopback, as names. They are denied, or are
// names that nobody knows.
var ssrfNames = []string{
	"127.0.0.9", "127.0.0.9.", "0x7f000009", "2130706441", "0177.0.0.011", "127.9", "127.0.9", "0x7f.0.0.9", "localhost", "LOCALHOST.",
	"::1", "[::1]", "::ffff:127.0.0.9", "[::ffff:127.0.0.9]", "::ffff:7f00:9", "64:ff9b::127.0.0.9", "64:ff9b::7f00:9", "2002:7f00:9::", "::127.0.0.9",
	"127.0.0.9%lo", "::1%lo", "[::1%25lo]", "fe80::1%lo", "0.0.0.0", "0", "::", "[::]", "0.0.0.0.", "",
	"v4.evil.example", "V4.EVIL.example.", "mapped.evil.example", "nat64.evil.example", "v6.evil.example", "zero.evil.example", "zero6.evil.example",
	"dns4.evil.example", "dns6.evil.example", "dnsmapped.evil.example",
}

// ssrfAddrs are the same as addresses.
var ssrfAddrs = []string{
	"127.0.0.9", "127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.9", "::ffff:0.0.0.0", "64:ff9b::127.0.0.9", "64:ff9b:1::127.0.0.9",
	"2002:7f00:9::", "2002:7f00:9::1", "::127.0.0.9", "2001:0:7f00:9::", "::ffff:0:127.0.0.9",
}

// TestForbiddenAddress tries every spelling of the loopback over every
// protocol; a server on all addresses of the proxy host sees nobody.
func TestForbiddenAddress(t *testing.T) {
	r := newRig(t)
	r.Server.ServeDNS(t, map[string][]netip.Addr{
		"dns4.evil.example":      {netip.MustParseAddr("127.0.0.9")},
		"dns6.evil.example":      {netip.MustParseAddr("::1")},
		"dnsmapped.evil.example": {netip.MustParseAddr("::ffff:127.0.0.9")},
	})
	victims := []*nstest.Server{r.Proxy.EchoTCP(t, "0.0.0.0:7"), r.Proxy.EchoTCP(t, "[::]:7")}
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.serve(ssrfConfig)

	try := func(name string, attempt func() (string, error)) {
		t.Run(name, func(t *testing.T) {
			if granted, err := attempt(); err == nil {
				t.Errorf("granted: %q", granted)
			}
			for _, v := range victims {
				if peers := v.Peers(); len(peers) > 0 {
					t.Errorf("the server was called by %v", peers)
					v.Forget()
				}
			}
		})
	}
	for _, name := range ssrfNames {
		try("SOCKS5 name "+name, func() (string, error) { return r.ask5(connect5Name(name, 7)) })
		try("SOCKS4a name "+name, func() (string, error) { return r.ask4(netip.AddrFrom4([4]byte{3: 1}), name+"\x00") })
		try("CONNECT "+name, func() (string, error) { return r.askHTTP(name + ":7") })
	}
	for _, a := range ssrfAddrs {
		addr := netip.MustParseAddr(a)
		try("SOCKS5 address "+a, func() (string, error) { return r.ask5(connect5(at(addr, 7))) })
		try("CONNECT ["+a+"]", func() (string, error) { return r.askHTTP("[" + a + "]:7") })
		if addr.Is4() {
			try("SOCKS4 "+a, func() (string, error) { return r.ask4(addr, "") })
		}
	}
	// The rule does let honest ones pass.
	if _, err := r.ask5(connect5Name("server.example", 7)); err != nil {
		t.Errorf("server.example: %v", err)
	}
	wantSources(t, s, nstest.ProxyV4(11), 1)
}

// TestDenialNamesBothRules looks at the error of a flow that a name decided and
// its address forbids.
func TestDenialNamesBothRules(t *testing.T) {
	r := newRig(t)
	r.serve(ssrfConfig)
	if _, err := r.ask5(connect5Name("v4.evil.example", 7)); err != refused(replyRuleset) {
		t.Errorf("%v, want %v", err, refused(replyRuleset))
	}
	got := r.log.wait(t, 1, "flow")[0].text("err")
	for _, rule := range []string{"anything named example", "no loopback"} {
		if !strings.Contains(got, rule) {
			t.Errorf("err is %q, want it to name %q", got, rule)
		}
	}
}

func (r *rig) ask5(request []byte) (string, error) {
	c, err := r.tryDial("127.0.0.1:1080")
	if err != nil {
		return "", err
	}
	defer c.Close()
	bnd, err := handshake(c, request)
	return bnd.String(), err
}

func (r *rig) ask4(dst netip.Addr, name string) (string, error) {
	c, err := r.tryDial("127.0.0.1:1080")
	if err != nil {
		return "", err
	}
	defer c.Close()
	request := append(binary.BigEndian.AppendUint16([]byte{4, 1}, 7), dst.AsSlice()...)
	if _, err := c.Write(append(append(request, 0), name...)); err != nil {
		return "", err
	}
	answer := firstReply(c)
	if len(answer) < 2 || answer[1] != 0x5a {
		return answer, fmt.Errorf("reply % x", answer)
	}
	return answer, nil
}

func (r *rig) askHTTP(target string) (string, error) {
	c, err := r.tryDial("127.0.0.1:1080")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target); err != nil {
		return "", err
	}
	answer := firstReply(c)
	if !strings.Contains(answer, " 200 ") {
		return answer, fmt.Errorf("reply %s", answer)
	}
	return answer, nil
}
