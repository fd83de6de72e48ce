package hostname_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/hostname"
)

// names of the greatest and of one octet more than the greatest length.
var (
	name253 = strings.Repeat("a.", 126) + "a"
	name254 = strings.Repeat("a.", 126) + "ab"
)

func TestParse(t *testing.T) {
	tests := []struct {
		host string
		addr string // an address wanted
		name string // a name wanted; with neither the host is refused
	}{
		{host: "server.example", name: "server.example"},
		{host: "Server.EXAMPLE.", name: "server.example"},
		{host: "localhost", name: "localhost"},
		{host: "_sip._udp.server.example", name: "_sip._udp.server.example"},
		{host: "r1---sn-4g5e-.server.example", name: "r1---sn-4g5e-.server.example"},
		{host: "xn--bcher-kva.example", name: "xn--bcher-kva.example"},
		{host: "1.server.example", name: "1.server.example"},
		{host: "server.example2", name: "server.example2"},
		{host: "0xg", name: "0xg"},
		{host: "1a", name: "1a"},
		{host: name253, name: name253},
		{host: name253 + ".", name: name253},
		{host: strings.Repeat("a", 63) + ".example", name: strings.Repeat("a", 63) + ".example"},

		{host: "192.0.2.1", addr: "192.0.2.1"},
		{host: "192.0.2.1.", addr: "192.0.2.1"},
		{host: "0.0.0.0", addr: "0.0.0.0"},
		{host: "::1", addr: "::1"},
		{host: "::", addr: "::"},
		{host: "2001:DB8::1", addr: "2001:db8::1"},
		{host: "::ffff:192.0.2.1", addr: "192.0.2.1"},
		{host: "::FFFF:c000:201", addr: "192.0.2.1"},
		{host: "::192.0.2.1", addr: "::c000:201"},
		{host: "64:ff9b::192.0.2.1", addr: "64:ff9b::c000:201"},

		{host: ""},
		{host: "."},
		{host: ".."},
		{host: ".example"},
		{host: "a..example"},
		{host: "a.example.."},
		{host: "192.0.2.1.."},
		{host: name254},
		{host: strings.Repeat("a", 255)},
		{host: strings.Repeat("a", 64) + ".example"},
		{host: strings.Repeat("a.", 9000)},
		{host: "\x00.example"},
		{host: "server.example\x00"},
		{host: "192.0.2.1\x00.example"},
		{host: "a\r\nb.example"},
		{host: "\x1b[31m.example"},
		{host: "%n.example"},
		{host: "<img>"},
		{host: "a b.example"},
		{host: " server.example"},
		{host: "user@server.example"},
		{host: "server.example/"},
		{host: "*.example"},
		{host: "bücher.example"},
		{host: "１２７.0.0.9"},
		{host: "a\x7f.example"},
		{host: "[::1]"},
		{host: "[192.0.2.1]"},
		{host: "[server.example]"},
		{host: "::1%lo"},
		{host: "fe80::1%eth0"},
		{host: "::ffff:192.0.2.1%lo"},
		{host: "192.0.2.1%lo"},
		{host: "::1."},
		{host: "a:b"},
		{host: "server.example:80"},
		{host: "0x7f000009"},
		{host: "2130706441"},
		{host: "0177.0.0.011"},
		{host: "127.9"},
		{host: "127.0.9"},
		{host: "127.0.0.09"},
		{host: "127.0.0.0x9"},
		{host: "127.0.0.0X9."},
		{host: "127.0.0.0x"},
		{host: "256.0.0.1"},
		{host: "1.2.3.4.5"},
		{host: "server.1"},
		{host: "0"},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			addr, name, err := hostname.Parse(tt.host)
			want := netip.Addr{}
			if tt.addr != "" {
				want = netip.MustParseAddr(tt.addr)
			}
			if addr != want || name != tt.name {
				t.Errorf("Parse(%q) = %v, %q, want %v, %q", tt.host, addr, name, want, tt.name)
			}
			refused := tt.addr == "" && tt.name == ""
			if errors.Is(err, hostname.ErrInvalid) != refused {
				t.Errorf("Parse(%q): error %v, want refused = %v", tt.host, err, refused)
			}
			checkError(t, err)
		})
	}
}

// checkError wants an error that a log line and a terminal can show.
func checkError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	s := err.Error()
	if len(s) > 1200 {
		t.Errorf("error of %d octets", len(s))
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			t.Errorf("error %q has byte %#02x", s, s[i])
		}
	}
}

func TestParseAllocs(t *testing.T) {
	for _, host := range []string{"server.example.", "192.0.2.1", "2001:db8::1"} {
		got := testing.AllocsPerRun(100, func() {
			if _, _, err := hostname.Parse(host); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("Parse(%q) allocates %v times, want 0", host, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"server.example", "192.0.2.1.", "::ffff:192.0.2.1", "0x7f.1", "[::1]", "::1%lo", "a\x00b", "bücher.example", "Server.Example", "127.0.0.09",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		addr, name, err := hostname.Parse(host)
		if err != nil {
			if addr.IsValid() || name != "" || !errors.Is(err, hostname.ErrInvalid) {
				t.Fatalf("Parse(%q) = %v, %q, %v: a result beside an error", host, addr, name, err)
			}
			checkError(t, err)
			return
		}
		if addr.IsValid() == (name != "") {
			t.Fatalf("Parse(%q) = %v, %q: want one of address and name", host, addr, name)
		}
		if addr.Zone() != "" || addr.Is4In6() {
			t.Fatalf("Parse(%q) = %v: has a zone or is mapped", host, addr)
		}
		canonical := name
		if addr.IsValid() {
			canonical = addr.String()
		}
		addr2, name2, err := hostname.Parse(canonical)
		if addr2 != addr || name2 != name || err != nil {
			t.Fatalf("Parse(%q) = %v, %q but Parse(%q) = %v, %q, %v", host, addr, name, canonical, addr2, name2, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, host := range []string{"smtp.mail.server.example", "192.0.2.1", "2001:db8::1"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := hostname.Parse(host); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
