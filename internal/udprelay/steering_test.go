package udprelay

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// device returns the link that c is bound to.
func device(t *testing.T, c *pktinfo.Conn) string {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var inner error
	if err := raw.Control(func(fd uintptr) {
		name, inner = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	}); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return name
}

// TestSteeredOwners keeps the sockets of sources apart that share an address but not a
// device.
func TestSteeredOwners(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	plain, bound := source("plain", "127.0.0.2"), source("bound", "127.0.0.2")
	bound.Device = "lo"
	for _, s := range []*dialer.Source{plain, bound, plain, bound} {
		f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: s}), Target: to(p.addr)})
		echo(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
	}
	devices := make(map[string]int)
	e.mu.Lock()
	for _, o := range e.owners {
		devices[device(t, o.conn)]++
	}
	e.mu.Unlock()
	if len(devices) != 2 || devices["lo"] != 2 || devices[""] != 2 {
		t.Errorf("sockets by device: %v, want two of each", devices)
	}
}

// TestSteeredPort refuses a fixed port that a source has whose socket does not suit: one
// with freebind, too, from which the kernel would let datagrams of an address that is gone
// leave.
func TestSteeredPort(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	for i, change := range []func(*dialer.Source){
		func(s *dialer.Source) { s.Device = "lo" },
		func(s *dialer.Source) { s.FreeBind = true },
	} {
		port := freePort(t, "127.0.0.3")
		plain, bound := source("plain", "127.0.0.3"), source("bound", "127.0.0.3")
		change(bound)
		f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: bound}), Target: to(p.addr), SourcePort: port})
		echo(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
		other := newPeer(t, "127.0.0.1:0", false)
		f = forward(t, e, "127.0.0.1:0", &Settings{Dialer: always(t, dialer.Use{Source: plain}), Target: to(other.addr), SourcePort: port})
		send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
		until(t, "it is refused", func() bool { return dropped(e, Refused) == i+1 })
		if want := netip.AddrPortFrom(plain.Addrs[0], port).String() + " is in use by a source with another device, mark or freebind"; !strings.Contains(lines.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, lines)
		}
	}
}

// TestSteeredExits gives a source with a device a socket of its own in an association.
func TestSteeredExits(t *testing.T) {
	e, _ := newEngine(t)
	free, steered := newPeer(t, "127.0.0.11:0", false), newPeer(t, "127.0.0.12:0", false)
	bound := source("bound", "127.0.0.3")
	bound.Device = "lo"
	d := rulesTo(t, map[string]dialer.Use{"127.0.0.11": useOf("wan1", "127.0.0.2"), "127.0.0.12": {Source: bound}})
	a := associate(t, e, d, nil)
	c := open(t, "127.0.0.9:0")
	through(t, c, a, free.addr, "x")
	through(t, c, a, steered.addr, "x")
	if got := steered.sources(t, 1)[0]; got.Addr() != bound.Addrs[0] {
		t.Errorf("it was called from %v, want %v", got, bound.Addrs[0])
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	devices := make(map[string]int)
	for _, x := range a.exits {
		devices[device(t, x.conn)]++
	}
	if len(devices) != 2 || devices["lo"] != 1 || devices[""] != 1 {
		t.Errorf("sockets by device: %v, want one of each", devices)
	}
}

// TestNoSuchDevice sends nothing, and keeps no socket.
func TestNoSuchDevice(t *testing.T) {
	e, lines := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	lost := source("lost", "127.0.0.2")
	lost.Device = "ppp77"
	d := always(t, dialer.Use{Source: lost})
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr)})
	send(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "x")
	a := associate(t, e, d, nil)
	send(t, open(t, "127.0.0.9:0"), a.Addr(), datagram(p.addr, "x"))
	until(t, "both are refused", func() bool { return dropped(e, Refused) == 2 })
	if n := lines.count("device ppp77"); n != 2 {
		t.Errorf("the log names the device %d times, want twice:\n%s", n, lines)
	}
	if n := e.Stats().Owners; n != 0 {
		t.Errorf("%d sockets are left", n)
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if n := len(a.exits); n != 1 {
		t.Errorf("the association has %d sockets, want its first", n)
	}
}
