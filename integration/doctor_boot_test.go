//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestDoctorPrintsForNetworkd lets systemd-networkd load what doctor prints for it, and
// compares the routes and rules that it makes with those of the commands.
func TestDoctorPrintsForNetworkd(t *testing.T) {
	p := &patient{Providers: &nstest.Providers{Host: networkdHost(t)}}
	dir := t.TempDir()
	p.config = filepath.Join(dir, "config.toml")
	const text = `default = "mail"
[sources]
mail = { ip = ["198.51.100.25", "2001:db8:1::25"], gateway = ["198.51.100.2", "2001:db8:1::2"] }
[[listen]]
mixed = "127.0.0.1:1080"
[dns]
servers = ["203.0.113.53"]
`
	if err := os.WriteFile(p.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address is usable", func() bool {
		l, err := p.Host.Listen("tcp", "[2001:db8:1::25]:0")
		return err == nil && l.Close() == nil
	})
	const digits = "10" // of the table and the rules, whose numbers follow that of the link
	sections := p.doctor(t, 0, "--print", "networkd").Stdout
	commands := cures(p.doctor(t, 1).Stdout)
	for _, c := range commands {
		shell(t, p.Host, c)
	}
	want := routing(t, p.Host, digits)
	if len(commands) != 6 || len(want) < 6 {
		t.Fatalf("the commands %q made %q", commands, want)
	}
	for i := len(commands) - 1; i >= 0; i-- {
		shell(t, p.Host, strings.Replace(commands[i], " add ", " del ", 1))
	}
	wantByNetworkd(t, p.Host, dir, sections, digits, want)
	p.doctor(t, 0)
}

// TestDoctorSeesDoubleRules tells of programs that two sets of rules are for.
func TestDoctorSeesDoubleRules(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	name, dir := scratchGroup(t, tree, "")
	inner := filepath.Join(dir, "inner")
	for _, d := range []string{dir, inner} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	doctor := func(config, want string) {
		t.Helper()
		res := r.program("doctor", "-c", r.write("config.toml", config))
		if words := strings.Join(strings.Fields(res.Stdout), " "); !strings.Contains(words, want) {
			t.Errorf("no %q: %v", want, res)
		}
	}
	both := attachConfig(name, "") + "[[attach]]\ncgroup = \"" + name + "/inner\"\n"
	doctor(both, name+"/inner is inside of "+name+": what runs there is ruled by both")
	if res := r.program("attach", "-c", r.path("config.toml"), name); res.Err != nil {
		t.Fatal(res)
	}
	t.Cleanup(func() {
		if res := r.program("detach", name); res.Err != nil {
			t.Error(res)
		}
	})
	doctor(kernelConfig, "rules are on "+name+", for which the configuration has no [[attach]]. Cure: srcproxy detach "+name)
}
