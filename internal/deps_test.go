// Package deps_test holds the map of the house as a test: which package may import which, and which
// modules of others may be used where.
package deps_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/srcproxy/srcproxy"

// ours lists, for each package, the packages of this module that its code may import. Arrows go one
// way, from cmd down to ruleset. Tests may import more: they are not looked at. A package that is not
// in the table is an error, a row without a package is not.
var ours = map[string][]string{
	"cmd/srcproxy": {"dialer", "internal/admin", "internal/attach", "internal/cgroup", "internal/cgroupbpf", "internal/config", "internal/explain", "internal/host", "internal/inbound", "internal/server"},

	"internal/server": {
		"dialer", "pktinfo",
		"internal/admin", "internal/attach", "internal/cgroup", "internal/cgroupbpf", "internal/config", "internal/egress", "internal/explain", "internal/flows",
		"internal/host", "internal/inbound", "internal/relay", "internal/udprelay",
	},
	"internal/inbound": {
		"dialer",
		"internal/egress", "internal/flows", "internal/hostname", "internal/httpconnect", "internal/relay", "internal/socks",
	},
	"internal/udprelay":  {"dialer", "pktinfo", "internal/egress", "internal/flows", "internal/sip", "internal/socks"},
	"internal/admin":     {"internal/egress", "internal/explain", "internal/flows"},
	"internal/attach":    {"dialer", "internal/cgroup", "internal/cgroupbpf"},
	"internal/cgroupbpf": {"dialer", "internal/rendezvous", "internal/ruleset"},
	"internal/explain":   {"dialer", "internal/config", "internal/host"},
	"internal/egress":    {"dialer", "internal/host"},
	"internal/config":    {"dialer", "internal/hostname"},
	"dialer":             {"pktinfo", "internal/hostname", "internal/rendezvous", "internal/ruleset"},

	"internal/cgroup":      {},
	"internal/httpconnect": {"internal/hostname"},
	"internal/socks":       {"internal/hostname"},
	"internal/flows":       {},
	"internal/host":        {},
	"internal/hostname":    {},
	"internal/relay":       {},
	"internal/rendezvous":  {},
	"internal/ruleset":     {},
	"internal/sip":         {},
	"pktinfo":              {},

	"internal/nstest": {"dialer", "pktinfo"}, // for tests only
}

// place is where a module of others may be imported.
type place struct {
	in      []string // packages of this module; none means all
	oneFile bool     // in one file of them, so that it can be exchanged there
}

// others lists the modules of others. A new one needs a reason in the commit that adds it here. Tests
// and packages for tests may import what go.mod requires.
var others = map[string]place{
	"github.com/armon/go-socks5":     {in: []string{"internal/socks"}, oneFile: true},
	"github.com/cilium/ebpf":         {in: []string{"internal/cgroupbpf"}},
	"github.com/gaissmai/bart":       {in: []string{"internal/ruleset"}, oneFile: true},
	"github.com/pelletier/go-toml":   {in: []string{"internal/config"}},
	"github.com/spf13/cobra":         {in: []string{"cmd/srcproxy"}},
	"github.com/vishvananda/netlink": {in: []string{"internal/host", "internal/cgroupbpf"}}, // there to end sockets
	"golang.org/x/crypto":            {in: []string{"internal/inbound", "cmd/srcproxy"}},    // to check and to make hashes
	"golang.org/x/net":               {in: []string{"dialer", "pktinfo", "internal/egress", "internal/udprelay"}},
	"golang.org/x/sys":               {},
	"golang.org/x/term":              {in: []string{"cmd/srcproxy"}},
	"golang.org/x/time":              {},
}

// forTests tells whether a package exists only for tests.
func forTests(pkg string) bool {
	return pkg == "internal/nstest" || pkg == "integration" || strings.HasPrefix(pkg, "integration/")
}

// imports returns the imports of each file of the module that is not a test, for all platforms, by
// the file's path below the root.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	root := ".."
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != root && skipped(name, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files[rel] = []string{}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			files[rel] = append(files[rel], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found")
	}
	return files
}

// skipped tells whether a directory holds no package of this module.
func skipped(name, base string) bool {
	if strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules" {
		return true
	}
	nested, err := filepath.Glob(filepath.Join(name, "go.mod"))
	return err == nil && len(nested) > 0
}

// moduleOf returns the row of others that an import belongs to, "" for the standard library and for
// our own packages, and the import itself for a module without a row.
func moduleOf(imported string) string {
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") || imported == module || strings.HasPrefix(imported, module+"/") {
		return ""
	}
	for row := range others {
		if imported == row || strings.HasPrefix(imported, row+"/") {
			return row
		}
	}
	return imported
}

func TestOurPackages(t *testing.T) {
	for file, imported := range imports(t) {
		pkg := path.Dir(file)
		if pkg == "integration" || strings.HasPrefix(pkg, "integration/") {
			continue
		}
		allowed, known := ours[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the table", file, pkg)
			continue
		}
		for _, i := range imported {
			dep, own := strings.CutPrefix(i, module+"/")
			if own && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s; %s may import %q", file, dep, pkg, allowed)
			}
		}
	}
}

func TestOtherModules(t *testing.T) {
	users := map[string][]string{} // files by module
	for file, imported := range imports(t) {
		pkg := path.Dir(file)
		if forTests(pkg) {
			continue
		}
		for _, i := range imported {
			if i == "testing" {
				t.Errorf("%s imports testing outside a test", file)
			}
			m := moduleOf(i)
			if m == "" {
				continue
			}
			where, known := others[m]
			switch {
			case !known:
				t.Errorf("%s imports %s, which is not in the table", file, m)
			case len(where.in) > 0 && !slices.Contains(where.in, pkg):
				t.Errorf("%s imports %s, which belongs into %q", file, m, where.in)
			case !slices.Contains(users[m], file):
				users[m] = append(users[m], file)
			}
		}
	}
	for m, files := range users {
		if others[m].oneFile && len(files) > 1 {
			t.Errorf("%s is imported by several files: %q", m, slices.Sorted(slices.Values(files)))
		}
	}
}

// TestTable finds rows that contradict each other: the arrows between packages must not form a cycle.
func TestTable(t *testing.T) {
	done := map[string]bool{}
	var visit func(pkg string, above []string)
	visit = func(pkg string, above []string) {
		if slices.Contains(above, pkg) {
			t.Fatalf("cycle in the table: %q", append(above, pkg))
		}
		if done[pkg] {
			return
		}
		for _, dep := range ours[pkg] {
			if _, known := ours[dep]; !known {
				t.Errorf("the row of %s names %s, which has no row", pkg, dep)
			}
			visit(dep, append(above, pkg))
		}
		done[pkg] = true
	}
	for _, pkg := range slices.Sorted(maps.Keys(ours)) {
		visit(pkg, nil)
	}
}

// TestArchitecture compares the packages in the table of docs/ARCHITECTURE.md with those here.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile("../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			told = append(told, m[1])
		}
	}
	slices.Sort(told)
	if want := slices.Sorted(maps.Keys(ours)); !slices.Equal(told, want) {
		t.Errorf("docs/ARCHITECTURE.md tells of %q, want %q", told, want)
	}
}
