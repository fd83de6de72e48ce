package dialer_test

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestAddressGone takes a source's address from the host under open sockets: nothing may
// leave from it any more, nor from another in its place.
func TestAddressGone(t *testing.T) {
	inNamespace(t, "40000 40009", func(t *testing.T) {
		for _, tt := range []struct{ source, server string }{
			{"192.0.2.9/32", "127.0.1.1:0"},
			{"2001:db8::9/128", "[::1]:0"},
		} {
			p := netip.MustParsePrefix(tt.source)
			server, got := serveUDP(t, tt.server)
			addressOfLoopback(t, netlink.AddrAdd, p)
			wan := &dialer.Source{Name: "wan", Addrs: []netip.Addr{p.Addr()}}
			s := downs()
			d := dialerOf(t, s, &dialer.Pool{Of: []dialer.Member{{Source: wan}, {Source: mail}}})
			connected, err := d.Dial("udp", server.String())
			if err != nil {
				t.Fatal(err)
			}
			defer connected.Close()
			free := listen(t, d, dialer.Flow{})
			if _, err := connected.Write([]byte("connected")); err != nil {
				t.Fatal(err)
			}
			write(t, free, "free", server)
			for range 2 {
				if saw := next(t, got); saw.peer.Addr() != p.Addr() {
					t.Errorf("the server got %q from %v, want from %v", saw.text, saw.peer, p.Addr())
				}
			}

			addressOfLoopback(t, netlink.AddrDel, p)
			if _, err := connected.Write([]byte("leak")); err == nil {
				t.Errorf("%v is gone, and the connected socket sends on", p)
			}
			_, err = free.WriteTo([]byte("leak"), connected.RemoteAddr())
			if err == nil {
				t.Errorf("%v is gone, and the free socket sends on", p)
			}
			s.down[wan] = errNoCarrier
			write(t, free, "next member", server)
			if saw := next(t, got); saw.text != "next member" || !mailHas(saw.peer.Addr()) {
				t.Errorf("the server got %q from %v", saw.text, saw.peer)
			}
		}
	})
}

func mailHas(a netip.Addr) bool { return a == mail.Addrs[0] || a == mail.Addrs[1] }

func addressOfLoopback(t *testing.T, change func(netlink.Link, *netlink.Addr) error, p netip.Prefix) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		t.Fatal(err)
	}
	a.Flags = unix.IFA_F_NODAD // else an IPv6 address cannot be bound at once
	if err := change(lo, a); err != nil {
		t.Fatalf("%v: %v", p, err)
	}
}
