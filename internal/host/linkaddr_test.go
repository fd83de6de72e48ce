package host

import (
	"net/netip"
	"testing"
)

func TestLinkAddr(t *testing.T) {
	type address struct {
		text  string
		flags Flags
	}
	for _, tt := range []struct {
		name  string
		addrs []address
		want4 string
		want6 string
	}{
		{"none", nil, "", ""},
		{"one of each", []address{{"192.0.2.7", 0}, {"2001:db8::7", 0}}, "192.0.2.7", "2001:db8::7"},
		{"the primary", []address{{"192.0.2.7", 0}, {"192.0.2.8", Secondary}}, "192.0.2.7", ""},
		{"temporary", []address{{"2001:db8::8", Secondary}, {"2001:db8::7", 0}}, "", "2001:db8::7"},
		{"deprecated", []address{{"2001:db8::8", Deprecated}, {"2001:db8::7", 0}}, "", "2001:db8::7"},
		{"tentative", []address{{"2001:db8::8", Tentative}}, "", ""},
		{"duplicate", []address{{"2001:db8::8", Tentative | DADFailed}}, "", ""},
		{"link-local", []address{{"fe80::7", 0}, {"169.254.0.7", 0}}, "", ""},
		{"unique local alone", []address{{"fd00::7", 0}}, "", "fd00::7"},
		{"unique local first", []address{{"fd00::7", 0}, {"2001:db8::7", 0}}, "", "2001:db8::7"},
		{"private", []address{{"10.0.0.7", 0}, {"192.0.2.7", 0}}, "10.0.0.7", ""},
		{"another link's", []address{{"loop 192.0.2.7", 0}}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []Address
			for _, a := range tt.addrs {
				link, text := "ppp0", a.text
				if text == "loop 192.0.2.7" {
					link, text = "lo", "192.0.2.7"
				}
				ip := netip.MustParseAddr(text)
				list = append(list, Address{Addr: ip, Prefix: netip.PrefixFrom(ip, ip.BitLen()), Link: link, Flags: a.flags})
			}
			s := NewSnapshot([]Link{{Index: 2, Name: "ppp0"}}, list, nil)
			for is4, want := range map[bool]string{true: tt.want4, false: tt.want6} {
				got := s.LinkAddr("ppp0", is4)
				if want == "" && got.IsValid() || want != "" && got.String() != want {
					t.Errorf("IPv4 %v: got %v, want %q", is4, got, want)
				}
			}
			if n := testing.AllocsPerRun(10, func() { s.LinkAddr("ppp0", true) }); n != 0 {
				t.Errorf("got %v allocations, want 0", n)
			}
		})
	}
}
