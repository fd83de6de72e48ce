package attach

import (
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/cgroup"
)

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"asterisk.service":    "asterisk%2Eservice",
		"/machine.slice":      "%2Fmachine%2Eslice",
		`getty@tty-1.service`: "getty%40tty%2D1%2Eservice",
		"/a%2Eb":              "%2Fa%252Eb",
		"/":                   "%2F",
	} {
		got := escape(name)
		if got != want || strings.ContainsAny(got, "./-") {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if back, ok := unescape(got); back != name || !ok {
			t.Errorf("%s: back it is %q, %v", got, back, ok)
		}
	}
	for _, s := range []string{"asterisk%2Eservice-next", "a%2", "a%", "a%zz"} {
		if name, ok := unescape(s); ok {
			t.Errorf("%s was taken for the name %q", s, name)
		}
	}
}

func TestOnBPF(t *testing.T) {
	dir := t.TempDir()
	err := OnBPF(dir + "/not/there")
	if want := dir + "/not/there is on no BPF file system; as root: mount -t bpf bpf " + dir + "/not"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestDetachSays does not take a cgroup that cannot be opened for one that is gone: its hooks would be there for ever.
func TestDetachSays(t *testing.T) {
	dir := t.TempDir()
	if err := detach(&cgroup.Tree{Dir: dir}, nil); err == nil || !strings.Contains(err.Error(), dir+" is no cgroup v2") {
		t.Errorf("got %v", err)
	}
}
