package server

import (
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/config"
)

// TestEntries compiles the rules for each [[attach]], or tells what hooks cannot do.
func TestEntries(t *testing.T) {
	const head = `
default = "wan"
[sources]
wan    = ["198.51.100.10", "2001:db8::10"]
marked = { ip = "198.51.100.11", mark = 7 }
batch  = { ip = "198.51.100.64-198.51.100.95" }
[pools]
even = { of = ["wan", "marked"], pick = "least-connections" }
`
	for _, tt := range []struct {
		name, text, err string
	}{
		{"by rules", "[[attach]]\ncgroup = \"/x\"\n", ""},
		{"a range", "[[attach]]\ncgroup = \"/x\"\nuse = \"batch\"\n", `attach /x: default: source "batch": is a range`},
		{"a range in a rule", "[[rules]]\nto = \"192.0.2.0/24\"\nuse = \"batch\"\n[[attach]]\ncgroup = \"/x\"\n", `attach /x: rule 1: source "batch": is a range`},
		{"a range in a rule that is not asked", "[[rules]]\nto = \"192.0.2.0/24\"\nuse = \"batch\"\n[[attach]]\ncgroup = \"/x\"\nuse = \"wan\"\n", ""},
		{"a range for another service", "[[rules]]\nservice = \"a.service\"\nuse = \"batch\"\n[[attach]]\nservice = \"b.service\"\n", ""},
		{"a range for this service", "[[rules]]\nservice = \"a.service\"\nuse = \"batch\"\n[[attach]]\nservice = \"a.service\"\n", `attach a.service: rule 1: source "batch": is a range`},
		{"a range for a listener", "[[rules]]\nlistener = \"office\"\nuse = \"batch\"\n[[attach]]\ncgroup = \"/x\"\n", ""},
		{"a mark", "[[attach]]\ncgroup = \"/x\"\nuse = \"marked\"\n", `attach /x: default: source "marked": has a mark`},
		{"a mark that is wanted", "[[attach]]\ncgroup = \"/x\"\nuse = \"marked\"\nwildcard_port = \"mark\"\n", ""},
		{"a pool that counts", "[[attach]]\ncgroup = \"/x\"\nuse = \"even\"\n", `attach /x: default: pool "even": the kernel plane cannot pick by least-connections`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := config.Parse("config.toml", []byte(head+tt.text))
			if err != nil {
				t.Fatal(err)
			}
			list, err := Entries(cfg)
			switch {
			case tt.err == "" && (err != nil || len(list) != 1):
				t.Errorf("got %v, %v, want one entry", list, err)
			case tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)):
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}
