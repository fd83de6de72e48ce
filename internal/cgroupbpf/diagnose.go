//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// capabilities are what the hooks need, in the order in which a user reads them.
var capabilities = [...]struct {
	bit  uint
	name string
}{
	{unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_PERFMON, "CAP_PERFMON"},
}

// needed are the functions of the kernel that the hooks call, with the version of Linux that brought them.
var needed = [...]struct {
	function asm.BuiltinFunc
	name     string
	version  string
}{
	{asm.FnBind, "bpf_bind", "4.17"},
	{asm.FnGetNetnsCookie, "bpf_get_netns_cookie", "5.7"},
	{asm.FnSkStorageGet, "bpf_sk_storage_get", "5.8"},
	{asm.FnKtimeGetBootNs, "bpf_ktime_get_boot_ns", "5.8"},
	{asm.FnLoop, "bpf_loop", "5.17"},
	{asm.FnSetRetval, "bpf_set_retval", "5.18"},
}

// diagnose adds to err, which the kernel gave, what the kernel or the process lacks. Without the capabilities nothing loads,
// and what err says then (a refusal, or something that could not be probed) is only how that came to light.
func diagnose(err error) error {
	if err == nil {
		return nil
	}
	if missing := missingCapabilities(); missing != nil {
		return &privilegeError{missing, err}
	}
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) && errors.Is(err, unix.EACCES) {
		return errors.New("the kernel's verifier refuses the hooks, which is a fault of theirs: " + err.Error()) // not os.ErrPermission
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, n := range needed {
		if errors.Is(features.HaveProgramHelper(ebpf.CGroupSockAddr, n.function), ebpf.ErrNotSupported) {
			return fmt.Errorf("%w: this kernel lacks %s, which Linux %s brought: the kernel plane needs Linux 5.18, the rest of srcproxy does not (%w)",
				errors.ErrUnsupported, n.name, n.version, err)
		}
	}
	return err
}

// diagnoseAttach tells what the errors of BPF_PROG_ATTACH mean.
func diagnoseAttach(err error) error {
	switch {
	case errors.Is(err, unix.EBADF):
		return fmt.Errorf("is no cgroup of version 2: %w", err)
	case errors.Is(err, unix.EPERM) && missingCapabilities() == nil:
		return fmt.Errorf("a program there, or on a cgroup above, admits no other (bpftool cgroup tree shows it): %w", err)
	}
	return diagnose(err)
}

// Privileges returns what keeps this process from using the kernel plane for want of capabilities, with the command that gives
// them, or nil. It is os.ErrPermission.
func Privileges() error {
	if missing := missingCapabilities(); missing != nil {
		return &privilegeError{missing, os.ErrPermission}
	}
	return nil
}

// privilegeError says which capabilities are missing. It is os.ErrPermission.
type privilegeError struct {
	missing []string
	err     error
}

func (e *privilegeError) Error() string {
	program, err := os.Executable()
	if err != nil {
		program = "srcproxy"
	}
	list := strings.Join(e.missing, ", ")
	return fmt.Sprintf("the kernel plane: %s missing. As root: setcap cap_bpf,cap_net_admin,cap_perfmon+ep %s; in a systemd unit: "+
		"AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON", list, program)
}

func (e *privilegeError) Unwrap() error { return e.err }

func (e *privilegeError) Is(target error) bool { return target == os.ErrPermission }

// missingCapabilities returns those that the process does not have. In a user namespace they do not count for BPF, and the
// kernel tells that only by refusing.
func missingCapabilities() []string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil
	}
	var missing []string
	for _, c := range capabilities {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing
}
