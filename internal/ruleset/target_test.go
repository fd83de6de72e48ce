package ruleset

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	p := func(s string) Target { return Target{Prefix: netip.MustParsePrefix(s)} }
	for _, tt := range []struct {
		in   string
		want Target
		text string // what String gives, when not in
	}{
		{in: "192.0.2.1", want: p("192.0.2.1/32")},
		{in: "192.0.2.0/24", want: p("192.0.2.0/24")},
		{in: "0.0.0.0/0", want: p("0.0.0.0/0")},
		{in: "2001:db8::1", want: p("2001:db8::1/128")},
		{in: "2001:db8::/32", want: p("2001:db8::/32")},
		{in: "::ffff:192.0.2.1", want: p("192.0.2.1/32"), text: "192.0.2.1"},
		{in: "::ffff:192.0.2.0/120", want: p("192.0.2.0/24"), text: "192.0.2.0/24"},
		{in: "::ffff:0:0/96", want: p("0.0.0.0/0"), text: "0.0.0.0/0"},
		{in: "::/0", want: p("::/0")},
		{in: "a.example", want: Target{Name: "a.example"}},
		{in: "A.Example.", want: Target{Name: "a.example"}, text: "a.example"},
		{in: "*.A.example", want: Target{Name: "a.example", Scope: Below}, text: "*.a.example"},
		{in: ".a.example", want: Target{Name: "a.example", Scope: Both}},
		{in: "localhost", want: Target{Name: "localhost"}},
		{in: "_sip._udp.a.example", want: Target{Name: "_sip._udp.a.example"}},
		{in: "10.a", want: Target{Name: "10.a"}},
		{in: "0x.a", want: Target{Name: "0x.a"}},
		{in: strings.Repeat("a.", 126) + "a", want: Target{Name: strings.Repeat("a.", 126) + "a"}},
		{in: "xn--bcher-kva.example", want: Target{Name: "xn--bcher-kva.example"}},
	} {
		got, err := ParseTarget(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseTarget(%q): got %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
		if text := tt.text; got.String() != text && (text != "" || got.String() != tt.in) {
			t.Errorf("ParseTarget(%q).String(): got %q, want %q", tt.in, got, text)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "1 to 253",
		"*":                           "leave the condition out",
		"*.":                          "1 to 253",
		".":                           "1 to 253",
		"*a.example":                  "only stand at the front",
		"a.*.example":                 "only stand at the front",
		"*.*.example":                 "only stand at the front",
		"a..example":                  "1 to 63",
		"..example":                   "1 to 63",
		"a.example..":                 "1 to 63",
		"a b.example":                 "has no ' '",
		"a\x00.example":               `has no '\x00'`,
		"bücher.example":              "xn-- form",
		strings.Repeat("a", 64):       "1 to 63",
		strings.Repeat("a.", 128):     "1 to 253",
		"192.0.2.1/24":                "write 192.0.2.0/24 for the network or 192.0.2.1",
		"::ffff:192.0.2.1/120":        "write 192.0.2.0/24",
		"192.0.2.0/33":                "192.0.2.0/33",
		"192.0.2.0/":                  "192.0.2.0/",
		"fe80::1%eth0":                "write fe80::1",
		"fe80::%eth0/64":              "zone",
		"2001:db8::g":                 "2001:db8::g",
		"010.0.0.1":                   "looks like an address",
		"127.1":                       "looks like an address",
		"2130706433":                  "looks like an address",
		"0x7f000001":                  "looks like an address",
		"0x7F.0.0.0x1":                "looks like an address",
		"1.2.3.4.":                    "looks like an address",
		"*.1.2.3":                     "looks like an address",
		"a.example:25":                "a.example:25",
		"[2001:db8::1]":               "2001:db8::1",
		"https://a.example":           "https://a.example",
		"192.0.2.10-192.0.2.20":       "",
		"a.example\n":                 `has no '\n'`,
		"\u212a.example":              "xn-- form",
		"300.0.0.1":                   "looks like an address",
		"192.0.2.1 ":                  "",
		strings.Repeat("a", 70000):    "1 to 253",
		strings.Repeat(".", 300):      "1 to 253",
		"*." + strings.Repeat("*", 3): "only stand at the front",
	} {
		got, err := ParseTarget(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTarget(%.40q): got %+v, %v, want an error with %q", in, got, err, want)
		}
	}
}

func TestCanonicalName(t *testing.T) {
	for in, want := range map[string]string{
		"": "", ".": "", "a.example": "a.example", "A.eXample": "a.example", "a.example.": "a.example", "a..": "a.",
		"Z": "z", "\u212a": "\u212a", "@[`{": "@[`{", "É": "É",
	} {
		if got := CanonicalName(in); got != want {
			t.Errorf("CanonicalName(%q): got %q, want %q", in, got, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "::ffff:0:0/96", "*.a.example", ".A.example.", "010.0.0.1", "0x7f", "fe80::1%eth0/10", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTarget(s)
		if err != nil {
			return
		}
		if err := checkTarget(got); err != nil {
			t.Errorf("ParseTarget(%q) = %+v, which Compile refuses: %v", s, got, err)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("ParseTarget(%q) = %+v, read again %+v, %v", s, got, again, err)
		}
	})
}
