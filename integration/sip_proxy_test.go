//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"
)

// registrar is a provider that keeps contacts and passes on what is for one of them,
// as a stateless proxy does (RFC 3261 section 16.11): Call-ID and tags stay. All its
// clients have one address and port.
type registrar struct {
	mu       sync.Mutex
	contacts map[string]string // by user
	passed   int
	odd      []string // what was neither for a contact nor an answer
}

var (
	requestLine = regexp.MustCompile(`^([A-Z]+) sip:(?:([^@ ]+)@)?\S+ SIP/2\.0\r\n`)
	contactLine = regexp.MustCompile(`(?m)^Contact: <?(sip:([^@]+)@[^>;\r]+)`)
	branchParam = regexp.MustCompile(`branch=(z9hG4bK[^;\r]+)`)
	topVia      = regexp.MustCompile(`(?m)^Via: [^,\n]+(\n|, *)`)
	copied      = regexp.MustCompile(`(?m)^(?:Via|From|To|Call-ID|CSeq): [^\n]+\n`)
)

// answer is what goes back to where b came from.
func (g *registrar) answer(_, _ netip.AddrPort, b []byte) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	request := requestLine.FindSubmatch(b)
	switch {
	case bytes.HasPrefix(b, []byte("SIP/2.0 ")):
		at := topVia.FindIndex(b)
		if at == nil {
			break
		}
		rest := []byte("Via: ") // sipp writes all in one line
		if b[at[1]-1] == '\n' {
			rest = nil
		}
		return slices.Concat(b[:at[0]], rest, b[at[1]:])
	case request == nil:
	case string(request[1]) == "REGISTER":
		c := contactLine.FindSubmatch(b)
		g.contacts[string(c[2])] = string(c[1])
		return fmt.Appendf(nil, "SIP/2.0 200 OK\r\n%sContent-Length: 0\r\n\r\n", bytes.Join(copied.FindAll(b, -1), nil))
	case g.contacts[string(request[2])] != "":
		g.passed++
		via := fmt.Sprintf("Via: SIP/2.0/UDP 203.0.113.5;branch=%s-passed\r\n", branchParam.FindSubmatch(b)[1])
		return fmt.Appendf(nil, "%s %s SIP/2.0\r\n%s%s", request[1], g.contacts[string(request[2])], via, b[len(request[0]):])
	}
	g.odd = append(g.odd, string(b))
	return nil
}

// TestSIPBetweenPhones has one phone call another through the provider: both legs have
// one Call-ID and the same two addresses and ports.
func TestSIPBetweenPhones(t *testing.T) {
	r := trunk(t, trunkConfig)
	g := &registrar{contacts: make(map[string]string)}
	r.Server.ServeUDP(t, "203.0.113.5:5060", g.answer)
	register(t, r, "two", "127.0.0.3:5070")
	r.answers(r.Proxy, "127.0.0.3", 5070)
	r.calls(r.Proxy, "127.0.0.2", "127.0.0.1:5060", 100, "-s", "two", "-r", "50", "-d", "100")
	r.wantOnePort()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.odd) > 0 {
		t.Errorf("the provider got %d messages for nobody: %q", len(g.odd), g.odd[0])
	}
	if g.passed < 300 { // INVITE, ACK and BYE of each call
		t.Errorf("the provider passed %d requests on, want 300", g.passed)
	}
}

// register registers a user from the address and port that its phone will have.
func register(t *testing.T, r *rig, user, address string) {
	t.Helper()
	c, err := r.Proxy.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the phone comes next
	text := fmt.Sprintf("REGISTER sip:203.0.113.5 SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bKregister;rport\r\n"+
		"From: <sip:%[1]s@203.0.113.5>;tag=r\r\nTo: <sip:%[1]s@203.0.113.5>\r\nCall-ID: register-%[1]s\r\nCSeq: 1 REGISTER\r\n"+
		"Contact: <sip:%[1]s@%[2]s>\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n", user, address)
	if _, err := c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5060"))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2000)
	_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open socket
	n, _, err := c.ReadFrom(b)
	if err != nil || !bytes.HasPrefix(b[:n], []byte("SIP/2.0 200 ")) {
		t.Fatalf("REGISTER: %q, %v", b[:n], err)
	}
}
