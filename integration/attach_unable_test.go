//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// tooOld is what is said of a kernel without the youngest function that the hooks need.
const tooOld = "this kernel lacks bpf_set_retval, which Linux 5.18 brought: the kernel plane needs Linux 5.18, the rest of srcproxy does not"

// TestAttachUnable has an [[attach]] where rules cannot be attached: that is told, and the
// rest works, also after a reload.
func TestAttachUnable(t *testing.T) {
	tree := kernelTree(t)
	nstest.Need(t, "setpriv")
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		old  bool
		wrap []string
		bpf  bool // a BPF file system is mounted
		want string
	}{
		{"too old a kernel", true, nil, true, tooOld},
		{"a capability less", false, []string{"setpriv", "--bounding-set=-cap_39,-sys_admin", "--inh-caps=-cap_39,-sys_admin"}, true, "CAP_BPF missing. As root: setcap "},
		{"no BPF file system", false, nil, false, "is on no BPF file system; as root: mount -t bpf bpf /sys/fs/bpf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.bpf {
				bpffs(t)
			} else {
				hideBPF(t)
			}
			r := newRig(t)
			r.binary.Old, r.wrap = tt.old, tt.wrap
			servers := r.echoes(t)
			config := attachConfig(name, "") + "[[listen]]\ntcp = \"127.0.0.1:2525\"\nto = \"203.0.113.9:7\"\n"
			relays := func() {
				t.Helper()
				servers["tcptrue"].Forget()
				c := r.dial("127.0.0.1:2525")
				defer c.Close()
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				wantSources(t, servers["tcptrue"], wan4, 1)
			}
			r.serve(config)
			told := r.log.wait(t, 1, "no rules are attached: programs go without them")[0]
			if !strings.Contains(told.text("err"), tt.want) || told.text("level") != "ERROR" {
				t.Errorf("the log says %v, want %q", told, tt.want)
			}
			relays()
			status := r.program("status")
			if !strings.Contains(status.Stdout, name+" goes without rules: ") || !strings.Contains(status.Stdout, tt.want) {
				t.Errorf("status: got %v, want %q", status, tt.want)
			}
			_, a := r.askIn(t, dir)
			if got := fmt.Sprint(r.calledFrom(a, servers)); got != byKernel {
				t.Errorf("called from %s, want %s", got, byKernel)
			}
			if e := r.reload(config); e.text("msg") != "reloaded" {
				t.Errorf("reload: %v", e)
			}
			relays()
			r.signal(unix.SIGTERM)
			<-r.proc.Done()
		})
	}
}

// hideBPF mounts another file system where that for BPF would be.
func hideBPF(t *testing.T) {
	t.Helper()
	const dir = "/sys/fs/bpf"
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		nstest.Skip(t, "mount: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestTooOld has the commands that put rules into the kernel say what that lacks.
func TestTooOld(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	r.binary.Old = true
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"run", "--use", "198.51.100.10", "--", "true"},
		{"attach", "--use", "198.51.100.10", name},
	} {
		got := r.Proxy.Run(t, exec.Command(r.binary.Build(t), args...))
		if got.Err == nil || !strings.Contains(got.Stderr, tooOld) || strings.Count(got.Stderr, "\n") > 2 {
			t.Errorf("%s: got %v, want %q", args[0], got, tooOld)
		}
	}
}
