package udprelay

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// TestSIPIdle lets flows be silent: one with a registration stays for its time.
func TestSIPIdle(t *testing.T) {
	r := newTrunkRig(t, nil)
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	reg := register("one", "reg", "sip:one@192.0.2.1")
	r.up(one, reg)
	r.down(one, reg.answer(200, "p"))
	r.up(two, raw("\r\n\r\n"))
	r.clock.advance(61 * time.Second)
	r.engine.expire()
	if n := r.engine.Stats().Flows; n != 1 {
		t.Fatalf("%d flows, want the registered one", n)
	}
	for range 10 {
		r.clock.advance(200 * time.Second)
		r.engine.expire()
	}
	r.down(one, sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:one@198.51.100.30"})
	r.clock.advance(2 * time.Hour)
	r.engine.expire()
	r.clock.advance(2 * time.Minute)
	r.engine.expire()
	if n := r.engine.Stats().Flows; n != 0 {
		t.Errorf("%d flows after the registration", n)
	}
	if n := r.engine.Stats().Owners; n != 1 {
		t.Errorf("%d owners, want the port held", n)
	}
}

// TestSIPReload changes the source: flows keep theirs, and new ones and calls that
// come in use the new one.
func TestSIPReload(t *testing.T) {
	pbx := open(t, "127.0.0.5:0")
	r := newTrunkRig(t, func(s *Settings) { s.Inbound = addrPort(pbx) })
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	r.up(one, register("one", "reg", "sip:one@192.0.2.1"))
	changed := r.settings
	changed.Dialer = always(t, dialer.Use{Source: source("voip", "127.0.0.11")})
	r.forward.Set(&changed)
	old, fresh := r.outside, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.11"), r.outside.Port())
	r.up(one, register("one", "reg2", "sip:one@192.0.2.1")) // the first REGISTER is not answered yet
	invite1 := sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:one@192.0.2.1"}
	r.down(one, invite1)
	r.outside = fresh
	r.up(two, register("two", "reg", "sip:two@192.0.2.2"))
	r.down(two, sipText{method: "INVITE", branch: "j", call: "j", from: "p", uri: "sip:two@192.0.2.2"})
	invite := sipText{method: "INVITE", branch: "k", call: "k", from: "p", uri: "sip:who@192.0.2.2"}
	r.down(pbx, invite)
	r.up(pbx, invite.answer(404, "b"))
	r.outside = old
	r.up(one, invite1.answer(603, "t"))
	r.down(one, sipText{method: "INVITE", branch: "l", call: "l", from: "p", uri: "sip:one@192.0.2.1"})
	// With nothing under way, the phone's next request is the first from its new source.
	r.clock.advance(40 * time.Second)
	r.up(one, raw("\r\n\r\n"))
	r.outside = fresh
	r.up(one, register("one", "reg3", "sip:one@192.0.2.1"))
	r.down(one, sipText{method: "INVITE", branch: "m", call: "m", from: "p", uri: "sip:one@192.0.2.1"})
	if n := r.log.count(ErrMoved.Error()); n != 1 {
		t.Errorf("%d flows have moved, want 1", n)
	}
}

// TestSIPName has a name as the target: calls come in before a client has spoken.
func TestSIPName(t *testing.T) {
	pbx := open(t, "127.0.0.5:0")
	var d *dialer.Dialer
	r := newTrunkRig(t, func(s *Settings) {
		s.Inbound = addrPort(pbx)
		d = s.Dialer
		d.Resolver = &resolver{names: map[string][]netip.Addr{"sip.example": {s.Target.Dst.Addr(), netip.MustParseAddr("127.0.0.21")}}}
		s.Target = dialer.Flow{Name: "sip.example", Dst: netip.AddrPortFrom(netip.Addr{}, s.Target.Dst.Port())}
	})
	until(t, "the port is held", func() bool { return r.engine.Stats().Owners == 1 })
	invite := sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:who@192.0.2.2"}
	r.down(pbx, invite)
	r.up(pbx, invite.answer(404, "b"))
	second := open(t, "127.0.0.21:0")
	invite.branch, invite.call = "j", "j"
	send(t, second, r.outside, invite.String())
	r.want(pbx, invite, r.asked)
	r.drops(Stranger, 1, func() { send(t, open(t, "127.0.0.22:0"), r.outside, invite.String()) })
	r.up(r.phone("127.0.0.3"), raw("x"))
}

// TestSIPRefused has a second client without share, and a mix of both.
func TestSIPRefused(t *testing.T) {
	r := newTrunkRig(t, func(s *Settings) { s.ShareSIP = false })
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	r.up(one, register("one", "reg", "sip:one@192.0.2.1"))
	r.drops(Refused, 1, func() { send(t, two, r.asked, "x") })
	if r.log.count(`share = \"sip\"`) == 0 {
		t.Errorf("the log has no cure:\n%s", r.log)
	}
	shared := r.settings
	shared.ShareSIP = true
	r.forward.Set(&shared)
	r.drops(Refused, 1, func() { send(t, r.phone("127.0.0.6"), r.asked, "x") }) // one's flow is not shared
	r.down(one, raw("still one's"))
}

// TestSIPShareIsForAll has a forward without share beside one with it.
func TestSIPShareIsForAll(t *testing.T) {
	r := newTrunkRig(t, nil)
	r.up(r.phone("127.0.0.3"), raw("x"))
	alone := r.settings
	alone.Name, alone.ShareSIP = "alone", false
	f := forward(t, r.engine, "127.0.0.1:0", &alone)
	r.drops(Refused, 1, func() { send(t, r.phone("127.0.0.4"), at(f, "127.0.0.1"), "x") })
}

// TestSIPTwoProviders has two forwards leave from one port to two providers. What one
// sends is not for clients of the other, whatever it names.
func TestSIPTwoProviders(t *testing.T) {
	r := newTrunkRig(t, nil)
	provider := open(t, "127.0.0.21:0")
	second := r.settings
	second.Name, second.Target = "second", to(addrPort(provider))
	f := forward(t, r.engine, "127.0.0.1:0", &second)
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	r.up(one, register("one", "reg", "sip:one@192.0.2.1"))
	reg := register("two", "reg2", "sip:two@192.0.2.2")
	send(t, two, at(f, "127.0.0.1"), reg.String())
	r.want(provider, reg, r.outside)
	invite := sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:two@192.0.2.2"}
	r.down(one, invite) // it is the only client that has used this provider
	invite.branch, invite.call = "j", "j"
	send(t, provider, r.outside, invite.String())
	r.want(two, invite, at(f, "127.0.0.1"))
	r.up(r.phone("127.0.0.5"), raw("x"))
	invite.branch, invite.call = "k", "k"
	r.drops(Unmatched, 1, func() { send(t, r.provider, r.outside, invite.String()) })
}

// TestSIPPortLater starts while somebody else has the port.
func TestSIPPortLater(t *testing.T) {
	pbx, holder := open(t, "127.0.0.5:0"), open(t, "127.0.0.10:0")
	r := newTrunkRig(t, func(s *Settings) {
		s.Inbound = addrPort(pbx)
		s.SourcePort = addrPort(holder).Port()
	})
	r.outside = addrPort(holder)
	if n := r.engine.Stats().Owners; n != 0 {
		t.Fatalf("%d owners", n)
	}
	if n := r.log.count("source port is not there yet"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	holder.Close()
	r.clock.advance(2 * time.Second)
	until(t, "the port is taken", func() bool { return r.engine.Stats().Owners == 1 })
	r.down(pbx, sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:who@192.0.2.2"})
}

// TestSIPAllocs holds what is done for each datagram of a call at no allocation.
func TestSIPAllocs(t *testing.T) {
	r := newTrunkRig(t, nil)
	one, two := r.phone("127.0.0.3"), r.phone("127.0.0.4")
	invite := sipText{method: "INVITE", branch: "i", call: "i", from: "a"}
	r.up(two, raw("x"))
	r.up(one, invite)
	r.down(one, invite.answer(200, "b"))
	tr := r.forward.flow(key{addrPort(one), r.asked.Addr()}).trunk
	fl := r.forward.flow(key{addrPort(one), r.asked.Addr()})
	up, down := message(invite.String()), message(invite.answer(200, "b").String())
	down.Addr.Peer = addrPort(r.provider)
	if n := testing.AllocsPerRun(100, func() {
		tr.learn(0, fl, up)
		if tr.route(0, down).flow != fl {
			t.Error("the answer found no way")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func message(s string) *pktinfo.Message {
	return &pktinfo.Message{Buf: []byte(s), N: len(s)}
}

// TestSIPInboundFrom has a listener with several addresses: calls come to inbound from
// the one nearest to it, in whatever order they were opened.
func TestSIPInboundFrom(t *testing.T) {
	pbx := open(t, "127.0.0.5:0")
	r := newTrunkRig(t, func(s *Settings) { s.Inbound = addrPort(pbx) })
	r.forward.Set(&Settings{Name: "gone", Dialer: r.settings.Dialer, Target: r.settings.Target})
	natural := kernelSource(addrPort(pbx))
	for _, address := range []string{"127.0.0.7:0", netip.AddrPortFrom(natural, 0).String(), "127.0.0.8:0"} {
		f := forward(t, r.engine, address, &r.settings)
		if f.Addr().(*net.UDPAddr).AddrPort().Addr() == natural {
			r.asked = at(f, natural.String())
		}
	}
	invite := sipText{method: "INVITE", branch: "i", call: "i", from: "p", uri: "sip:who@192.0.2.2"}
	r.down(pbx, invite)
	r.up(pbx, invite.answer(404, "b"))
}

// TestSIPSpared floods a trunk with strangers: phones that are registered or in a call
// stay, although they have been silent for longer. Where all are, the oldest goes.
func TestSIPSpared(t *testing.T) {
	r := newTrunkRig(t, nil)
	r.engine.SetMaxFlows(8)
	registered, calling, idle := r.phone("127.0.0.3"), r.phone("127.0.0.4"), r.phone("127.0.0.5")
	reg := register("one", "reg", "sip:one@192.0.2.1:5062")
	r.up(registered, reg)
	r.down(registered, reg.answer(200, "p"))
	invite := sipText{method: "INVITE", branch: "a1", call: "c", from: "tag1", contact: "sip:two@192.0.2.2:5062"}
	r.up(calling, invite)
	r.down(calling, invite.answer(200, "tag2"))
	r.up(idle, sipText{method: "OPTIONS", branch: "idle", call: "idle", from: "idle"})
	for i := range 100 {
		r.clock.advance(time.Millisecond)
		// Each has a transaction for a while.
		r.up(r.phone(fmt.Sprintf("127.0.1.%d", i+1)), sipText{method: "OPTIONS", branch: fmt.Sprint(i), call: fmt.Sprint(i), from: "x"})
	}
	if s := r.engine.Stats(); s.Flows != 8 || s.Evicted != 95 {
		t.Errorf("%d flows and %d evicted, want 8 and 95", s.Flows, s.Evicted)
	}
	if r.forward.flow(key{addrPort(idle), r.asked.Addr()}) != nil {
		t.Error("a phone with nothing but a transaction was spared")
	}
	r.down(registered, sipText{method: "OPTIONS", uri: "sip:one@192.0.2.1:5062", branch: "p1", call: "p1", from: "p"})
	r.down(calling, sipText{method: "BYE", uri: "sip:two@192.0.2.2:5062", branch: "p2", call: "c", from: "tag2", to: "tag1"})
	// It has ended now, and its flow is as good as any other.
	r.clock.advance(time.Second)
	r.engine.SetMaxFlows(1)
	for i, phone := range []*net.UDPConn{r.phone("127.0.2.1"), r.phone("127.0.2.2")} {
		r.clock.advance(time.Second)
		reg := register(fmt.Sprint(i), fmt.Sprint("last", i), fmt.Sprintf("sip:%d@192.0.2.1", i))
		r.up(phone, reg)
		r.down(phone, reg.answer(200, "p"))
	}
	if s := r.engine.Stats(); s.Flows != 1 {
		t.Errorf("%d flows, want 1", s.Flows)
	}
}
