package explain_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

// crowded is a host with several links, lent and temporary addresses, and containers.
func crowded() *host.Snapshot {
	var addrs []host.Address
	add := func(link string, flags host.Flags, texts ...string) {
		for _, s := range texts {
			p := netip.MustParsePrefix(s)
			addrs = append(addrs, host.Address{Addr: p.Addr(), Prefix: p.Masked(), Link: link, Flags: flags})
		}
	}
	add("lo", host.Permanent, "127.0.0.1/8", "::1/128", "198.51.100.253/32")
	add("wlan0", 0, "192.0.2.7/24", "2001:db8:7::7/64")
	add("wlan0", host.Secondary, "2001:db8:7::abcd/64")
	add("eth0.100", host.Permanent, "198.51.100.10/24", "2001:db8::10/64", "fe80::1/64")
	add("eth0.100", host.Permanent|host.Secondary, "198.51.100.66/24", "198.51.100.64/24", "198.51.100.65/24", "198.51.100.67/24", "198.51.100.25/24")
	add("eth0.100", host.Permanent|host.Tentative, "2001:db8::99/64")
	add("docker0", host.Permanent, "172.17.0.1/16")
	links := []host.Link{
		{Index: 1, Name: "lo", Up: true, Loopback: true},
		{Index: 2, Name: "wlan0", Up: true},
		{Index: 3, Name: "eth0.100", Up: true},
		{Index: 4, Name: "docker0", Up: true, Kind: "bridge"},
	}
	return host.NewSnapshot(links, addrs, nil)
}

// lonely is a host that has its loopback only.
func lonely() *host.Snapshot {
	a := netip.MustParseAddr("127.0.0.1")
	return host.NewSnapshot([]host.Link{{Index: 1, Name: "lo", Up: true, Loopback: true}},
		[]host.Address{{Addr: a, Prefix: netip.PrefixFrom(a, 8).Masked(), Link: "lo", Flags: host.Permanent}}, nil)
}

var off = regexp.MustCompile(`(?m)^#(\S)`)

// TestInitialConfig: what is written passes the check, also with all of it taken on.
func TestInitialConfig(t *testing.T) {
	stub := host.Facts{Nameservers: []netip.Addr{netip.MustParseAddr("127.0.0.53")}, Upstreams: []netip.Addr{netip.MustParseAddr("203.0.113.53")}}
	four, six := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	for _, tt := range []struct {
		name      string
		host      *host.Snapshot
		facts     host.Facts
		preferred []netip.Addr
		source    string
		others    int
	}{
		{"initial-many", crowded(), stub, []netip.Addr{four, six}, "eth0-100", 4},
		{"initial-lent", crowded(), host.Facts{}, []netip.Addr{netip.MustParseAddr("192.0.2.7")}, "wlan0", 4},
		{"initial-none", lonely(), host.Facts{}, nil, "kernel", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := explain.InitialConfig(tt.host, tt.facts, tt.preferred)
			golden(t, tt.name+".txt", got.Text)
			if got.Default != tt.source || len(got.Sources) != tt.others {
				t.Errorf("default %q and others %q, want %q and %d", got.Default, got.Sources, tt.source, tt.others)
			}
			cfg, err := config.Parse("config.toml", []byte(got.Text))
			if err != nil {
				t.Fatal(err)
			}
			if r := explain.Check(cfg, tt.host, tt.facts); r.Failed(false) || slices.ContainsFunc(r.Findings, func(f explain.Finding) bool { return strings.Contains(f.Text, "on no interface") }) {
				t.Errorf("check:\n%s", r.Text(explain.Style{}))
			}
			all := strings.ReplaceAll(off.ReplaceAllString(got.Text, "$1"), `"NAME"`, `"`+got.Default+`"`)
			cfg, err = config.Parse("config.toml", []byte(all))
			if err != nil {
				t.Fatal(err)
			}
			if got.Default != "kernel" && len(cfg.Sources) != tt.others+1 {
				t.Errorf("%d sources with all taken on, want %d", len(cfg.Sources), tt.others+1)
			}
		})
	}
}
