//go:build linux

package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestDoctorKnowsItsService: the ports of the service of this very file are not in the way,
// those of another srcproxy are, whatever it is called.
func TestDoctorKnowsItsService(t *testing.T) {
	r := newRig(t)
	config := func(name string) string {
		return fmt.Sprintf("default = \"kernel\"\n[admin]\nsocket = %q\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[[listen]]\nudp = \"127.0.0.1:5060\"\nto = \"203.0.113.5:5060\"\n", r.path(name+".sock"))
	}
	r.serve(config("own"))
	own := r.path("config.toml")
	other := r.write("other.toml", config("other"))
	doctor := func(path string) (nstest.Result, string) {
		got := r.program("doctor", "-c", path)
		return got, strings.Join(strings.Fields(got.Stdout), " ")
	}
	if got, words := doctor(own); got.Err != nil || !strings.Contains(words, "ok listeners no other program has their ports") {
		t.Errorf("beside its service: %v", got)
	}
	held := fmt.Sprintf("is held by pid %d (srcproxy); unless that serves this file, it cannot be opened", r.proc.Pid())
	if _, words := doctor(other); strings.Count(words, held) != 2 {
		t.Errorf("beside the service of another file, and none of its own: no two %q in %v", held, words)
	}
	two := exec.Command(r.binary.Build(t), "serve", "-c", r.write("other.toml", strings.ReplaceAll(strings.ReplaceAll(config("other"), "1080", "1081"), "5060\"\nto", "5061\"\nto")))
	r.Proxy.Start(t, two)
	eventually(t, "the second service answers", func() bool { return r.program("status", "-c", other).Err == nil })
	if got, _ := doctor(other); got.Err != nil {
		t.Errorf("beside both services: %v", got)
	}
	r.write("other.toml", config("other")) // it would not be able to reload this
	got, words := doctor(other)
	if want := fmt.Sprintf("FAIL mixed 127.0.0.1:1080 tcp port 127.0.0.1:1080 is held by pid %d (srcproxy)", r.proc.Pid()); got.Err == nil || !strings.Contains(words, want) {
		t.Errorf("a file with the ports of another service: no %q: %v", want, got)
	}
}
