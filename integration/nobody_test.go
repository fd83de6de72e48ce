//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// asNobody is the beginning of a command that runs as nobody with no rights but the
// three of the kernel plane.
func asNobody(t *testing.T) []string {
	t.Helper()
	nstest.Need(t, "setpriv")
	const three = "+cap_39,+net_admin,+cap_38" // CAP_BPF and CAP_PERFMON, which old setpriv(1) has no names for
	return []string{
		"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
		"--bounding-set=-all," + three, "--inh-caps=-all," + three, "--ambient-caps=-all," + three,
	}
}

// delegate gives a cgroup to nobody, as systemd does with Delegate=yes.
func delegate(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		giveToNobody(t, filepath.Join(dir, name))
	}
}

func giveToNobody(t *testing.T, path string) {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid) // it comes from the system
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// delegated makes a cgroup of nobody's.
func delegated(t *testing.T) (name, dir string) {
	t.Helper()
	name, dir = scratchGroup(t, kernelTree(t), "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	delegate(t, dir)
	return name, dir
}

// TestNobodyRuns is run by nobody with three capabilities, none of which the command
// gets.
func TestNobodyRuns(t *testing.T) {
	_, dir := delegated(t)
	r := newRig(t)
	r.readable()
	servers := r.echoes(t)
	program, config := r.binary.Build(t), r.write("config.toml", kernelConfig)
	args := append(asNobody(t), program, "run", "-c", config, "--", "python3", "-c", asker)
	p, a := r.startAsk(t, inGroup(t, dir, exec.Command(args[0], args[1:]...)))
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != byRules {
		t.Errorf("called from %s, want %s", got, byRules)
	}
	p.Kill()
	args = append(asNobody(t), program, "run", "-c", config, "--", "cat", "/proc/self/status")
	got := r.Proxy.Run(t, inGroup(t, dir, exec.Command(args[0], args[1:]...)))
	caps := regexp.MustCompile(`(?m)^Cap(Inh|Prm|Eff|Amb):\t0{16}$`).FindAllString(got.Stdout, -1)
	if got.Err != nil || len(caps) != 4 {
		t.Errorf("the command has capabilities: %v", got)
	}
}

// TestNobodyServes is serve by nobody with three capabilities, from the start over a
// reload and a kill to the end.
func TestNobodyServes(t *testing.T) {
	name, dir := delegated(t)
	const pins = "/run/srcproxy/bpf"
	if err := os.MkdirAll(pins, 0o755); err != nil {
		t.Fatal(err)
	}
	giveToNobody(t, filepath.Dir(pins)) // others may have made it for root alone
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(pins, 0); err != nil {
			t.Error(err)
		}
	})
	giveToNobody(t, pins)
	r := newRig(t)
	r.readable()
	servers := r.echoes(t)
	config := attachConfig(name, "")
	_, a := r.askIn(t, dir)
	r.wrap = asNobody(t)
	want := func(what, want string) {
		t.Helper()
		if got := fmt.Sprint(r.calledFrom(a, servers)); got != want {
			t.Errorf("%s: called from %s, want %s", what, got, want)
		}
	}
	r.serve(config)
	want("start", byRules)
	other := strings.Replace(config, `"198.51.100.10", "2001:db8:1::10"`, `"198.51.100.31", "2001:db8:1::31"`, 1)
	if e := r.reload(other); e.text("msg") != "reloaded" {
		t.Fatalf("reload: %v", e)
	}
	want("reload", fourTimes(nstest.ProxyV4(31), nstest.ProxyV6(31)))
	r.proc.Kill()
	want("kill", fourTimes(nstest.ProxyV4(31), nstest.ProxyV6(31)))
	r.serve(config)
	want("start again", byRules)
	r.signal(unix.SIGTERM)
	<-r.proc.Done()
	want("end", byKernel)
}

// TestNobodyLacks takes one capability after the other away: the error says which, and
// how to get it.
func TestNobodyLacks(t *testing.T) {
	_, dir := delegated(t)
	r := newRig(t)
	for missing, name := range map[string]string{"cap_39": "CAP_BPF", "cap_38": "CAP_PERFMON", "net_admin": "CAP_NET_ADMIN"} {
		args := asNobody(t)
		for i := range args {
			args[i] = strings.Replace(args[i], ",+"+missing, "", 1)
		}
		args = append(args, r.binary.Build(t), "run", "--use", "198.51.100.10", "--", "true")
		got := r.Proxy.Run(t, inGroup(t, dir, exec.Command(args[0], args[1:]...)))
		for _, text := range []string{name + " missing", "setcap cap_bpf,cap_net_admin,cap_perfmon+ep", "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON"} {
			if got.Err == nil || !strings.Contains(got.Stderr, text) {
				t.Errorf("without %s: %v, want %q", name, got, text)
			}
		}
	}
}

// TestRunUnderSudo: what root runs for who called sudo(8) is run as that user.
func TestRunUnderSudo(t *testing.T) {
	kernelTree(t)
	r := newRig(t)
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	r.readable()
	r.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	const command = `id -u; id -g; id -G; echo "$USER"; grep CapEff /proc/self/status; curl -sS http://203.0.113.9/`
	cmd := exec.Command(r.binary.Build(t), "run", "--use", "198.51.100.30", "--", "sh", "-c", command)
	cmd.Env = append(nstest.RaceEnv(), "PATH="+os.Getenv("PATH"), "SUDO_UID="+u.Uid, "SUDO_GID="+u.Gid, "SUDO_USER=nobody", "USER=root")
	want := fmt.Sprintf("%s\n%s\n%[2]s\nnobody\nCapEff:\t%016d\n198.51.100.30", u.Uid, u.Gid, 0)
	if got := r.Proxy.Run(t, cmd); got.Err != nil || got.Stdout != want {
		t.Errorf("got %v, want %q", got, want)
	}
	cmd = exec.Command(r.binary.Build(t), "run", "--user", u.Uid, "--use", "198.51.100.30", "--", "id", "-un")
	if got := r.Proxy.Run(t, cmd); got.Err != nil || got.Stdout != "nobody\n" {
		t.Errorf("--user: %v", got)
	}
}
