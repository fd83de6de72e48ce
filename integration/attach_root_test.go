//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// rootConfig rules one address, which no other test has, and leaves all else to the
// kernel: it holds for the whole machine.
const rootConfig = `
default = "kernel"

[sources]
wan = ["198.51.100.10", "2001:db8:1::10"]

[[rules]]
to  = ["198.18.77.77", "2001:db8:7777::77"]
use = "wan"

[[attach]]
cgroup = "/"
`

// onRoot returns how many programs are at the hooks of the root.
func onRoot(t *testing.T, tree *cgroup.Tree) int {
	t.Helper()
	g, err := cgroup.Open(tree.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	n := 0
	for _, hook := range []ebpf.AttachType{ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg} {
		list, err := link.QueryPrograms(link.QueryOptions{Target: g.FD(), Attach: hook})
		if err != nil {
			nstest.Skip(t, "ask what is on the root: "+err.Error())
		}
		n += len(list.Programs)
	}
	return n
}

// TestAttachRoot rules all programs of the machine.
func TestAttachRoot(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	before := onRoot(t, tree)
	r := newRig(t)
	t.Cleanup(func() { r.program("detach", "--all") }) // before the pins go
	servers := r.echoes(t)
	four, six := netip.MustParseAddr("198.18.77.77"), netip.MustParseAddr("2001:db8:7777::77")
	r.Server.AddAddr(t, "lo", netip.PrefixFrom(four, 32))
	r.Server.AddAddr(t, "lo", netip.PrefixFrom(six, 128))
	_, early := r.ask(t) // was there before
	from := func(a *ask, kind string, dst netip.Addr) string {
		t.Helper()
		s := servers[kind+fmt.Sprint(dst.Is4())]
		s.Forget()
		if got := a.to(kind, at(dst, 7)); got != "answered" {
			return got
		}
		return fmt.Sprint(s.Sources())
	}
	wants := func(what string, a *ask, ruled4, ruled6 netip.Addr) {
		t.Helper()
		once := func(a netip.Addr) string { return fmt.Sprint(map[netip.Addr]int{a: 1}) }
		for _, kind := range []string{"tcp", "udp"} {
			for dst, want := range map[netip.Addr]netip.Addr{four: ruled4, six: ruled6, nstest.ServerV4(9): nstest.ProxyV4(1), nstest.ServerV6(9): nstest.ProxyV6(1)} {
				if got := from(a, kind, dst); got != once(want) {
					t.Errorf("%s: %s to %v came from %s, want %s", what, kind, dst, got, once(want))
				}
			}
		}
	}
	wants("before", early, nstest.ProxyV4(1), nstest.ProxyV6(1))
	r.serve(rootConfig)
	if n := onRoot(t, tree); n != before+4 {
		t.Errorf("there are %d programs on the root, and %d before", n, before)
	}
	_, late := r.ask(t)
	wants("a program that was there", early, wan4, wan6)
	wants("a new one", late, wan4, wan6)
	r.signal(unix.SIGTERM)
	<-r.proc.Done()
	wants("after the end", late, nstest.ProxyV4(1), nstest.ProxyV6(1))
	if n := onRoot(t, tree); n != before {
		t.Errorf("there are %d programs on the root, and %d before", n, before)
	}
}
