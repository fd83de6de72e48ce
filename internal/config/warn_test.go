package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const quiet = "default = \"kernel\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n"

// TestWarnings compares line and message of the warnings of a file.
func TestWarnings(t *testing.T) {
	for _, f := range []struct {
		name, text string
		want       []string
	}{
		{"none", quiet, nil},
		{"default of one family", "default = \"198.51.100.10\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", []string{
			`1 the default "198.51.100.10" has no IPv6 address: IPv6 destinations that no rule names are refused`,
		}},
		{"default is a pool of one family", "default = \"p\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[pools]\np = { of = [\"2001:db8::1\", \"2001:db8::2\"] }\n", []string{
			`1 the default "p" has no IPv4 address: IPv4 destinations that no rule names are refused`,
		}},
		{"no listener", "default = \"kernel\"\n", []string{`1 there is no [[listen]], so nothing is served`}},
		{"rule of the other family", quiet + "[[rules]]\nto = [\"2001:db8::/32\", \"203.0.113.0/24\", \"a.example\"]\nuse = \"198.51.100.10\"\n", []string{
			"4 the rule refuses flows for want of an address of their family: to 2001:db8::/32 from 198.51.100.10",
		}},
		{"map of the other family", quiet + "[[rules]]\n[rules.map]\n\"2001:db8::/32\" = \"198.51.100.10\"\n\"2001:db8:1::/48\" = \"deny\"\n", []string{
			"4 the rule refuses flows for want of an address of their family: to 2001:db8::/32 from 198.51.100.10",
		}},
		{"public forward", "default = \"kernel\"\n[[listen]]\ntcp = \":25\"\nto = \"a.example:25\"\n", []string{
			"2 everybody who reaches [::]:25 can use the forward to a.example:25",
		}},
		{"public forward with allow", "default = \"kernel\"\n[[listen]]\ntcp = \":25\"\nto = \"a.example:25\"\nallow = \"192.0.2.0/24\"\n", nil},
		{"fixed port of a TCP forward", "default = \"kernel\"\n[[listen]]\ntcp = \"127.0.0.1:25\"\nto = \"a.example:25\"\nuse = \"198.51.100.10\"\nsource_port = 4000\n", []string{
			"2 with a fixed source_port a.example:25 can hold one connection at a time",
		}},
		{"fixed port of a rule", quiet + "[[rules]]\nto = \"a.example\"\nuse = \"198.51.100.10\"\nsource_port = 4000\n", []string{
			"4 with a fixed source_port TCP can hold one connection to each destination at a time",
		}},
		{"one sender for two", "default = \"kernel\"\n[[listen]]\nudp = \"127.0.0.1:0\"\nto = \"a.example:5060\"\nuse = \"198.51.100.10\"\nsource_port = 5060\nname = \"x\"\n" +
			"[[listen]]\nudp = \"127.0.0.1:0\"\nto = \"a.example:5060\"\nuse = \"198.51.100.10\"\nsource_port = 5060\n", []string{
			`8 port 5060 of 198.51.100.10 towards a.example:5060 is also that of listener "x": only one of them can have a client`,
		}},
		{"open on loopback", quiet + "open = true\n", []string{"2 open does nothing on loopback addresses"}},
		{"local_port", quiet + "[[rules]]\nlocal_port = 5060\nuse = \"deny\"\n", []string{
			"4 the rule never matches: proxies and forwards know no local_port",
		}},
		{"local_port in the kernel", quiet + "[[attach]]\ncgroup = \"/\"\n[[rules]]\nlocal_port = 5060\nuse = \"deny\"\n", nil},
		{"local_port beside a use", quiet + "[[attach]]\ncgroup = \"/\"\nuse = \"deny\"\n[[rules]]\nlocal_port = 5060\nuse = \"deny\"\n", []string{
			"7 the rule never matches: proxies and forwards know no local_port",
		}},
		{"attach alone", "default = \"kernel\"\n[[attach]]\ncgroup = \"/\"\n", nil},
		{"names in the kernel", quiet + "[[attach]]\ncgroup = \"/a\"\nnames = \"resolve\"\n[[attach]]\ncgroup = \"/b\"\n[[rules]]\nto = [\"192.0.2.1\", \"a.example\"]\nuse = \"deny\"\n", []string{
			`8 the kernel sees addresses only: the names of rule "rule 1" do not match here`,
		}},
		{"no names in the kernel", quiet + "[[attach]]\ncgroup = \"/a\"\nuse = \"deny\"\n[[attach]]\ncgroup = \"/b\"\n" +
			"[[rules]]\nto = \"192.0.2.1\"\nuse = \"deny\"\n[[rules]]\nto = \"a.example\"\nclient = \"192.0.2.2\"\nuse = \"deny\"\n", nil},
		{"service", quiet + "[[attach]]\nservice = \"a.service\"\n[[rules]]\nservice = \"a.service\"\nuse = \"deny\"\n", nil},
		{"service before all", quiet + "[[attach]]\nservice = \"a.service\"\n[[rules]]\nservice = \"a.service\"\nuse = \"deny\"\n[[rules]]\nuse = \"kernel\"\n" +
			"[[rules]]\nservice = \"a.service\"\nuse = \"kernel\"\n", []string{
			`11 the rule never matches: "rule 1" in line 6 takes all its flows`,
		}},
		{"no such service", quiet + "[[attach]]\nservice = \"asterisk.service\"\n[[rules]]\nservice = \"asterix.service\"\nuse = \"deny\"\n", []string{
			`6 no [[attach]] is for the service "asterix.service"`,
		}},
		{"no service", quiet + "[[rules]]\nservice = \"a.service\"\nuse = \"deny\"\n", []string{`4 no [[attach]] is for the service "a.service"`}},
		{"service that skips the rules", quiet + "[[attach]]\nservice = \"a.service\"\nuse = \"deny\"\n[[rules]]\nservice = \"a.service\"\nuse = \"deny\"\n", []string{
			`7 the [[attach]] of a.service has a use of its own and skips the rules`,
		}},
		{"no such user", quiet + "users = \"users\"\n[[rules]]\nuser = [\"craler\", \"robot\"]\nuse = \"deny\"\n", []string{
			`5 the rule never matches: no users file of a listener has "craler" or "robot"`,
		}},
		{"one such user", quiet + "users = \"users\"\n[[rules]]\nuser = [\"crawler\", \"robot\"]\nuse = \"deny\"\n", nil},
		{"no such listener", quiet + "name = \"office\"\n[[rules]]\nlistener = \"ofice\"\nuse = \"deny\"\n", []string{
			`5 no listener is named "ofice"`,
		}},
		{"listener that skips the rules", "default = \"kernel\"\n[[listen]]\ntcp = \"127.0.0.1:25\"\nto = \"a.example:25\"\nuse = \"kernel\"\n[[rules]]\nlistener = \"tcp 127.0.0.1:25\"\nuse = \"deny\"\n", []string{
			`6 listener "tcp 127.0.0.1:25" has a use of its own and skips the rules`,
		}},
		{"unused", quiet + "[sources]\na = \"198.51.100.1\"\nb = \"198.51.100.2\"\n[pools]\np = { of = [\"a\"] }\n", []string{
			`6 nothing uses the source "b"`, `8 nothing uses the pool "p"`,
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			c, err := Parse("testdata/config.toml", []byte(f.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range c.Warnings() {
				got = append(got, fmt.Sprintf("%d %s", w.Line, w.Message))
				if w.Hint == "" {
					t.Errorf("%q has no cure", w.Message)
				}
			}
			if diff := cmp.Diff(f.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestWarningString(t *testing.T) {
	c, err := Parse("c.toml", []byte("default = \"198.51.100.10\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := `c.toml:1:1: the default "198.51.100.10" has no IPv6 address: IPv6 destinations that no rule names are refused
    default = "198.51.100.10"
    ^
    give "198.51.100.10" an IPv6 address, or leave it so if those flows shall fail`
	if got := c.Warnings(); len(got) != 1 || got[0].String() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestShadowed reads two or more rules, each a line of conditions, and expects the
// last to be shadowed by the given one, or by none.
func TestShadowed(t *testing.T) {
	for _, f := range []struct {
		name  string
		rules []string
		by    string // the message names it; empty: no warning
	}{
		{"rule without a condition", []string{`use = "kernel"`, `to = "a.example"`}, "rule 1"},
		{"the same", []string{`to = "a.example"`, `to = "A.example."`}, "rule 1"},
		{"another", []string{`to = "a.example"`, `to = "b.example"`}, ""},
		{"narrower first", []string{`to = "a.example"`, `to = ".a.example"`}, ""},
		{"pattern covers name", []string{`to = "*.a.example"`, `to = "x.a.example"`}, "rule 1"},
		{"pattern leaves the name itself", []string{`to = "*.a.example"`, `to = "a.example"`}, ""},
		{"pattern leaves the other half", []string{`to = "*.a.example"`, `to = ".a.example"`}, ""},
		{"both cover below", []string{`to = ".a.example"`, `to = ["*.a.example", "a.example", ".b.a.example"]`}, "rule 1"},
		{"pattern needs a whole label", []string{`to = "*.a.example"`, `to = "xa.example"`}, ""},
		{"prefix covers prefix", []string{`to = "10.0.0.0/8"`, `to = ["10.1.0.0/16", "10.2.3.4"]`}, "rule 1"},
		{"one element is left", []string{`to = "10.0.0.0/8"`, `to = ["10.1.0.0/16", "11.0.0.0/8"]`}, ""},
		{"the families are apart", []string{`to = "::/0"`, `to = "10.0.0.0/8"`}, ""},
		{"name does not cover address", []string{`to = ".example"`, `to = "10.0.0.0/8"`}, ""},
		{"earlier one has a condition more", []string{`to = "10.0.0.0/8", port = 25`, `to = "10.0.0.0/8"`}, ""},
		{"later one has a condition more", []string{`to = "10.0.0.0/8", port = [25, "100-200"]`, `to = "10.0.0.0/8", port = "110-120", protocol = "tcp"`}, "rule 1"},
		{"protocol", []string{`protocol = "udp"`, `protocol = "tcp"`}, ""},
		{"client", []string{`client = "10.0.0.0/8"`, `client = "10.1.0.0/16"`}, "rule 1"},
		{"listener", []string{`listener = "office"`, `listener = ["office", "mixed 127.0.0.1:1080"]`}, ""},
		{"map covers to", []string{`map = { "10.0.0.0/8" = "kernel", "a.example" = "deny" }`, `to = "a.example"`}, "rule 1"},
		{"to covers map", []string{`to = ".example"`, `map = { "b.example" = "kernel", "a.example" = "deny" }`}, "rule 1"},
		{"map leaves a key", []string{`to = "a.example"`, `map = { "b.example" = "kernel", "a.example" = "deny" }`}, ""},
		{"both of to and map are needed", []string{`to = "10.0.0.0/8", map = { "10.1.0.0/16" = "kernel" }`, `to = "10.2.0.0/16"`}, ""},
		{"the second", []string{`to = "b.example"`, `to = "a.example"`, `to = "a.example", port = 25`}, "rule 2"},
		{"a deny by address below everything", []string{`use = "kernel"`, `to = "10.0.0.0/8", use = "deny"`}, "rule 1"},
		{"which still guards names above", []string{`to = "a.example"`, `use = "kernel"`, `to = "10.0.0.0/8", use = "deny"`}, ""},
	} {
		t.Run(f.name, func(t *testing.T) {
			var got []string
			for _, w := range parseRules(t, f.rules).Warnings() {
				if strings.Contains(w.Message, "takes all its flows") {
					got = append(got, w.Message)
				}
			}
			want := fmt.Sprintf("the rule never matches: %q ", f.by)
			switch {
			case f.by == "" && len(got) > 0, len(got) > 1:
				t.Errorf("unwanted: %q", got)
			case f.by != "" && (len(got) == 0 || !strings.HasPrefix(got[0], want)):
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func parseRules(t *testing.T, rules []string) *Config {
	t.Helper()
	var b strings.Builder
	b.WriteString("default = \"kernel\"\nrules = [\n")
	for _, r := range rules {
		if !strings.Contains(r, "use =") && !strings.Contains(r, "map =") {
			r += `, use = "kernel"`
		}
		fmt.Fprintf(&b, "{ %s },\n", r)
	}
	b.WriteString("]\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n")
	c, err := Parse("c.toml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWarningsOfManyRules: the search for shadowed rules ends when its comparisons
// are used up.
func TestWarningsOfManyRules(t *testing.T) {
	var rules []string
	for i := range 1000 {
		rules = append(rules, fmt.Sprintf(`to = "h%d.example"`, i))
	}
	w := warner{c: parseRules(t, append(rules, rules[999])), budget: 100_000}
	w.shadowed()
	if len(w.out) > 0 {
		t.Errorf("went on to the last rule: %v", w.out)
	}
	if w.budget > 0 || w.budget < -len(rules) {
		t.Errorf("%d comparisons are left", w.budget)
	}
}
