//go:build linux

package integration

import (
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// newSet closes s at the end of the test.
func newSet(t *testing.T, s *attach.Set) *attach.Set {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestKernelPlaneApplyFails applies rules where the hooks cannot be pinned any more: the rules of before stay.
func TestKernelPlaneApplyFails(t *testing.T) {
	h := newHooked(t)
	tree, err := cgroup.Mounted()
	if err != nil {
		t.Fatal(err)
	}
	pins := filepath.Join(mountBPF(t), "srcproxy")
	s := newSet(t, &attach.Set{Tree: tree, Pins: pins})
	apply := func(i int) error {
		table, err := dialer.NewTable(nil, leaveFrom(both(i)))
		if err != nil {
			t.Fatal(err)
		}
		rules, err := cgroupbpf.Compile(table, cgroupbpf.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Apply([]attach.Entry{{Name: "one", Cgroup: tree.Name(h.group.Path()), Rules: rules}})
	}
	if err := apply(10); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", pins, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	err = apply(11)
	if err := unix.Unmount(pins, 0); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Error("pinned on no BPF file system: got no error")
	}
	h.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(10).String())
	if err := apply(12); err != nil {
		t.Error(err)
	}
	h.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(12).String())
}

// lossState is a dialer.State whose sources can all be lost.
type lossState struct {
	linkState
	lost atomic.Bool
}

func (s *lossState) Down(*dialer.Source, netip.Addr) error {
	if s.lost.Load() {
		return dialer.ErrSourceDown
	}
	return nil
}

// TestKernelPlaneRefreshSlow: a source is withdrawn from all programs, and its sockets end, while it still takes time to find
// out where the marks of the first ones lead.
func TestKernelPlaneRefreshSlow(t *testing.T) {
	h := newHooked(t)
	tree, err := cgroup.Mounted()
	if err != nil {
		t.Fatal(err)
	}
	table, err := dialer.NewTable(nil, leaveFrom(both(10)))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := cgroupbpf.Compile(table, cgroupbpf.Options{})
	if err != nil {
		t.Fatal(err)
	}
	state, asked, found := &lossState{}, make(chan string), make(chan struct{})
	s := newSet(t, &attach.Set{Tree: tree, Pins: filepath.Join(mountBPF(t), "srcproxy"), State: state})
	s.Ways = func(name string, _ *cgroupbpf.Rules) []cgroupbpf.Way {
		if state.lost.Load() {
			asked <- name
			<-found
		}
		return nil
	}
	err = s.Apply([]attach.Entry{
		{Name: "slow", Cgroup: tree.Name(newGroup(t).Path()), Rules: rules},
		{Name: "next", Cgroup: tree.Name(h.group.Path()), Rules: rules},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(10).String())
	state.lost.Store(true)
	var refresh sync.WaitGroup
	refresh.Go(s.Refresh)
	t.Cleanup(refresh.Wait) // before the set is closed
	first := <-asked
	go func() { <-asked }()
	defer close(found)
	if first != "slow" {
		t.Fatalf("asked first about %q", first)
	}
	h.says(t, `tcp("203.0.113.1")`, "EADDRNOTAVAIL")
	ended := make(chan struct{})
	go func() {
		s.EndSockets([]netip.Addr{nstest.ProxyV4(10)})
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("sockets end only when it is known where marks lead")
	}
}
