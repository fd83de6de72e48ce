//go:build linux

package integration

import (
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestKernelPlaneAnswersMarks gives a socket the mark of a source, and takes it back, between datagrams that are the kernel's.
func TestKernelPlaneAnswersMarks(t *testing.T) {
	nstest.Need(t, "ip")
	h := newHooked(t)
	for _, args := range []string{
		"rule add fwmark 107 lookup 107", "-6 rule add fwmark 107 lookup 107",
		"route add default via 198.51.100.254 src 198.51.100.10 table 107",
		"-6 route add default via 2001:db8:1::254 src 2001:db8:1::10 table 107",
	} {
		if r := h.Proxy.Run(t, exec.Command("ip", strings.Fields(args)...)); r.Err != nil {
			t.Fatal(r)
		}
	}
	marked := both(10)
	marked.Mark = 107
	h.rule(cgroupbpf.Options{MarkWildcard: true}, dialer.Use{Kernel: true},
		dialer.Rule{To: matches(t, nstest.ServerV4(2), nstest.ServerV6(2)), Use: leaveFrom(marked)})
	h.survey()
	h.attach()
	m := h.maker()
	for i, f := range families {
		s := steady{f, m.make(f.domain, 6060+i, 0)}
		for range 2 {
			s.from(1)
			s.connect(s.server(2)) // from a port that is held
			s.wants(s.server(2), s.address(10).String())
			s.connect(netip.AddrPort{})
			s.be("EPERM") // the mark would choose
			s.connect(s.server(1))
			s.connect(netip.AddrPort{})
		}
		s.from(1)
	}
}

// TestKernelPlaneAnswersAreASockets has several threads on one socket, and two sockets on one port: no answer is another's.
func TestKernelPlaneAnswersAreASockets(t *testing.T) {
	h := newHooked(t)
	var rules []dialer.Rule
	for i := range 5 {
		rules = append(rules, dialer.Rule{To: matches(t, nstest.ServerV4(1+i), nstest.ServerV6(1+i)), Use: leaveFrom(both(10 + i))})
	}
	h.rule(cgroupbpf.Options{}, dialer.Use{}, rules...)
	h.attach()
	m := h.maker()
	for _, f := range families {
		one := m.socket(f.domain, 0)
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for range 500 {
					if err := one.send(f.server(1+i), netip.Addr{}); err != nil {
						t.Errorf("%s: %v", f.name, err)
						return
					}
				}
			})
		}
		all.Wait()
		one.close()
		pair := []*datagrams{m.make(f.domain, 6070, 1), m.make(f.domain, 6070, 1)}
		for range 20 {
			for i, s := range pair {
				if err := s.send(f.server(4+i), netip.Addr{}); err != nil {
					t.Errorf("%s: %v", f.name, err)
				}
			}
		}
		for _, s := range pair {
			s.close()
		}
		for i := range 5 {
			h.wantFrom(t, f.server(1+i).Addr(), f.address(10+i))
		}
	}
}

// TestKernelPlaneAnswersOfNamespaces limits the rules to a network namespace and back, and to destinations of this host.
func TestKernelPlaneAnswersOfNamespaces(t *testing.T) {
	h := newHooked(t)
	h.attach()
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7"), netip.MustParseAddrPort("[::1]:7"), netip.MustParseAddrPort("127.0.0.1:7")}
	h.Proxy.ServeUDP(t, "0.0.0.0:7", whence)
	h.Proxy.ServeUDP(t, "[::]:7", whence)
	all := h.maker().steadies()
	cookie, err := unix.GetsockoptUint64(all[0].fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.rule(cgroupbpf.Options{Netns: cookie}, leaveFrom(both(10)))
		for i, s := range all {
			s.from(10)
			s.wants(local[i], local[i].Addr().String())
			s.from(10)
		}
		h.rule(cgroupbpf.Options{Netns: cookie + 1}, leaveFrom(both(10)))
		for _, s := range all {
			s.from(1)
		}
		h.rule(cgroupbpf.Options{Netns: cookie}, dialer.Use{}, dialer.Rule{To: matches(t, "127.0.0.0/8", "::1/128"), Use: leaveFrom(both(11))})
		for i, s := range all {
			s.wants(local[i], s.address(11).String())
			s.be("EPERM")
			s.wants(local[i], s.address(11).String())
		}
	}
}

