//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// inState waits for n lines that tell of a source in that state.
func (r *rig) inState(state string, n int) []entry {
	r.t.Helper()
	return r.log.waitFor(r.t, n, func(e entry) bool { return e.text("state") == state }, "source changed")
}

// TestLostBind ends the wait of a BIND with the address that it waits on.
func TestLostBind(t *testing.T) {
	for _, source := range []netip.Prefix{netip.PrefixFrom(nstest.ProxyV4(30), 24), netip.PrefixFrom(nstest.ProxyV6(30), 64)} {
		t.Run(source.Addr().String(), func(t *testing.T) {
			r := newRig(t)
			peer := nstest.ServerV4(1)
			if source.Addr().Is6() {
				peer = nstest.ServerV6(1)
			}
			r.serve(fmt.Sprintf("default = %q\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", source.Addr()))
			c := r.dial("127.0.0.1:1080")
			request := connect5(at(peer, 0))
			request[1] = 2 // BIND
			bound, err := handshake(c, request)
			if err != nil || bound.Addr() != source.Addr() {
				t.Fatalf("BIND: %v, %v, want an address of %v", bound, err, source.Addr())
			}
			start := time.Now()
			r.Proxy.DelAddr(t, "wan0", source)
			_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
			if _, err := readReply5(c); err != refused(replyNetwork) {
				t.Errorf("the second reply is %v, want %v", err, refused(replyNetwork))
			}
			if d := time.Since(start); d > lostLimit {
				t.Errorf("it took %v", d)
			}
			if e := r.log.wait(t, 1, "flow")[0]; !strings.Contains(e.text("err"), "its address went away") {
				t.Errorf("the line is %v", e)
			}
		})
	}
}

// TestHold keeps the flows of an address that is away for a moment, and no longer.
func TestHold(t *testing.T) {
	for _, f := range []struct {
		source netip.Prefix
		dst    netip.Addr
	}{
		{netip.PrefixFrom(nstest.ProxyV4(30), 24), nstest.ServerV4(1)},
		{netip.PrefixFrom(nstest.ProxyV6(30), 64), nstest.ServerV6(1)},
	} {
		t.Run(f.source.Addr().String(), func(t *testing.T) {
			const hold = 3 * time.Second
			r := newRig(t)
			r.Server.EchoTCP(t, wildcard(f.dst, 7))
			r.Server.EchoUDP(t, wildcard(f.dst, 7))
			dst := at(f.dst, 7)
			r.serve(fmt.Sprintf("default = \"dsl\"\n[sources]\ndsl = { ip = %q, hold = %q }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[[listen]]\nudp = \"127.0.0.1:5300\"\nto = %q\n",
				f.source.Addr(), hold, dst))
			c, err := r.through("127.0.0.1:1080", dst)
			if err != nil {
				t.Fatal(err)
			}
			u := r.dialUDP("127.0.0.1:5300")
			echoed(t, c, "before")
			echoed(t, u, "before")
			r.Proxy.DelAddr(t, "wan0", f.source)
			r.inState("down", 1)
			if _, err := r.through("127.0.0.1:1080", dst); err != refused(replyNetwork) {
				t.Errorf("a new flow without the address: %v, want %v", err, refused(replyNetwork))
			}
			_, _ = u.Write([]byte("away")) // and nothing is to end for it
			r.Proxy.AddAddr(t, "wan0", f.source)
			r.inState("up", 1)
			echoed(t, c, "after")
			echoed(t, u, "after")
			if e, _ := r.log.with("flow"); len(e) != 1 { // the refused one
				t.Errorf("flows have ended: %v", e)
			}
			start := time.Now()
			r.Proxy.DelAddr(t, "wan0", f.source)
			_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client saw %v, want a reset", err)
			}
			if d := time.Since(start); d < hold || d > hold+lostLimit {
				t.Errorf("the relay ended after %v, want %v", d, hold)
			}
			r.log.wait(t, 3, "flow")
		})
	}
}

// TestLostPrimary deletes the primary address of a subnet, and with it, unasked, the
// kernel deletes all the others.
func TestLostPrimary(t *testing.T) {
	r := newRig(t)
	r.Proxy.Sysctl(t, "net.ipv4.conf.wan0.promote_secondaries", "0")
	r.Server.EchoTCP(t, wildcard(nstest.ServerV4(1), 7))
	var config strings.Builder
	config.WriteString("default = \"deny\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	var conns []net.Conn
	const n = 5
	for i := range n {
		fmt.Fprintf(&config, "[[rules]]\nto = \"%v\"\nuse = \"%v\"\n", nstest.ServerV4(i+1), nstest.ProxyV4(nstest.FirstSource+i))
	}
	r.serve(config.String())
	for i := range n {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(i+1), 7))
		if err != nil {
			t.Fatal(err)
		}
		echoed(t, c, "x")
		conns = append(conns, c)
	}
	ended := watchEnds(conns)
	start := time.Now()
	r.Proxy.DelAddr(t, "wan0", netip.PrefixFrom(nstest.ProxyV4(1), 24))
	if d := ended.wait().Sub(start); d > lostLimit {
		t.Errorf("it took %v", d)
	}
	r.inState("down", n)
}

