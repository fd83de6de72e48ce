//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// runLine is a line of run --log.
var runLine = regexp.MustCompile(`(?m)^srcproxy: [0-9:.]{12} (.*)$`)

// TestRunLog compares the lines of run with what the far end saw.
func TestRunLog(t *testing.T) {
	kernelTree(t)
	r := newRig(t)
	servers := r.echoes(t)
	lines := newJournal()
	cmd := exec.Command(r.binary.Build(t), "run", "--log", "-c", r.write("config.toml", loggedConfig), "--", "python3", "-c", loggedAsker)
	cmd.Stderr = lines
	p, a := r.startAsk(t, cmd)
	pid := a.to("pid", netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	for i, c := range loggedCalls {
		src := c.make(t, a, servers)
		want := fmt.Sprintf("my caller[%s] uid 4711 %s %s", pid, strings.Replace(c.kind, "connected", "udp", 1), c.dst)
		switch {
		case c.err != "":
			want += " refused: " + c.err // and more
		default:
			want += fmt.Sprintf(" from %s (%s), %s", src, c.source, c.rule)
		}
		var told [][]string
		eventually(t, "there is a line", func() bool {
			told = runLine.FindAllStringSubmatch(lines.String(), -1)
			return len(told) > i
		})
		if got := told[i][1]; c.err == "" && got != want || !strings.HasPrefix(withoutPort(got), want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	p.Kill()                                                 // and its group
	r.program("run", "--use", "198.51.100.11", "--", "true") // removes the cgroup
}

// withoutPort leaves out from where a refused datagram was to leave, which nobody has seen.
func withoutPort(line string) string {
	return regexp.MustCompile(` refused from port \d+:`).ReplaceAllString(line, " refused:")
}

// TestRunLogEnds has the lines of a program that ends at once, and none without --log.
func TestRunLogEnds(t *testing.T) {
	kernelTree(t)
	r := newRig(t)
	r.echoes(t)
	config := r.write("config.toml", loggedConfig)
	command := []string{"--", "python3", "-c", `import socket; socket.create_connection(("203.0.113.9", 7))`}
	nstest.Need(t, "python3")
	for _, log := range []string{"--log", "--log=false"} {
		got := r.program(append([]string{"run", log, "-c", config}, command...)...)
		told := runLine.FindAllStringSubmatch(got.Stderr, -1)
		switch {
		case got.Err != nil:
			t.Errorf("%s: %v", log, got)
		case log == "--log=false" && told != nil, log == "--log" && (len(told) != 1 || !strings.HasSuffix(told[0][1], " 203.0.113.9:7 from 198.51.100.10 (wan), default")):
			t.Errorf("%s: got %q", log, got.Stderr)
		}
	}
}
