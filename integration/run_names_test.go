//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const namesConfig = `
default = "wan"

[sources]
wan   = ["198.51.100.10", "2001:db8:1::10"]
named = ["198.51.100.31", "2001:db8:1::31"]

[[rules]]
to  = ["one.example", "*.example"]
use = "named"
`

// TestRunNames has names in rules stand for their addresses, for a program that asks for
// addresses.
func TestRunNames(t *testing.T) {
	kernelTree(t)
	r := newRig(t)
	servers := r.echoes(t)
	r.Server.ServeDNS(t, map[string][]netip.Addr{"one.example": {nstest.ServerV4(40), nstest.ServerV6(40)}})
	config := r.write("config.toml", namesConfig)
	for _, tt := range []struct {
		args  []string
		four  netip.Addr
		six   netip.Addr
		other netip.Addr
	}{
		{nil, wan4, wan6, wan4},
		{[]string{"--names"}, nstest.ProxyV4(31), nstest.ProxyV6(31), wan4},
	} {
		args := append(append([]string{r.binary.Build(t), "run", "-c", config}, tt.args...), "--")
		p, a := r.ask(t, args...)
		for dst, want := range map[netip.Addr]netip.Addr{nstest.ServerV4(40): tt.four, nstest.ServerV6(40): tt.six, nstest.ServerV4(38): tt.other} {
			for _, kind := range []string{"tcp", "udp"} {
				s := servers[kind+fmt.Sprint(dst.Is4())]
				s.Forget()
				got := a.to(kind, at(dst, 7))
				if got != "answered" || s.Sources()[want] != 1 {
					t.Errorf("run %v: %s to %v: %s, from %v; want it from %v", tt.args, kind, dst, got, s.Sources(), want)
				}
			}
		}
		p.Kill()
	}
}

// TestAttachWithoutNames has attach say what does not work while nobody looks after the
// rules.
func TestAttachWithoutNames(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	r.Server.ServeDNS(t, map[string][]netip.Addr{"one.example": {nstest.ServerV4(40)}})
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := r.write("config.toml", namesConfig+fmt.Sprintf("[[attach]]\ncgroup = %q\nnames = \"resolve\"\nwildcard_port = \"mark\"\n", name))
	got := r.program("attach", "-c", config)
	t.Cleanup(func() { r.program("detach", "--all") })
	for _, want := range []string{
		"Rules by name do not match there, since nobody asks for addresses: *.example, one.example\n",
		"wildcard_port does nothing there, since nobody follows the routes: ",
		"For that write [[attach]], and run srcproxy serve.\n",
	} {
		if got.Err != nil || !strings.Contains(got.Stdout, want) {
			t.Errorf("attach: got %v, want %q", got, want)
		}
	}
	_, a := r.askIn(t, dir)
	if a.to("tcp", at(nstest.ServerV4(40), 7)); servers["tcptrue"].Sources()[wan4] != 1 {
		t.Errorf("called from %v, want %v", servers["tcptrue"].Sources(), wan4)
	}
	if got := r.program("attach", "-c", config, "--use", "wan", name); got.Err != nil || strings.Contains(got.Stdout, "Rules by name") {
		t.Errorf("attach --use: got %v", got)
	}
}
