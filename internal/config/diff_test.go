package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const diffBase = `default = "wan1"
[sources]
wan1 = "198.51.100.10"
mail = { ip = "198.51.100.25", ports = "40000-44999" }
[pools.web]
of = ["wan1", "mail"]
[[rules]]
name = "a"
to = "203.0.113.1"
use = "mail"
[[rules]]
to = "203.0.113.2"
use = "web"
[[rules]]
name = "c"
to = "file:list"
use = "deny"
[[listen]]
name = "office"
mixed = "127.0.0.1:1080"
[[listen]]
tcp = "127.0.0.1:2525"
to = "203.0.113.25:25"
[limits]
connections = 10
`

func TestDiff(t *testing.T) {
	rule := func(text string) string { return "[[rules]]\n" + text }
	a, unnamed, c := rule("name = \"a\"\nto = \"203.0.113.1\"\nuse = \"mail\"\n"), rule("to = \"203.0.113.2\"\nuse = \"web\"\n"), rule("name = \"c\"\nto = \"file:list\"\nuse = \"deny\"\n")
	for _, tt := range []struct {
		name    string
		replace []string // pairs of old and new
		list    string   // what the list has then
		want    []string
		renamed string // unless the rules keep their names
	}{
		{"nothing", nil, "x.example", nil, ""},
		{"comments and order of keys", []string{"to = \"203.0.113.1\"\nuse = \"mail\"", "# the mail\nuse = \"mail\"\nto = \"203.0.113.1\""}, "x.example", nil, ""},
		{
			"sources",
			[]string{"wan1 = \"198.51.100.10\"", "wan2 = \"198.51.100.11\"\nwan1 = \"198.51.100.12\"", ", ports = \"40000-44999\"", ", freebind = true"},
			"x.example",
			[]string{"added source wan2 [] :3", "changed source wan1 [] :4", "changed source mail [freebind ports] :5"},
			"",
		},
		{"pool", []string{"\"wan1\", \"mail\"", "\"mail\", \"wan1\""}, "x.example", []string{"changed pool web [of] :5"}, ""},
		{"rule", []string{"\"203.0.113.1\"", "[\"203.0.113.1\"]\nport = 25"}, "x.example", []string{"changed rule a [port to] :7"}, ""},
		{"list file", nil, "y.example", []string{"changed rule c [to] :14"}, ""},
		{
			"rule without a name",
			[]string{"\"203.0.113.2\"", "\"203.0.113.3\""},
			"x.example",
			[]string{"changed rule rule 2 [to] :11"},
			"map[a:a c:c]",
		},
		{
			"new first rule",
			[]string{"[[rules]]\nname = \"a\"", "[[rules]]\nto = \"203.0.113.9\"\nuse = \"deny\"\n[[rules]]\nname = \"a\""},
			"x.example",
			[]string{"added rule rule 1 [] :7"},
			"map[a:a c:c rule 2:rule 3]",
		},
		{"rule moved up", []string{a + unnamed + c, c + a + unnamed}, "x.example", []string{"moved rule c [] :7"}, "map[a:a c:c rule 2:rule 3]"},
		{"rule moved down", []string{a + unnamed + c, unnamed + c + a}, "x.example", []string{"moved rule a [] :14"}, "map[a:a c:c rule 2:rule 1]"},
		{
			"listeners",
			[]string{"[[listen]]\nname = \"office\"\nmixed = \"127.0.0.1:1080\"\n", "", "2525\"", "2525\"\nallow = \"127.0.0.0/8\""},
			"x.example",
			[]string{"changed listener tcp 127.0.0.1:2525 [allow] :18", "removed listener office [] :18"},
			"",
		},
		{
			"the rest",
			[]string{"default = \"wan1\"", "default = \"deny\"\nprefer = \"ipv4\"", "connections = 10", "connections = 11\nudp_flows = 5"},
			"x.example",
			[]string{"changed default [] :1", "added prefer [] :2", "changed limits [connections udp_flows] :25"},
			"",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := parseWithList(t, diffBase, "x.example")
			after := parseWithList(t, strings.NewReplacer(tt.replace...).Replace(diffBase), tt.list)
			var got []string
			for _, c := range Diff(before, after) {
				_, line, _ := strings.Cut(c.Position, "config.toml")
				got = append(got, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %v %s", c.What, c.Kind, c.Name, c.Keys, line)), " "))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			want := tt.renamed
			if want == "" {
				want = "map[a:a c:c rule 2:rule 2]"
			}
			if got := fmt.Sprint(Renamed(before, after)); got != want {
				t.Errorf("rules are called now: got %s, want %s", got, want)
			}
		})
	}
	if got := Diff(Default(), Default()); got != nil {
		t.Errorf("of the built-in configuration: got %v", got)
	}
}

// parseWithList parses text beside a file with the name list.
func parseWithList(t *testing.T, text, list string) *Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte(list+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Join(dir, "config.toml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
