package inbound

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// own are this host's addresses in these tests.
func own(a netip.Addr) bool {
	return a == netip.MustParseAddr("198.51.100.10") || a == netip.MustParseAddr("2001:db8::10")
}

func guard(client, dst, prefix string) error {
	f := dialer.Flow{Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), 80)}
	if client != "" {
		f.Client = netip.AddrPortFrom(netip.MustParseAddr(client), 5000)
	}
	var d dialer.Decision
	if prefix != "" {
		d.Prefix = netip.MustParsePrefix(prefix)
	}
	return Guard(own)(f, d)
}

// TestGuardRanges tries both ends of each range, and its neighbours.
func TestGuardRanges(t *testing.T) {
	inside := []string{
		"0.0.0.1", "0.255.255.255",
		"127.0.0.0", "127.0.0.1", "127.255.255.255",
		"169.254.0.0", "169.254.169.254", "169.254.255.255",
		"224.0.0.0", "239.255.255.255", "255.255.255.255",
		"::1", "fe80::", "fe80::1", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ff00::", "ff02::1",
		"198.51.100.10", "2001:db8::10",
		// The same, carried by IPv6.
		"::ffff:127.0.0.1", "::ffff:0.0.0.1", "::ffff:169.254.169.254", "::ffff:198.51.100.10",
		"64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::198.51.100.10", "64:ff9b::0.0.0.0",
		"2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:c633:640a::",
		"::127.0.0.1", "::198.51.100.10",
		// A zone is no part of the address.
		"fe80::1%lo", "::1%lo", "64:ff9b::127.0.0.1%lo", "2001:db8::10%eth0",
	}
	outside := []string{
		"1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "223.255.255.255", "240.0.0.1",
		"255.255.255.254", "10.0.0.1", "198.51.100.9", "198.51.100.11",
		"fe7f::1", "fec0::1", "fe00::1", "2001:db8::11", "64:ff9b::198.51.100.11", "2002:c633:640b::", "::ffff:10.0.0.1",
	}
	for _, client := range []string{"192.0.2.7", "2001:db8::7", "198.51.100.10", "::ffff:192.0.2.7"} {
		for _, dst := range inside {
			for _, prefix := range []string{"", "0.0.0.0/0", "::/0"} {
				if err := guard(client, dst, prefix); !errors.Is(err, dialer.ErrDenied) {
					t.Errorf("%s to %s by %q: got %v, want it denied", client, dst, prefix, err)
				}
			}
		}
		for _, dst := range outside {
			if err := guard(client, dst, ""); err != nil {
				t.Errorf("%s to %s: got %v", client, dst, err)
			}
		}
	}
	for _, client := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""} {
		for _, dst := range append(inside, outside...) {
			if err := guard(client, dst, ""); err != nil {
				t.Errorf("%q to %s: got %v", client, dst, err)
			}
		}
	}
}

func TestGuardUnspecified(t *testing.T) {
	for _, client := range []string{"", "127.0.0.1", "192.0.2.7"} {
		for _, dst := range []string{"0.0.0.0", "::", "::ffff:0.0.0.0", "::%lo"} {
			for _, prefix := range []string{"", "0.0.0.0/32", "::/128", "0.0.0.0/8"} {
				if err := guard(client, dst, prefix); !errors.Is(err, dialer.ErrDenied) || !errors.Is(err, errUnspecified) {
					t.Errorf("%q to %s by %q: got %v, want it denied", client, dst, prefix, err)
				}
			}
		}
	}
}

func TestGuardPrefixes(t *testing.T) {
	tests := []struct {
		dst, prefix string
		ok          bool
	}{
		{"127.0.0.1", "127.0.0.0/8", true},
		{"127.0.0.1", "127.0.0.1/32", true},
		{"127.0.0.1", "126.0.0.0/7", false},
		{"127.0.0.1", "0.0.0.0/0", false},
		{"::ffff:127.0.0.1", "127.0.0.0/8", true},
		{"169.254.169.254", "169.254.169.254/32", true},
		{"169.254.169.254", "169.254.0.0/15", false},
		{"224.0.0.251", "224.0.0.0/24", true},
		{"224.0.0.251", "224.0.0.0/3", false},
		{"0.0.0.1", "0.0.0.0/8", true},
		{"::1", "::1/128", true},
		{"::1", "::/127", false},
		{"::1", "::/0", false},
		{"fe80::1", "fe80::/64", true},
		{"fe80::1", "fe80::/9", false},
		{"fe80::1%lo", "fe80::/10", true},
		{"ff02::1", "ff02::/16", true},
		{"198.51.100.10", "198.51.100.10/32", true},
		{"198.51.100.10", "198.51.100.8/30", false},
		{"2001:db8::10", "2001:db8::10/128", true},
		{"2001:db8::10", "2001:db8::/32", false},
		{"64:ff9b::127.0.0.1", "64:ff9b::/96", false},
		{"64:ff9b::127.0.0.1", "64:ff9b::7f00:1/128", false}, // fails closed: nobody needs it
		{"127.0.0.1", "10.0.0.0/8", false},
	}
	for _, tt := range tests {
		t.Run(tt.dst+" by "+tt.prefix, func(t *testing.T) {
			err := guard("192.0.2.7", tt.dst, tt.prefix)
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, dialer.ErrDenied) {
				t.Errorf("got %v, want it let in: %t", err, tt.ok)
			}
		})
	}
}

// TestGuardInDialer shows what decides in the end: a name or the default does not open
// a range, a prefix does, and an address that a name has is judged like any other.
func TestGuardInDialer(t *testing.T) {
	match := func(s string) dialer.Match {
		m, err := dialer.ParseMatch(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	use := dialer.Use{Source: &dialer.Source{Name: "wan1", Addrs: []netip.Addr{sourceAddr}}}
	table, err := dialer.NewTable([]dialer.Rule{
		{Name: "exact", To: []dialer.Match{match("127.0.0.5"), match("db.example")}, Use: use},
		{Name: "wide", To: []dialer.Match{match("126.0.0.0/7")}, Ports: []dialer.PortRange{{Lo: 81, Hi: 81}}, Use: use},
	}, use)
	if err != nil {
		t.Fatal(err)
	}
	d := &dialer.Dialer{Table: table, Guard: Guard(own)}
	tests := []struct {
		name, dst string
		port      uint16
		ok        bool
	}{
		{"", "127.0.0.5", 80, true},
		{"other.example", "127.0.0.5", 80, true}, // the prefix decided
		{"", "127.0.0.6", 80, false},
		{"", "127.0.0.6", 81, false},
		{"db.example", "127.0.0.6", 80, false},
		{"", "198.51.100.10", 80, false},
		{"", "203.0.113.5", 80, true},
	}
	for _, tt := range tests {
		f := dialer.Flow{
			Network: "tcp",
			Name:    tt.name,
			Dst:     netip.AddrPortFrom(netip.MustParseAddr(tt.dst), tt.port),
			Client:  netip.MustParseAddrPort("192.0.2.7:5000"),
		}
		if dec := d.Decide(f); (dec.Err == nil) != tt.ok {
			t.Errorf("%q %s:%d: got %v, want it let in: %t", tt.name, tt.dst, tt.port, dec.Err, tt.ok)
		}
	}
}
