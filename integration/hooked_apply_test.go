//go:build linux

package integration

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/attach"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestKernelPlaneApplyFails applies rules where the hooks cannot be pinned any more: the rules of before stay.
func TestKernelPlaneApplyFails(t *testing.T) {
	h := newHooked(t)
	tree, err := cgroup.Mounted()
	if err != nil {
		t.Fatal(err)
	}
	pins := filepath.Join(mountBPF(t), "srcproxy")
	s := &attach.Set{Tree: tree, Pins: pins}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
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
