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

// TestAttachNames has names in rules stand for their addresses, where the [[attach]] says
// so. The program that is ruled asks for addresses.
func TestAttachNames(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.Server.ServeDNS(t, map[string][]netip.Addr{
		"one.example": {nstest.ServerV4(40), nstest.ServerV6(40)},
		"two.example": {nstest.ServerV4(38)},
	})
	_, a := r.askIn(t, dir)
	from := func(dst netip.Addr) string {
		t.Helper()
		s := servers["tcp"+fmt.Sprint(dst.Is4())]
		s.Forget()
		if got := a.to("tcp", at(dst, 7)); got != "answered" {
			return got
		}
		return fmt.Sprint(s.Sources())
	}
	once := func(a netip.Addr) string { return fmt.Sprint(map[netip.Addr]int{a: 1}) }
	want := func(what string, dst netip.Addr, want string) {
		t.Helper()
		if got := from(dst); got != want {
			t.Errorf("%s: %v was called from %s, want %s", what, dst, got, want)
		}
	}
	const named = "[[rules]]\nto = [\"one.example\", \"*.example\"]\nuse = \"named\"\n"
	config := func(more string) string {
		return strings.Replace(attachConfig(name, more), "[sources]", "[sources]\nnamed = [\"198.51.100.31\", \"2001:db8:1::31\"]", 1) + named
	}
	r.serve(config(""))
	want("without names", nstest.ServerV4(40), once(wan4))
	r.reload(config("names = \"resolve\"\n"))
	want("with names", nstest.ServerV4(40), once(nstest.ProxyV4(31)))
	want("with names", nstest.ServerV6(40), once(nstest.ProxyV6(31)))
	want("another name", nstest.ServerV4(38), once(wan4))
	r.reload(strings.ReplaceAll(config("names = \"resolve\"\n"), "one.example", "two.example"))
	want("with another name", nstest.ServerV4(38), once(nstest.ProxyV4(31)))
	want("with another name", nstest.ServerV4(40), once(wan4))
}
