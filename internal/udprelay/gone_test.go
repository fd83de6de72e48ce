package udprelay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// inside tells a test that it runs in the namespaces that inNamespace made.
const inside = "UDPRELAY_TEST_INSIDE"

// inNamespace runs the calling test once more, in user and network namespaces of its
// own; f is what it does there.
func inNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(inside) != "" {
		f(t)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EACCES):
		t.Skipf("this host allows no user namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestSourceDeleted takes the address of the source away under a flow. Nothing leaves
// then, from that address or from another, and the flow ends; with the address back,
// the next datagram starts a new one, from the same port where that is fixed.
func TestSourceDeleted(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			source, peer string
			port         uint16
		}{
			{"192.0.2.10/32", "127.0.0.1:0", 0},
			{"192.0.2.10/32", "127.0.0.1:0", 5060},
			{"2001:db8::10/128", "[::1]:0", 0},
			{"2001:db8::10/128", "[::1]:0", 5060},
		} {
			t.Run(fmt.Sprint(tt.source, " port ", tt.port), func(t *testing.T) {
				address, err := netlink.ParseAddr(tt.source)
				if err != nil {
					t.Fatal(err)
				}
				address.Flags = unix.IFA_F_NODAD
				deleteUnder(t, tt.port, tt.peer, lo, address)
			})
		}
	})
}

// delivers tells whether a datagram to a comes in. The kernel adds the local route of
// an IPv6 address some time after the address.
func delivers(a net.IP) bool {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: a})
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
		return false
	}
	_, err = c.Read(make([]byte, 1))
	return err == nil
}

func deleteUnder(t *testing.T, port uint16, peerAddress string, lo netlink.Link, address *netlink.Addr) {
	set := func(f func(netlink.Link, *netlink.Addr) error) {
		t.Helper()
		if err := f(lo, address); err != nil {
			t.Fatal(err)
		}
	}
	set(netlink.AddrAdd)
	t.Cleanup(func() { _ = netlink.AddrDel(lo, address) })
	e, lines := newEngine(t)
	p := newPeer(t, peerAddress, false)
	d := always(t, dialer.Use{Source: source("leaving", address.IP.String())})
	f := forward(t, e, "127.0.0.1:0", &Settings{Dialer: d, Target: to(p.addr), SourcePort: port})
	c := open(t, "127.0.0.1:0")
	usable := func() bool { return delivers(address.IP) }
	until(t, "the address is usable", usable)
	echo(t, c, addrPort(f.conn), "1")
	set(netlink.AddrDel)
	send(t, c, addrPort(f.conn), "2")
	until(t, "the flow ends", func() bool { return e.Stats().Flows == 0 && dropped(e, Unsent) == 1 })
	until(t, "its line names the source", func() bool {
		return lines.count(flows.ErrSourceDown.Error()) == 1 && lines.count(`\"leaving\"`) == 1
	})
	for i := range 10 {
		send(t, c, addrPort(f.conn), "3")
		until(t, "nothing is sent", func() bool { return dropped(e, Unsent)+dropped(e, Refused) == i+2 })
	}
	if n := len(p.sources(t, 1)); n != 1 {
		t.Errorf("the peer saw %d datagrams, want 1", n)
	}
	set(netlink.AddrAdd)
	until(t, "the address is back", usable)
	echo(t, c, addrPort(f.conn), "4")
	saw := p.sources(t, 2)
	if saw[0].Addr() != saw[1].Addr() || port != 0 && saw[0] != saw[1] {
		t.Errorf("the peer saw %v", saw)
	}
}
