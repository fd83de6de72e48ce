//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestWaitingListeners starts without the addresses to listen on. Each is served once it
// is there.
func TestWaitingListeners(t *testing.T) {
	r := newRig(t)
	echo := r.Server.EchoTCP(t, wildcard(nstest.ServerV4(1), 7))
	r.Server.EchoUDP(t, wildcard(nstest.ServerV4(1), 7))
	four, six := netip.MustParsePrefix("198.51.100.99/24"), netip.MustParsePrefix("2001:db8:1::99/64")
	config := fmt.Sprintf("default = %q\n[[listen]]\nname = \"office\"\nmixed = [\"127.0.0.1:1080\", \"%v:1080\", \"[%v]:1080\"]\nallow = [\"198.51.100.0/24\", \"2001:db8::/32\", \"127.0.0.0/8\"]\n[[listen]]\nname = \"media\"\nudp = \"%v:5300-5399\"\nto = \"%v:7\"\nallow = \"198.51.100.0/24\"\n",
		wan4, four.Addr(), six.Addr(), four.Addr(), nstest.ServerV4(1))
	r.serve(config)
	r.log.wait(t, 3, "listener waits for its address")
	if got := r.listenerStates(); got != "office waiting media waiting" {
		t.Errorf("status without the addresses: %s", got)
	}
	dst := at(nstest.ServerV4(1), echo.Addr.Port())
	works := func(listener string) bool {
		c, err := r.through(listener, dst)
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = tryEcho(c, "x")
		return err == nil
	}
	if !works("127.0.0.1:1080") {
		t.Error("the listener whose address is there does not work")
	}
	for _, a := range []netip.Prefix{four, six} {
		r.Proxy.AddAddr(t, "wan0", a)
		eventually(t, "the listener works", func() bool { return works(at(a.Addr(), 1080).String()) })
	}
	eventually(t, "status has both listeners up", func() bool { return r.listenerStates() == "office up media up" })
	u := r.dialUDP("198.51.100.99:5399")
	echoed(t, u, "x")
	if e, _ := r.log.with("listener waits for its address"); len(e) != 3 {
		t.Errorf("%d lines of listeners that wait, want 3: %v", len(e), e)
	}
	if e := r.reload(config); e.text("msg") != "reloaded" || !works(at(four.Addr(), 1080).String()) {
		t.Errorf("the listener does not outlive a reload: %v", e)
	}
	r.Proxy.DelAddr(t, "wan0", four)
	r.Proxy.AddAddr(t, "wan0", four)
	eventually(t, "the listener works when its address was away", func() bool { return works(at(four.Addr(), 1080).String()) })
}

// listenerStates is what srcproxy status says of each listener.
func (r *rig) listenerStates() string {
	r.t.Helper()
	var status struct {
		Listeners []struct{ Name, State string }
	}
	got := r.program("status", "--json")
	if err := json.Unmarshal([]byte(got.Stdout), &status); err != nil {
		r.t.Fatalf("status: %v: %v", err, got)
	}
	var words []string
	for _, l := range status.Listeners {
		words = append(words, l.Name, l.State)
	}
	return strings.Join(words, " ")
}

// TestWaitingListenerMeetsAnother has the port of a listener taken by another process
// when its address comes: the line names the process, and once that has ended the
// listener is there.
func TestWaitingListenerMeetsAnother(t *testing.T) {
	nstest.Need(t, "nc.openbsd")
	r := newRig(t)
	echo := r.Server.EchoTCP(t, wildcard(nstest.ServerV4(1), 7))
	r.serve(fmt.Sprintf("default = %q\n[[listen]]\nmixed = \"198.51.100.99:1080\"\nallow = \"198.51.100.0/24\"\n", wan4))
	r.log.wait(t, 1, "listener waits for its address")
	other := r.Proxy.Start(t, r.command("nc.openbsd", "-l", "-k", "0.0.0.0", "1080"))
	eventually(t, "the other process listens", func() bool {
		c, err := r.tryDial("127.0.0.1:1080")
		return err == nil && c.Close() == nil
	})
	r.Proxy.AddAddr(t, "wan0", netip.MustParsePrefix("198.51.100.99/24"))
	e := r.log.wait(t, 1, "listener cannot be opened")[0]
	if want := fmt.Sprintf("pid %d (nc.openbsd) has it", other.Pid()); !strings.Contains(e.text("err"), want) {
		t.Errorf("the line is %v, want %q in it", e, want)
	}
	if e := r.reload(strings.ReplaceAll(r.last, "1080", "1081")); e.text("msg") != "reloaded" {
		t.Errorf("a free port instead is answered by %v", e)
	}
	if e := r.reload(strings.ReplaceAll(r.last, "1081", "1080")); !strings.Contains(e.text("err"), "(nc.openbsd) has it") {
		t.Errorf("a reload to the taken port is answered by %v", e)
	}
	other.Kill()
	if e := r.reload(r.last); e.text("msg") != "reloaded" {
		t.Errorf("the port that is free now is answered by %v", e)
	}
	c, err := r.through("198.51.100.99:1080", at(nstest.ServerV4(1), echo.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	echoed(t, c, "x")
}

// TestWaitingListenerTriesAgain has the port freed while the listener waits for it.
func TestWaitingListenerTriesAgain(t *testing.T) {
	nstest.Need(t, "nc.openbsd")
	r := newRig(t)
	r.serve(fmt.Sprintf("default = %q\n[[listen]]\nudp = \"198.51.100.99:5300\"\nto = \"%v:7\"\nallow = \"198.51.100.0/24\"\n", wan4, nstest.ServerV4(1)))
	r.Server.EchoUDP(t, wildcard(nstest.ServerV4(1), 7))
	other := r.Proxy.Start(t, r.command("nc.openbsd", "-u", "-l", "-k", "0.0.0.0", "5300"))
	eventually(t, "the other process listens", func() bool { return listensUDP(t, r.Proxy, 5300) })
	r.Proxy.AddAddr(t, "wan0", netip.MustParsePrefix("198.51.100.99/24"))
	r.log.wait(t, 1, "listener cannot be opened")
	eventually(t, "status tells of it", func() bool {
		l := asked[admin.Status](t, r, "status").Listeners[0]
		return l.State == admin.Down && strings.Contains(l.Reason, "(nc.openbsd) has it")
	})
	other.Kill()
	r.log.wait(t, 1, "listening")
	eventually(t, "status has it up", func() bool { return asked[admin.Status](t, r, "status").Listeners[0].State == admin.Up })
	echoed(t, r.dialUDP("198.51.100.99:5300"), "x")
	if e, _ := r.log.with("listener cannot be opened"); len(e) != 1 {
		t.Errorf("%d lines of a listener that cannot be opened, want 1", len(e))
	}
}

// dialUDP is a UDP socket on the proxy host that is connected to a literal address.
func (r *rig) dialUDP(address string) net.Conn {
	r.t.Helper()
	c, err := r.Proxy.Dial(net.Dialer{}, "udp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c
}
