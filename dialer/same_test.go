package dialer_test

import (
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// asking is a flow whose client connected to that address of ours.
func asking(asked, dst string) dialer.Flow {
	f := tcp(dst)
	if asked != "" {
		f.Asked = netip.AddrPortFrom(netip.MustParseAddr(asked), 1080)
	}
	return f
}

// TestSame leaves by the address that the client connected to, and by no other.
func TestSame(t *testing.T) {
	same := dialer.Use{Same: true}
	table := newTable(t, same, dialer.Rule{Name: "lists", Map: map[dialer.Match]dialer.Use{key("203.0.113.0/24"): same, key("*.a.example"): same}})
	for _, tt := range []struct {
		name, asked, dst string
		want             string // the address, or nothing for an error
		err              error
		text             string
	}{
		{"IPv4", "198.51.100.7", "192.0.2.1:80", "198.51.100.7", nil, ""},
		{"in a map", "198.51.100.7", "203.0.113.1:80", "198.51.100.7", nil, ""},
		{"IPv4-mapped", "::ffff:198.51.100.7", "192.0.2.1:80", "198.51.100.7", nil, ""},
		{"IPv6", "2001:db8::7", "[2001:db8:2::1]:80", "2001:db8::7", nil, ""},
		{"other family", "198.51.100.7", "[2001:db8:2::1]:80", "", dialer.ErrNoSource, "198.51.100.7, and the destination is IPv6"},
		{"loopback", "127.0.0.1", "192.0.2.1:80", "", dialer.ErrDenied, "127.0.0.1, which is loopback"},
		{"loopback IPv6", "::1", "[2001:db8:2::1]:80", "", dialer.ErrDenied, "::1, which is loopback"},
		{"link-local", "fe80::1", "[2001:db8:2::1]:80", "", dialer.ErrDenied, "fe80::1"},
		{"not known", "", "192.0.2.1:80", "", dialer.ErrDenied, "not known"},
		{"wildcard", "0.0.0.0", "192.0.2.1:80", "", dialer.ErrDenied, "not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := table.Lookup(asking(tt.asked, tt.dst))
			if tt.err != nil {
				wantErr(t, d.Err, tt.err)
				wantText(t, d.Err, "same", tt.text)
				if d.Source != nil || d.Addr.IsValid() {
					t.Errorf("a refused flow leaves from %v", d.Addr)
				}
				return
			}
			if d.Err != nil || d.Addr != netip.MustParseAddr(tt.want) || d.Source == nil || d.Source.Name != "same" || d.Use != same {
				t.Errorf("%v from %v of %v by %v, want %s", d.Err, d.Addr, d.Source, d.Use, tt.want)
			}
		})
	}
}

// TestSameDown refuses when the address that was asked has gone meanwhile.
func TestSameDown(t *testing.T) {
	d := &dialer.Dialer{Table: newTable(t, dialer.Use{Same: true}), State: gone{netip.MustParseAddr("198.51.100.7")}}
	wantErr(t, d.Decide(asking("198.51.100.7", "192.0.2.1:80")).Err, dialer.ErrSourceDown)
	if dec := d.Decide(asking("198.51.100.8", "192.0.2.1:80")); dec.Err != nil {
		t.Error(dec.Err)
	}
}

// TestSameByRoute binds an IPv6 address that is on no interface only where it is local all
// the same.
func TestSameByRoute(t *testing.T) {
	d := &dialer.Dialer{Table: newTable(t, dialer.Use{Same: true}), State: routed{gone{netip.MustParseAddr("2001:db8::9")}}}
	for _, tt := range []struct {
		asked, dst string
		free       bool
	}{
		{"2001:db8::7", "[2001:db8:2::1]:80", true},
		{"2001:db8:1::7", "[2001:db8:2::1]:80", false},
		{"198.51.100.7", "192.0.2.1:80", false},
	} {
		if dec := d.Decide(asking(tt.asked, tt.dst)); dec.Err != nil || dec.Source.FreeBind != tt.free || dec.Source.Name != "same" {
			t.Errorf("%s: %v, %+v, want free bind %v", tt.asked, dec.Err, dec.Source, tt.free)
		}
	}
	wantErr(t, d.Decide(asking("2001:db8::9", "[2001:db8:2::1]:80")).Err, dialer.ErrSourceDown)
	f := asking("2001:db8::7", "[2001:db8:2::1]:80")
	if n := testing.AllocsPerRun(100, func() { d.Decide(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// routed is a State that has a prefix by a route alone.
type routed struct{ gone }

func (routed) ByRoute(a netip.Addr) bool {
	return a.Is4() || netip.MustParsePrefix("2001:db8::/48").Contains(a)
}

// gone is a State in which one address is down.
type gone struct{ addr netip.Addr }

func (g gone) Down(_ *dialer.Source, a netip.Addr) error {
	if a == g.addr {
		return errNoCarrier
	}
	return nil
}

func (gone) Flows(*dialer.Source) int { return 0 }

func (gone) LinkAddr(string, bool) netip.Addr { return netip.Addr{} }

// TestSameDialled refuses to leave by loopback, before a socket is made.
func TestSameDialled(t *testing.T) {
	d := &dialer.Dialer{Table: newTable(t, dialer.Use{Same: true}), Control: controlFails(t)}
	wantErr(t, refused(t, d, asking("127.0.0.2", serve(t, "127.0.0.1:0").String())), dialer.ErrDenied)
}

// TestSameIsOneUse refuses a use that says two things.
func TestSameIsOneUse(t *testing.T) {
	for _, u := range []dialer.Use{{Same: true, Kernel: true}, {Same: true, Source: wan1}, {Same: true, Pool: &dialer.Pool{}}} {
		if _, err := dialer.NewTable(nil, u); err == nil {
			t.Errorf("%+v was taken", u)
		}
	}
	if got := (dialer.Use{Same: true}).String(); got != "same" {
		t.Errorf("it is called %q", got)
	}
}
