package dialer_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside tells a test that it runs in the namespace that inNamespace made.
const inside = "DIALER_TEST_INSIDE"

// inNamespace runs the calling test once more, in user and network namespaces of its
// own where the loopback is up and these are the local ports; f is what it does there.
func inNamespace(t *testing.T, ports string, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(inside) != "" {
		if err := errors.Join(loopbackUp(), os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(ports), 0)); err != nil {
			t.Fatal(err)
		}
		f(t)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EACCES):
		if os.Getenv("CI") == "true" {
			t.Fatalf("this host allows no user namespaces: %v", err)
		}
		t.Skipf("this host allows no user namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return errors.Join(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r), unix.Close(fd))
}
