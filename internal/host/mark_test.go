package host

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMarkParts divides the world by prefixes: each part has a sample that is in none of
// those inside of it.
func TestMarkParts(t *testing.T) {
	p := netip.MustParsePrefix
	s := survey{
		Marks: &Marks{policy: &Policy{Routes: []TableRoute{
			{Table: 107, Dst: p("203.0.113.0/25")},
			{Table: 107, Dst: p("203.0.113.128/25")},
			{Table: 107, Dst: p("203.0.113.0/26")},
			{Table: 108, Dst: p("203.0.113.4/32")},
			{Table: 107, Dst: p("2001:db8::/32")},
		}}},
		query:  MarkQuery{Src: netip.MustParseAddr("198.51.100.1"), Within: map[netip.Prefix]bool{p("0.0.0.0/0"): false, p("203.0.113.0/24"): true, p("203.0.113.64/26"): false}},
		tables: map[Table]bool{107: true},
	}
	want := map[netip.Prefix]string{
		p("0.0.0.0/0"):        "0.0.0.1 unused",
		p("203.0.113.0/24"):   "none",
		p("203.0.113.0/25"):   "none",
		p("203.0.113.0/26"):   "203.0.113.0",
		p("203.0.113.64/26"):  "203.0.113.64 unused",
		p("203.0.113.128/25"): "203.0.113.128",
	}
	for _, x := range s.parts() {
		got := x.sample.String()
		if !x.sample.IsValid() {
			got = "none"
		} else if !x.used {
			got += " unused"
		}
		if x.near {
			continue
		}
		if got != want[x.prefix] {
			t.Errorf("%v: got %s, want %s", x.prefix, got, want[x.prefix])
		}
		delete(want, x.prefix)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// TestRuleMeets tells which rules a socket of which only the mark is known can meet.
func TestRuleMeets(t *testing.T) {
	for text, tt := range map[string]struct {
		rule PolicyRule
		want met
	}{
		"all":                {PolicyRule{}, always},
		"its mark":           {PolicyRule{Mark: 7, Mask: ^uint32(0)}, always},
		"another mark":       {PolicyRule{Mark: 8, Mask: ^uint32(0)}, never},
		"no mark":            {PolicyRule{Mask: ^uint32(0)}, never},
		"a bit of it":        {PolicyRule{Mark: 1, Mask: 1}, always},
		"not another mark":   {PolicyRule{Mark: 8, Mask: ^uint32(0), Not: true}, always},
		"not its mark":       {PolicyRule{Mark: 7, Mask: ^uint32(0), Not: true}, never},
		"not a destination":  {PolicyRule{Dst: netip.MustParsePrefix("203.0.113.0/24"), Not: true}, perhaps},
		"a source":           {PolicyRule{Src: netip.MustParsePrefix("198.51.100.0/24")}, never},
		"any source":         {PolicyRule{Src: netip.MustParsePrefix("0.0.0.0/0")}, always},
		"from this host":     {PolicyRule{InLink: "lo"}, always},
		"from a link":        {PolicyRule{InLink: "eth0"}, never},
		"to a link":          {PolicyRule{OutLink: "eth0"}, never},
		"a VRF":              {PolicyRule{VRF: true}, never},
		"a user":             {PolicyRule{UIDs: &[2]uint32{0, 9}}, perhaps},
		"a user, other mark": {PolicyRule{UIDs: &[2]uint32{0, 9}, Mark: 8, Mask: ^uint32(0)}, never},
		"a protocol":         {PolicyRule{Protocol: unix.IPPROTO_UDP}, perhaps},
		"ports":              {PolicyRule{DstPorts: [2]uint16{5060, 5060}}, perhaps},
		"something unknown":  {PolicyRule{Other: true}, perhaps},
		"not a user":         {PolicyRule{UIDs: &[2]uint32{0, 9}, Not: true}, perhaps},
	} {
		if got := tt.rule.meets(7); got != tt.want {
			t.Errorf("%s: got %d, want %d", text, got, tt.want)
		}
	}
}