// TestKernelPlaneAnswersTakenOver exchanges the hooks under sockets that go on, as an upgrade does and as what comes after a
// kill: the memories stay, and what they hold of the earlier rules does not.
func TestKernelPlaneAnswersTakenOver(t *testing.T) {
	h := newHooked(t)
	pins := filepath.Join(mountBPF(t), "srcproxy")
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	m := h.maker()
	all := m.steadies()
	var connected []steady
	for _, f := range families {
		s := m.steady(f)
		s.connect(s.server(2))
		connected = append(connected, s)
	}
	for i := range 3 {
		for _, s := range all {
			s.from(10 + i)
		}
		for _, s := range connected { // the address is known to be none of the program's
			h.reaches(s, 1, 10+i)
		}
		if i == 2 {
			break
		}
		old := h.plane
		if i == 1 { // of a process that is gone
			if err := old.Pin(pins); err != nil {
				t.Fatal(err)
			}
			var err error
			if old, err = cgroupbpf.Open(pins); err != nil {
				t.Fatal(err)
			}
		}
		h.plane = loadPlane(t, old)
		h.rule(cgroupbpf.Options{}, leaveFrom(both(11+i)))
		if err := h.plane.Attach(h.group, old); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := old.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestKernelPlaneAnswersNested has hooks on a cgroup and on one below, whose rules change in turn.
func TestKernelPlaneAnswersNested(t *testing.T) {
	h := newHooked(t)
	h.attach()
	below, err := cgroup.Create(h.group.Path(), "below-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(below.Remove(), below.Close()); err != nil {
			t.Error(err)
		}
	})
	inner := &hooked{Topology: h.Topology, t: t, group: below, plane: loadPlane(t, nil), leaks: h.leaks}
	inner.attach()
	all := inner.maker().steadies()
	want := func(what func(steady)) {
		t.Helper()
		for _, s := range all {
			what(s)
		}
	}
	denied := func(s steady) { t.Helper(); s.be("EPERM") }
	from := func(i int) func(steady) { return func(s steady) { t.Helper(); s.from(i) } }
	ten, twenty := leaveFrom(both(10)), leaveFrom(both(20))
	kernel, deny := dialer.Use{Kernel: true}, dialer.Use{}

	h.rule(cgroupbpf.Options{}, ten)
	want(denied) // those below have no rules yet
	inner.rule(cgroupbpf.Options{}, kernel)
	want(from(10))
	inner.rule(cgroupbpf.Options{}, twenty)
	want(from(20))
	h.rule(cgroupbpf.Options{}, deny)
	want(denied)
	h.rule(cgroupbpf.Options{Override: true}, ten)
	want(from(10))
	inner.rule(cgroupbpf.Options{}, deny)
	want(denied)
	inner.rule(cgroupbpf.Options{}, twenty)
	h.rule(cgroupbpf.Options{}, ten)
	want(from(20))
	if err := inner.plane.SetState(away{nstest.ProxyV4(20): true, nstest.ProxyV6(20): true}); err != nil {
		t.Fatal(err)
	}
	want(func(s steady) { s.be("EADDRNOTAVAIL") })
	if err := inner.plane.SetState(nil); err != nil {
		t.Fatal(err)
	}
	want(from(20))
	inner.rule(cgroupbpf.Options{}, kernel)
	if err := h.plane.SetState(away{nstest.ProxyV4(10): true, nstest.ProxyV6(10): true}); err != nil {
		t.Fatal(err)
	}
	want(func(s steady) { s.be("EADDRNOTAVAIL") })
	if err := h.plane.SetState(nil); err != nil {
		t.Fatal(err)
	}
	want(from(10))
}

// flood sends as fast as it can, and compares each datagram with what has to become of it by then.
type flood struct {
	now           atomic.Int64 // counts the changes of want; odd while one is under way
	want          atomic.Value // the name of an error, or ""
	went, refused atomic.Int64
	wrong         atomic.Value
	stop          atomic.Bool
}

func (f *flood) run(s steady) {
	for !f.stop.Load() {
		before, want := f.now.Load(), f.want.Load().(string)
		got := ""
		if err := s.send(s.server(1), netip.Addr{}); err != nil {
			got = nameOf(err)
			f.refused.Add(1)
		} else {
			f.went.Add(1)
		}
		if f.now.Load() == before && before%2 == 0 && got != want {
			f.wrong.Store(s.name + ": got \"" + got + "\", want \"" + want + "\"")
		}
	}
}

// change makes a change after which datagrams have to end as want says.
func (f *flood) change(t testing.TB, want string, do func() error) {
	t.Helper()
	f.now.Add(1)
	if err := do(); err != nil {
		t.Fatal(err)
	}
	f.want.Store(want)
	done := f.went.Load() + f.refused.Load() + 20
	f.now.Add(1)
	eventually(t, "20 datagrams more", func() bool { return f.went.Load()+f.refused.Load() >= done })
}

// TestKernelPlaneAnswersUnderLoad withdraws a source and gives it back, and exchanges rules, while sockets send all the time: no
// datagram that is sent afterwards has the answer of before. Each is counted once.
func TestKernelPlaneAnswersUnderLoad(t *testing.T) {
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	var f flood
	f.want.Store("")
	var all sync.WaitGroup
	for _, s := range h.maker().steadies() {
		all.Go(func() { f.run(s) })
	}
	down := away{nstest.ProxyV4(10): true, nstest.ProxyV6(10): true}
	rules := func(u dialer.Use) func() error { return func() error { h.rule(cgroupbpf.Options{}, u); return nil } }
	for range 3 {
		for range 20 {
			f.change(t, "EADDRNOTAVAIL", func() error { return h.plane.SetState(down) })
			f.change(t, "", func() error { return h.plane.SetState(nil) })
		}
		f.change(t, "EPERM", rules(dialer.Use{}))
		f.change(t, "", rules(leaveFrom(both(10))))
	}
	f.stop.Store(true)
	all.Wait()
	if wrong := f.wrong.Load(); wrong != nil {
		t.Error(wrong)
	}
	h.wantCounts(map[string]uint64{"default": uint64(f.went.Load())}, map[string]uint64{"default": uint64(f.refused.Load())})
	h.wantFrom(t, nstest.ServerV4(1), nstest.ProxyV4(10))
	h.wantFrom(t, nstest.ServerV6(1), nstest.ProxyV6(10))
	t.Logf("%d datagrams went, %d were refused", f.went.Load(), f.refused.Load())
}