// TestDuplicateAddressDetection uses an IPv6 address when it is no longer tentative, and
// not before.
func TestDuplicateAddressDetection(t *testing.T) {
	nstest.Need(t, "ip")
	r := newRig(t)
	r.Proxy.Sysctl(t, "net.ipv6.conf.wan0.accept_dad", "1")
	r.Proxy.Sysctl(t, "net.ipv6.conf.wan0.dad_transmits", "2")
	far := r.Server.GreetTCP(t, wildcard(nstest.ServerV6(1), 4000))
	r.serve("default = \"2001:db8:1::99\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	if e := r.inState("waiting", 1)[0]; !strings.Contains(e.text("err"), "is not on this host") {
		t.Errorf("the line is %v", e)
	}
	r.mustRun("ip", "-6", "addr", "add", "2001:db8:1::99/64", "dev", "wan0")
	refusals := 0
	for {
		tentative := strings.Contains(r.mustRun("ip", "-6", "addr", "show", "dev", "wan0", "tentative"), "2001:db8:1::99")
		source, err := r.sourceOf(at(nstest.ServerV6(1), 4000))
		if err == nil {
			if stillTentative := strings.Contains(r.mustRun("ip", "-6", "addr", "show", "dev", "wan0", "tentative"), "2001:db8:1::99"); stillTentative {
				t.Error("a flow was opened from a tentative address")
			}
			if source != netip.MustParseAddr("2001:db8:1::99") {
				t.Errorf("the flow left from %v", source)
			}
			break
		}
		if err != refused(replyNetwork) {
			t.Fatalf("refused by %v, want %v", err, refused(replyNetwork))
		}
		if tentative {
			refusals++
		}
		if refusals > 100000 {
			t.Fatal("the address stays tentative")
		}
	}
	if refusals == 0 {
		t.Error("the address was never seen to be tentative")
	}
	r.inState("up", 1) // the flow may be there before the line
	if e, _ := r.log.with("source changed"); len(e) != 2 || e[1].text("state") != "up" {
		t.Errorf("the source's lines are %v, want one of waiting and one of up", e)
	}
	if n := len(far.Peers()); n != 1 {
		t.Errorf("the far end was called %d times, want once", n)
	}
	t.Logf("%d flows were refused while the address was tentative", refusals)
}

// mustRun runs a command on the proxy host and returns what it prints.
func (r *rig) mustRun(name string, args ...string) string {
	r.t.Helper()
	got := r.run(name, args...)
	if got.Err != nil {
		r.t.Fatalf("%s %s: %v", name, strings.Join(args, " "), got)
	}
	return got.Stdout
}

// TestFollowInterface follows the addresses of a link: flows end with the old one, and
// new ones leave from the new one. So does a fixed port, before any datagram.
func TestFollowInterface(t *testing.T) {
	nstest.Need(t, "ip")
	r := newRig(t)
	nstest.Join(t, "ppp0", r.Proxy, r.Server)
	r.Server.AddAddr(t, "ppp0", netip.MustParsePrefix("192.0.2.254/24"))
	r.Server.AddAddr(t, "ppp0", netip.MustParsePrefix("2001:db8:9::254/64"))
	r.Server.GreetTCP(t, wildcard(nstest.ServerV4(1), 4000))
	r.Server.GreetTCP(t, wildcard(nstest.ServerV6(1), 4000))
	r.serve(fmt.Sprintf("default = \"dsl\"\n[sources]\ndsl = { interface = \"ppp0\" }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[[listen]]\nudp = \"127.0.0.1:5300\"\nto = \"%v:7\"\nuse = \"dsl\"\nsource_port = 5062\n", nstest.ServerV4(2)))
	r.inState("waiting", 1)
	for _, a := range []struct {
		addr netip.Prefix
		dst  netip.Addr
	}{
		{netip.MustParsePrefix("192.0.2.7/24"), nstest.ServerV4(1)},
		{netip.MustParsePrefix("192.0.2.8/24"), nstest.ServerV4(1)},
		{netip.MustParsePrefix("2001:db8:9::7/64"), nstest.ServerV6(1)},
		{netip.MustParsePrefix("2001:db8:9::8/64"), nstest.ServerV6(1)},
	} {
		dst := at(a.dst, 4000)
		if _, err := r.sourceOf(dst); err != refused(replyNetwork) {
			t.Fatalf("without an address: %v, want %v", err, refused(replyNetwork))
		}
		r.provider(a.addr)
		eventually(t, "flows leave from the link's address", func() bool {
			source, err := r.sourceOf(dst)
			return err == nil && source == a.addr.Addr()
		})
		if four := a.addr.Addr().As16(); a.addr.Addr().Is4() {
			held := fmt.Sprintf(" %02X%02X%02X%02X:%04X ", four[15], four[14], four[13], four[12], 5062)
			eventually(t, "the fixed port is held", func() bool { return listensUDPAt(t, r.Proxy, held) })
		}
		c, err := r.through("127.0.0.1:1080", dst)
		if err != nil {
			t.Fatal(err)
		}
		if source, err := readAddr(c); err != nil || source != a.addr.Addr() {
			t.Fatalf("the flow leaves from %v, %v, want %v", source, err, a.addr.Addr())
		}
		r.Proxy.DelAddr(t, "ppp0", a.addr)
		_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
		start := time.Now()
		_, err = c.Read(make([]byte, 1))
		wantReset(t, err, start)
	}
	for _, msg := range []string{"source port is there", "source port is gone"} { // with each IPv4 address
		if e := r.log.wait(t, 2, msg); len(e) != 2 {
			t.Errorf("%d lines %q, want 2", len(e), msg)
		}
	}
}

// provider gives ppp0 an address, and its packets their way, as a provider's script does.
func (r *rig) provider(a netip.Prefix) {
	r.t.Helper()
	r.Proxy.AddAddr(r.t, "ppp0", a)
	family, gateway := "-4", "192.0.2.254"
	if a.Addr().Is6() {
		family, gateway = "-6", "2001:db8:9::254"
	}
	r.mustRun("ip", family, "route", "replace", "default", "via", gateway, "dev", "ppp0", "table", "107")
	r.mustRun("ip", family, "rule", "add", "from", a.Addr().String(), "lookup", "107")
}
