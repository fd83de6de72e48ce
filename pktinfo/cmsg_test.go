//go:build linux

package pktinfo

import (
	"net/netip"
	"testing"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

func TestControlRoundTrip(t *testing.T) {
	tests := []struct {
		name             string
		local            string
		ifIndex, segment int
		want             Message
	}{
		{"nothing", "", 0, 0, Message{}},
		{"no local", "", 3, 0, Message{}},
		{"IPv4", "192.0.2.1", 0, 0, Message{Addr: Addr{Local: netip.MustParseAddr("192.0.2.1")}}},
		{"mapped", "::ffff:192.0.2.1", 2, 0, Message{Addr: Addr{Local: netip.MustParseAddr("192.0.2.1"), IfIndex: 2}}},
		{"IPv6", "2001:db8::1", 1 << 20, 0, Message{Addr: Addr{Local: netip.MustParseAddr("2001:db8::1"), IfIndex: 1 << 20}}},
		{"zone", "fe80::1%eth0", 2, 0, Message{Addr: Addr{Local: netip.MustParseAddr("fe80::1"), IfIndex: 2}}},
		{"unspecified", "::", 4, 0, Message{Addr: Addr{IfIndex: 4}}},
		{"group", "ff02::1", 4, 0, Message{Addr: Addr{IfIndex: 4}}},
		{"segment", "192.0.2.1", 0, 1200, Message{Addr: Addr{Local: netip.MustParseAddr("192.0.2.1")}, Segment: 1200}},
		{"segment alone", "", 0, 65535, Message{Segment: 65535}},
		{"segment too large", "", 0, 65536, Message{}},
		{"segment below zero", "", 0, -1, Message{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var local netip.Addr
			if tt.local != "" {
				local = netip.MustParseAddr(tt.local)
			}
			b := AppendControl([]byte{9}, local, tt.ifIndex, tt.segment)
			got, err := ParseControl(b[1:])
			if err != nil {
				t.Fatal(err)
			}
			if b[0] != 9 || got.Addr != tt.want.Addr || got.Segment != tt.want.Segment {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseControlMalformed(t *testing.T) {
	good := AppendControl(nil, netip.MustParseAddr("192.0.2.1"), 1, 1200)
	first := unix.CmsgSpace(sizeofPktinfo4)
	for n := range good {
		m, err := ParseControl(good[:n])
		// Padding that is missing at the end does no harm.
		whole := n == 0 || n >= unix.CmsgLen(sizeofPktinfo4) && n <= first || n >= first+unix.CmsgLen(sizeofSegment)
		if whole != (err == nil) {
			t.Errorf("%d bytes: got %+v, %v", n, m, err)
		}
	}
	short := []struct{ level, typ int }{
		{unix.IPPROTO_IP, unix.IP_PKTINFO},
		{unix.IPPROTO_IP, unix.IP_RECVERR},
		{unix.IPPROTO_IP, unix.IP_ORIGDSTADDR},
		{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR},
		{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
		{unix.IPPROTO_IPV6, unix.IPV6_ORIGDSTADDR},
		{unix.IPPROTO_UDP, unix.UDP_GRO},
		{unix.IPPROTO_UDP, unix.UDP_SEGMENT},
	}
	for _, s := range short {
		b := appendPadding(append(appendHeader(nil, s.level, s.typ, 1), 0), 1)
		if _, err := ParseControl(b); err == nil {
			t.Errorf("level %d type %d: one byte of data is no error", s.level, s.typ)
		}
	}
	b := appendHeader(nil, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 0)
	if _, err := ParseControl(append(b, good...)); err != nil {
		t.Errorf("unknown kind: %v", err)
	}
}

// FuzzParseControl looks for panics, and checks that what is read can be
// written and read again, as x/net reads it.
func FuzzParseControl(f *testing.F) {
	f.Add(AppendControl(nil, netip.MustParseAddr("192.0.2.1"), 1, 1200))
	f.Add(AppendControl(nil, netip.MustParseAddr("2001:db8::1"), 1, 0))
	f.Add(append(appendHeader(nil, unix.IPPROTO_UDP, unix.UDP_GRO, 4), 1, 2, 0, 0))
	f.Add(append(appendHeader(nil, unix.IPPROTO_IP, unix.IP_RECVERR, 16), make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e SocketError
		_ = parseControl(b, new(Message), &e) // must not panic
		m, err := ParseControl(b)
		if err != nil {
			return
		}
		if m.Addr.Local.Is4In6() || m.OrigDst.Addr().Is4In6() {
			t.Fatalf("mapped: %+v", m)
		}
		c := AppendControl(nil, m.Addr.Local, m.Addr.IfIndex, m.Segment)
		again, err := ParseControl(c)
		if err != nil || again.Addr.Local != m.Addr.Local {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		if m.Addr.Local.Is6() {
			var cm ipv6.ControlMessage
			if err := cm.Parse(c); err != nil || !cm.Dst.Equal(m.Addr.Local.AsSlice()) {
				t.Fatalf("x/net reads %v, %v", cm, err)
			}
		}
	})
}

// FuzzControl writes whatever it is given and reads it again.
func FuzzControl(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, 1, 1200)
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), 0, 0)
	f.Fuzz(func(t *testing.T, a []byte, ifIndex, segment int) {
		local, _ := netip.AddrFromSlice(a)
		m, err := ParseControl(AppendControl(nil, local, ifIndex, segment))
		if err != nil {
			t.Fatal(err)
		}
		want := local.Unmap()
		if want.IsUnspecified() || want.Is6() && want.IsMulticast() {
			want = netip.Addr{}
		}
		if m.Addr.Local != want {
			t.Errorf("Local is %v, want %v", m.Addr.Local, want)
		}
		if local.IsValid() && m.Addr.IfIndex != int(int32(ifIndex)) {
			t.Errorf("IfIndex is %d, want %d", m.Addr.IfIndex, ifIndex)
		}
		if ok := segment > 0 && segment <= 65535; ok && m.Segment != segment || !ok && m.Segment != 0 {
			t.Errorf("Segment is %d, want %d", m.Segment, segment)
		}
	})
}
