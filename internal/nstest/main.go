//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// dirVariable names, inside the namespaces, the directory of this run.
	dirVariable = "NSTEST_DIR"
	// causeVariable says why there are no namespaces; each test then skips.
	causeVariable = "NSTEST_UNAVAILABLE"
)

// Setup is what a package wants done around its tests. The zero value is
// valid.
type Setup struct {
	// Prepare runs once outside the namespaces, where the network of the host
	// is still there, with the directory of this run. Nil does nothing.
	Prepare func(dir string) error
	// Hosts are the lines of /etc/hosts inside, besides localhost.
	Hosts []string
}

// Main runs the tests of m in new namespaces and exits with their code. It is
// the whole of a TestMain.
func Main(m *testing.M, s Setup) {
	if dir := os.Getenv(dirVariable); dir != "" {
		if err := enter(dir, s.Hosts); err != nil {
			fmt.Fprintln(os.Stderr, "nstest:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := outside(s)
	if errors.Is(err, errNoNamespaces) {
		_ = os.Setenv(causeVariable, err.Error()) // a name and a value without NUL
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nstest:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

var errNoNamespaces = errors.New("no permission to create network namespaces")

// outside prepares the run and starts the test binary again, in namespaces.
func outside(s Setup) (code int, err error) {
	dir, err := os.MkdirTemp("", "nstest-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if Race() {
		if err := collectRaces(dir); err != nil {
			return 0, err
		}
	}
	if s.Prepare != nil {
		if err := s.Prepare(dir); err != nil {
			return 0, err
		}
	}
	// The child gets the terminal's interrupt too; this process only waits.
	// Notify, since a signal that is ignored would be ignored in the child too.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	if code, err = runInside(dir); err != nil {
		return 0, err
	}
	reports, err := takeRaces(dir)
	for _, report := range reports { // of programs whose test did not look
		fmt.Fprintln(os.Stderr, "nstest: the race detector:", report)
		code = max(code, 1)
	}
	return code, err
}

func runInside(dir string) (int, error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// Pdeathsig fires when the thread that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = namespaces()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoNamespaces, err)
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// namespaces asks for network and mount namespaces, as root of a user
// namespace where the caller is not root already.
func namespaces() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Geteuid() != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return a
}

// enter gives the mount namespace a /run, a hosts file and a resolv.conf of its
// own, and brings the loopback up.
func enter(dir string, hosts []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	resolv, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		resolv = "/etc/resolv.conf"
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	lines := append([]string{"127.0.0.1 localhost", "::1 localhost"}, hosts...)
	if err := replaceFile("/etc/hosts", filepath.Join(dir, "hosts"), strings.Join(lines, "\n")+"\n"); err != nil {
		return err
	}
	text := "nameserver " + DNSServer().String() + "\noptions timeout:1 attempts:2\n"
	if err := replaceFile(resolv, filepath.Join(dir, "resolv.conf"), text); err != nil {
		return err
	}
	// Where nft and sshd are, also for those who are not root.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		return err
	}
	return loopbackUp()
}

// replaceFile writes text to a file of our own and mounts that over path.
func replaceFile(path, own, text string) error {
	if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil { // a link into the /run that is hidden now
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", path, err)
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

// Dir is the directory of this run. It is removed when the run ends.
func Dir(t testing.TB) string {
	t.Helper()
	if cause := os.Getenv(causeVariable); cause != "" {
		Skip(t, cause)
	}
	dir := os.Getenv(dirVariable)
	if dir == "" {
		t.Fatal("nstest: TestMain did not call nstest.Main")
	}
	return dir
}

// Skip skips t and names the cause. Where CI=true a skip is a failure.
func Skip(t testing.TB, cause string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("would be skipped: %s (CI=true)", cause)
	}
	t.Skip("skipped: " + cause)
}

// Need skips t when one of the programs is not installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Skip(t, p+" is not installed")
		}
	}
}
