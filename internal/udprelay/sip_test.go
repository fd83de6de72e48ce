package udprelay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// sipText is a SIP message as these tests need it.
type sipText struct {
	method  string // of the request, also in a response
	status  int    // of a response
	uri     string
	branch  string
	via     string // sent-by; phones share one, as behind NAT
	call    string
	from    string // tags
	to      string
	contact string
	expires int
}

func (m sipText) String() string {
	var b strings.Builder
	if m.uri == "" {
		m.uri = "sip:provider.example"
	}
	if m.via == "" {
		m.via = "192.0.2.1"
	}
	if m.status != 0 {
		fmt.Fprintf(&b, "SIP/2.0 %d Whatever\r\n", m.status)
	} else {
		fmt.Fprintf(&b, "%s %s SIP/2.0\r\n", m.method, m.uri)
	}
	fmt.Fprintf(&b, "Via: SIP/2.0/UDP %s;branch=z9hG4bK%s;rport\r\n", m.via, m.branch)
	fmt.Fprintf(&b, "From: <sip:a@provider.example>;tag=%s\r\nTo: <sip:b@provider.example>", m.from)
	if m.to != "" {
		fmt.Fprintf(&b, ";tag=%s", m.to)
	}
	fmt.Fprintf(&b, "\r\nCall-ID: %s\r\nCSeq: 1 %s\r\n", m.call, m.method)
	if m.contact != "" {
		fmt.Fprintf(&b, "Contact: <%s>\r\n", m.contact)
	}
	if m.expires != 0 {
		fmt.Fprintf(&b, "Expires: %d\r\n", m.expires)
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	return b.String()
}

// answer returns a response to m.
func (m sipText) answer(status int, tag string) sipText {
	m.status = status
	if m.to == "" {
		m.to = tag
	}
	return m
}

// trunkRig is a forward with share = "sip", and its provider.
type trunkRig struct {
	*testing.T
	engine   *Engine
	log      *record
	clock    *clock
	settings Settings
	forward  *Forward
	asked    netip.AddrPort // where phones send to
	provider *net.UDPConn   // on the address and port of `to`
	outside  netip.AddrPort // from which all has to leave
}

func newTrunkRig(t *testing.T, change func(*Settings)) *trunkRig {
	t.Helper()
	e, lines := newEngine(t)
	r := &trunkRig{T: t, engine: e, log: lines, clock: new(clock)}
	e.now = r.clock.now
	r.provider = open(t, "127.0.0.20:0")
	r.outside = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.10"), freePort(t, "127.0.0.10"))
	r.settings = Settings{
		Dialer:     always(t, dialer.Use{Source: source("voip", "127.0.0.10")}),
		Target:     to(addrPort(r.provider)),
		SourcePort: r.outside.Port(),
		ShareSIP:   true,
		Idle:       time.Minute,
	}
	if change != nil {
		change(&r.settings)
	}
	r.forward = forward(t, e, "127.0.0.1:0", &r.settings)
	r.asked = at(r.forward, "127.0.0.1")
	return r
}

// phone opens a socket of a client.
func (r *trunkRig) phone(address string) *net.UDPConn { return open(r, address+":0") }

// up sends from a phone, and wants it at the provider.
func (r *trunkRig) up(phone *net.UDPConn, text fmt.Stringer) {
	r.Helper()
	send(r, phone, r.asked, text.String())
	r.want(r.provider, text, r.outside)
}

// down sends from the provider, and wants it at a phone.
func (r *trunkRig) down(phone *net.UDPConn, text fmt.Stringer) {
	r.Helper()
	send(r, r.provider, r.outside, text.String())
	r.want(phone, text, r.asked)
}

func (r *trunkRig) want(c *net.UDPConn, text fmt.Stringer, from netip.AddrPort) {
	r.Helper()
	got, source := receive(r, c)
	if got != text.String() || source != from {
		r.Fatalf("got from %v:\n%s\nwant from %v:\n%s", source, got, from, text)
	}
}

// drops wants so many more drops of a kind once do is done.
func (r *trunkRig) drops(d Drop, n int, do func()) {
	r.Helper()
	before := dropped(r.engine, d)
	do()
	until(r, fmt.Sprintf("%d more %v", n, d), func() bool { return dropped(r.engine, d) == before+n })
}

func register(user, branch, contact string) sipText {
	return sipText{method: "REGISTER", branch: branch, call: "register-" + user, from: user, contact: contact, expires: 3600}
}

// raw is a datagram that is no SIP.
type raw string

func (r raw) String() string { return string(r) }

// TestSIPResponses has two phones ask at once; the answers come the other way round.
func TestSIPResponses(t *testing.T) {
	r := newTrunkRig(t, nil)
	phones := []*net.UDPConn{r.phone("127.0.0.3"), r.phone("127.0.0.4")}
	asks := []sipText{
		{method: "OPTIONS", branch: "one", call: "1", from: "x"},
		{method: "OPTIONS", branch: "two", call: "2", from: "y"},
	}
	for i, phone := range phones {
		r.up(phone, asks[i])
	}
	r.down(phones[1], asks[1].answer(200, "p"))
	r.down(phones[0], asks[0].answer(200, "p"))
	if s := r.engine.Stats(); s.Flows != 2 || s.Owners != 1 {
		t.Errorf("%d flows on %d owners, want 2 on 1", s.Flows, s.Owners)
	}
}

// TestSIPBetweenPhones has phone 1 call phone 2 through a provider that keeps the
// Call-ID: what the provider sends is told apart by the tags.
func TestSIPBetweenPhones(t *testing.T) {
	r := newTrunkRig(t, nil)
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	contacts := []string{"sip:one@192.0.2.1:5062", "sip:two@192.0.2.2:5062"}
	for i, phone := range []*net.UDPConn{one, two} {
		reg := register(contacts[i][4:7], fmt.Sprint("reg", i), contacts[i])
		r.up(phone, reg)
		r.down(phone, reg.answer(200, "p"))
	}
	invite := sipText{method: "INVITE", branch: "a1", call: "c", from: "tag1", contact: contacts[0]}
	r.up(one, invite)
	r.down(one, invite.answer(100, ""))
	proxied := invite
	proxied.uri, proxied.branch, proxied.via = contacts[1], "p1", "203.0.113.5"
	r.down(two, proxied)
	ok2 := proxied.answer(200, "tag2")
	ok2.contact = contacts[1]
	r.up(two, ok2)
	ok1 := invite.answer(200, "tag2")
	ok1.contact = contacts[1]
	r.down(one, ok1)
	ack := sipText{method: "ACK", branch: "a2", call: "c", from: "tag1", to: "tag2", uri: contacts[1]}
	r.up(one, ack)
	ack.branch, ack.via = "p2", "203.0.113.5"
	r.down(two, ack)
	bye := sipText{method: "BYE", branch: "b1", call: "c", from: "tag2", to: "tag1", uri: contacts[0]}
	r.up(two, bye)
	proxiedBye := bye
	proxiedBye.branch, proxiedBye.via = "p3", "203.0.113.5"
	r.down(one, proxiedBye)
	r.up(one, proxiedBye.answer(200, ""))
	r.down(two, bye.answer(200, ""))
}

// TestSIPInboundCold has the provider call before any client has spoken, from another
// port than the one that clients send to. The whole call goes back and forth there.
func TestSIPInboundCold(t *testing.T) {
	pbx := open(t, "127.0.0.5:0")
	r := newTrunkRig(t, func(s *Settings) { s.Inbound = addrPort(pbx) })
	caller := open(t, "127.0.0.20:0")
	for i := range 5 {
		call := fmt.Sprint("call", i)
		invite := sipText{method: "INVITE", branch: call, via: "203.0.113.5", call: call, from: "p", uri: "sip:100@198.51.100.30"}
		send(t, caller, r.outside, invite.String())
		r.want(pbx, invite, r.asked)
		ok := invite.answer(200, "b")
		ok.contact = "sip:100@192.0.2.9"
		send(t, pbx, r.asked, ok.String())
		r.want(caller, ok, r.outside)
		ack := sipText{method: "ACK", branch: call + "-a", via: "203.0.113.5", call: call, from: "p", to: "b", uri: ok.contact}
		send(t, caller, r.outside, ack.String())
		r.want(pbx, ack, r.asked)
		// The PBX ends it: that goes to where the call came from, too.
		bye := sipText{method: "BYE", branch: call + "-b", call: call, from: "b", to: "p"}
		send(t, pbx, r.asked, bye.String())
		r.want(caller, bye, r.outside)
		send(t, caller, r.outside, bye.answer(200, "").String())
		r.want(pbx, bye.answer(200, ""), r.asked)
	}
	options := sipText{method: "OPTIONS", branch: "q", call: "q", from: "q"}
	r.up(pbx, options) // what it starts goes to the port of the target
	r.down(pbx, options.answer(200, "p"))
	if n := r.engine.Stats().Flows; n != 1 {
		t.Errorf("%d flows, want 1", n)
	}
}

// TestSIPInboundBesidePhones has a PBX take what is not for a registered phone.
func TestSIPInboundBesidePhones(t *testing.T) {
	pbx := open(t, "127.0.0.5:0")
	r := newTrunkRig(t, func(s *Settings) {
		s.Inbound = addrPort(pbx)
		s.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")} // but the PBX may answer
	})
	r.up(pbx, raw("\r\n\r\n"))
	phone := r.phone("127.0.0.3")
	r.up(phone, register("one", "reg", "sip:one@192.0.2.1"))
	invite := sipText{method: "INVITE", branch: "i1", call: "1", from: "p", uri: "sip:one@198.51.100.30"}
	r.down(phone, invite)
	invite.branch, invite.call, invite.uri = "i2", "2", "sip:other@198.51.100.30"
	r.down(pbx, invite)
	r.up(pbx, invite.answer(486, "b"))
	// A dialog that nobody knows, after a restart say: two clients, so the PBX decides.
	r.down(pbx, sipText{method: "BYE", branch: "b", call: "old", from: "p", to: "x"})
}

// TestSIPUnmatched sends what is for nobody.
func TestSIPUnmatched(t *testing.T) {
	r := newTrunkRig(t, nil)
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	toBoth := func(text fmt.Stringer) func() {
		return func() { send(t, r.provider, r.outside, text.String()) }
	}
	r.up(one, raw("anything"))
	r.down(one, raw("is answered")) // by one client alone
	r.up(two, register("two", "reg2", "sip:two@192.0.2.2"))
	r.drops(Unmatched, 1, toBoth(raw("something")))
	r.drops(Unmatched, 1, toBoth(raw(strings.Repeat("x", 65507))))
	r.drops(Unmatched, 1, toBoth(sipText{method: "OPTIONS", status: 200, branch: "nobody", call: "n", from: "n"}))
	r.drops(Unmatched, 1, toBoth(sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:three@x"}))
	r.drops(Unmatched, 1, toBoth(sipText{method: "BYE", branch: "i", call: "i", from: "p", to: "t"}))
	r.drops(Unmatched, 1, toBoth(raw("BYE sip:two@192.0.2.2 SIP/2.0\r\n\r\n")))
	r.drops(KeepAlive, 1, toBoth(raw("\r\n\r\n")))
	r.up(one, raw("\r\n\r\n"))
	r.up(one, raw(""))
	r.down(two, sipText{method: "INVITE", branch: "j", call: "j", from: "p", uri: "sip:two@198.51.100.30"})
}

// TestSIPSTUN tells the answers to STUN keepalives apart.
func TestSIPSTUN(t *testing.T) {
	r := newTrunkRig(t, nil)
	phones := []*net.UDPConn{r.phone("127.0.0.3"), r.phone("127.0.0.4")}
	stun := func(kind byte, i int) raw {
		return raw(fmt.Sprintf("%c\x01\x00\x00\x21\x12\xa4\x42transaction%d", kind, i))
	}
	for i, phone := range phones {
		r.up(phone, stun(0, i))
	}
	r.down(phones[1], stun(1, 1))
	r.down(phones[0], stun(1, 0))
	r.drops(Unmatched, 1, func() { send(t, r.provider, r.outside, string(stun(1, 7))) })
}

// TestSIPStrangers sends from addresses that are not to be heard.
func TestSIPStrangers(t *testing.T) {
	r := newTrunkRig(t, func(s *Settings) { s.InboundFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.24/29")} })
	phone := r.phone("127.0.0.3")
	contact := "sip:one@192.0.2.1"
	r.up(phone, register("one", "reg", contact))
	invite := sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: contact}
	stranger := open(t, "127.0.0.23:0")
	r.drops(Stranger, 1, func() { send(t, stranger, r.outside, invite.String()) })
	for i, friend := range []*net.UDPConn{open(t, "127.0.0.25:0"), open(t, "127.0.0.20:0")} {
		invite.branch, invite.call = fmt.Sprint("f", i), fmt.Sprint("f", i)
		send(t, friend, r.outside, invite.String())
		r.want(phone, invite, r.asked)
		busy := invite.answer(486, "t")
		send(t, phone, r.asked, busy.String())
		r.want(friend, busy, r.outside)
	}
	r.down(phone, sipText{method: "INVITE", branch: "k", call: "k", from: "p", uri: contact}) // from the target itself
}
