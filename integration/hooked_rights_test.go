//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// as runs f on a thread of its own as nobody, with these capabilities and no more.
func as(t testing.TB, capabilities []int, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else gets this thread
		var data [2]unix.CapUserData
		for _, c := range capabilities {
			data[c/32].Permitted |= 1 << (c % 32)
			data[c/32].Effective |= 1 << (c % 32)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			done <- err
			return
		}
		// Of this thread alone: the functions of package unix change all.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			done <- errno
			return
		}
		if err := unix.Capset(&header, &data[0]); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// TestKernelPlaneCapabilities does all there is to do as nobody with three capabilities, and tells which is missing with less.
func TestKernelPlaneCapabilities(t *testing.T) {
	h := newHooked(t)
	names := map[int]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_PERFMON: "CAP_PERFMON"}
	all := []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	for _, without := range all {
		some := slices.DeleteFunc(slices.Clone(all), func(c int) bool { return c == without })
		err := as(t, some, func() error {
			p, err := cgroupbpf.Load(nil)
			if err == nil {
				err = p.Close()
			}
			return err
		})
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(fmt.Sprint(err), ": "+names[without]+" missing. As root: setcap ") {
			t.Errorf("without %s: got %v", names[without], err)
		}
	}
	dir := mountBPF(t)
	if err := h.plane.Pin(filepath.Join(dir, "root", "one")); err != nil {
		t.Fatal(err)
	}
	err := as(t, all, func() error {
		_, err := cgroupbpf.Open(filepath.Join(dir, "root", "one"))
		return err
	})
	if !errors.Is(err, os.ErrPermission) || strings.Contains(err.Error(), "missing") {
		t.Errorf("pins of root: got %v", err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	err = as(t, all, func() error {
		p, err := cgroupbpf.Load(nil)
		if err != nil {
			return err
		}
		h.plane = p
		h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
		if err := errors.Join(p.Attach(h.group, nil), p.Pin(filepath.Join(dir, "one")), p.SetState(away{}), p.Close()); err != nil {
			return err
		}
		old, err := cgroupbpf.Open(filepath.Join(dir, "one"))
		if err != nil {
			return err
		}
		if h.plane, err = cgroupbpf.Load(old); err != nil {
			return err
		}
		h.rule(cgroupbpf.Options{}, leaveFrom(both(11)))
		_, err = h.plane.Counters()
		return errors.Join(err, h.plane.Attach(h.group, old), h.plane.Pin(filepath.Join(dir, "one")), old.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	h.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(11).String())
	h.says(t, `sent("2001:db8:2::1", udp(AF_INET6, 6060))`, at6(11, 6060))
	err = as(t, all, func() error { return errors.Join(h.plane.Detach(h.group), h.plane.Close()) })
	if err != nil {
		t.Error(err)
	}
	h.says(t, `tcp("203.0.113.1")`, nstest.ProxyV4(1).String())
}

// TestKernelPlanePinWhere refuses what is no BPF file system, and says how to get one.
func TestKernelPlanePinWhere(t *testing.T) {
	p := loadPlane(t, nil)
	if err := p.Pin(filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "mount -t bpf bpf /sys/fs/bpf") {
		t.Errorf("got %v", err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := p.Attach(notCgroup{dir}, nil); err == nil || !strings.Contains(err.Error(), "no cgroup of version 2") {
		t.Errorf("got %v", err)
	}
}

// notCgroup is another directory.
type notCgroup struct{ *os.File }

func (d notCgroup) Path() string { return d.Name() }
func (d notCgroup) FD() int      { return int(d.Fd()) }
