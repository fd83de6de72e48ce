//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestAttachStays looks at what is left of a service that persists, and of one that was
// killed.
func TestAttachStays(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, a := r.askIn(t, dir)
	for _, tt := range []struct {
		name, more string
		signal     unix.Signal
	}{
		{"persist", "persist = true\n", unix.SIGTERM},
		{"killed", "", unix.SIGKILL},
	} {
		r.serve(attachConfig(name, tt.more))
		r.signal(tt.signal)
		<-r.proc.Done()
		if got := fmt.Sprint(r.calledFrom(a, servers)); got != byRules {
			t.Errorf("%s: called from %s, want %s", tt.name, got, byRules)
		}
	}
	// What the next one does not want any more, it does not know of: that is detach's.
	if got := r.program("detach", "--all"); got.Err != nil {
		t.Error(got)
	}
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != byKernel {
		t.Errorf("detach --all: called from %s, want %s", got, byKernel)
	}
}

// TestAttachFindsAll starts the service after one that was killed in the midst of an
// exchange: of its hooks and of those before, none is left.
func TestAttachFindsAll(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.serve(attachConfig(name, ""))
	r.proc.Kill()
	pins, err := filepath.Glob("/sys/fs/bpf/srcproxy/*")
	if err != nil || len(pins) != 1 {
		t.Fatalf("got the pins %q, %v, want one", pins, err)
	}
	exchangeHalf(t, dir, pins[0])
	r.serve(otherDefault(attachConfig(name, ""), nstest.ProxyV4(31)))
	_, a := r.askIn(t, dir)
	want := fmt.Sprint(map[string]int{"198.51.100.31": 2, "EADDRNOTAVAIL": 2})
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != want {
		t.Errorf("called from %s, want %s", got, want)
	}
	r.signal(unix.SIGTERM)
	<-r.proc.Done()
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != byKernel {
		t.Errorf("after the end: called from %s, want %s", got, byKernel)
	}
}

// exchangeHalf does what serve does until it has attached its hooks, to one half of the
// places, and forgets them.
func exchangeHalf(t *testing.T, dir, pin string) {
	t.Helper()
	old, err := cgroupbpf.Open(pin)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	p, err := cgroupbpf.Load(old)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	table, err := dialer.NewTable(nil, dialer.Use{})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := cgroupbpf.Compile(table, cgroupbpf.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := cgroup.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := errors.Join(p.Set(rules), p.Pin(pin+"-exchange"), p.Attach(g, nil)); err != nil {
		t.Fatal(err)
	}
}

// TestAttachReload takes an [[attach]] out and in again, and tries what the kernel plane
// cannot do: that changes nothing.
func TestAttachReload(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, a := r.askIn(t, dir)
	attached := attachConfig(name, "")
	bad := "[[attach]]\ncgroup = \"/other\"\nuse = \"many\"\n"
	many := strings.Replace(attached, "[sources]", "[sources]\nmany = { ip = \"198.51.100.32-198.51.100.35\" }", 1) + bad
	r.serve(attached)
	for _, step := range []struct {
		what, config, msg, want string
	}{
		{"taken out", kernelConfig, "reloaded", byKernel},
		{"put in", attached, "reloaded", byRules},
		{"one too many", many, "reload failed", byRules},
		{"another default", otherDefault(attached, wan6), "reloaded", fmt.Sprint(map[string]int{wan6.String(): 2, "EADDRNOTAVAIL": 2})},
		{"no attach, and a bad one", kernelConfig + strings.ReplaceAll(bad, "many", "same"), "reload failed", fmt.Sprint(map[string]int{wan6.String(): 2, "EADDRNOTAVAIL": 2})},
		{"the first again", attached, "reloaded", byRules},
	} {
		if e := r.reload(step.config); e.text("msg") != step.msg {
			t.Errorf("%s: %v", step.what, e)
		}
		if got := fmt.Sprint(r.calledFrom(a, servers)); got != step.want {
			t.Errorf("%s: called from %s, want %s", step.what, got, step.want)
		}
	}
	// What somebody has taken off is put back by a reload.
	if got := r.program("detach", "--all"); got.Err != nil {
		t.Error(got)
	}
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != byKernel {
		t.Errorf("detached: called from %s, want %s", got, byKernel)
	}
	r.reload(attached)
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != byRules {
		t.Errorf("detached and reloaded: called from %s, want %s", got, byRules)
	}
}
