//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/cgroupbpf"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestKernelPlanePrograms rules programs that other people wrote, and a runtime that makes its system calls itself.
func TestKernelPlanePrograms(t *testing.T) {
	nstest.Need(t, "curl", "node")
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	h.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	h.Server.ServeHTTP(t, "[::]:80", nil)
	four, six := nstest.ProxyV4(10).String(), nstest.ProxyV6(10).String()
	golang := buildProgram(t, "testdata/client.go")
	fetch := `fetch(process.argv[1]).then(r => r.text()).then(console.log)`
	datagram := `const s = require("dgram").createSocket("udp4"); s.on("message", m => { console.log(m.toString().split(":")[0]); s.close() }); s.send("who", 7, "203.0.113.3")`
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"curl", "-sS", "http://203.0.113.1/"}, four},
		{[]string{"curl", "-sS", "http://[2001:db8:2::1]/"}, six},
		{[]string{"node", "-e", fetch, "http://203.0.113.1/"}, four},
		{[]string{"node", "-e", fetch, "http://[2001:db8:2::1]/"}, six},
		{[]string{"node", "-e", datagram}, four},
		{[]string{golang, "http://203.0.113.1/"}, four},
		{[]string{golang, "http://[2001:db8:2::1]/"}, six},
		{[]string{golang, "203.0.113.3:7"}, four},
		{[]string{golang, "[2001:db8:2::3]:7"}, six},
	} {
		cmd := h.inside(exec.Command(tt.args[0], tt.args[1:]...))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		if got := h.output(cmd); got[0] != tt.want {
			t.Errorf("%v: got %q, want %s", tt.args, got, tt.want)
		}
	}
}

// buildProgram compiles a program of one file.
func buildProgram(t testing.TB, file string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", path, file).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", file, err, out)
	}
	return path
}

// TestKernelPlaneIperf has iperf3 send in bulk, each way and by both protocols.
func TestKernelPlaneIperf(t *testing.T) {
	nstest.Need(t, "iperf3", "nft")
	h := newHooked(t)
	h.rule(cgroupbpf.Options{}, leaveFrom(both(10)))
	h.attach()
	h.leaks.Allow(both(10).Addrs...)
	kinds := [][]string{{"-n", "50M"}, {"-n", "50M", "-R"}, {"-n", "50M", "-P", "4"}, {"-u", "-b", "1G", "-n", "20M"}, {"-u", "-b", "1G", "-n", "20M", "-R"}}
	for i, kind := range kinds {
		for source, dst := range map[netip.Addr]netip.Addr{
			nstest.ProxyV4(10): nstest.ServerV4(20 + i),
			nstest.ProxyV6(10): nstest.ServerV6(20 + i),
		} {
			t.Run(fmt.Sprint(strings.Join(kind, " "), " ", dst), func(t *testing.T) {
				h.iperf(t, dst, kind...)
				h.wantFrom(t, dst, source)
			})
		}
	}
	if n, lines := h.leaks.Leaks(t); n > 0 {
		t.Errorf("%d packets from other addresses:\n%s", n, strings.Join(lines, "\n"))
	}
}

// iperf runs one measurement of iperf3 in the cgroup, and fails unless that ends well.
func (h *hooked) iperf(t *testing.T, dst netip.Addr, args ...string) {
	t.Helper()
	h.Server.Start(t, exec.Command("iperf3", "-s", "-1", "-B", dst.String()))
	for start := time.Now(); ; {
		r := h.Proxy.Run(t, h.inside(exec.Command("iperf3", append([]string{"-J", "-c", dst.String()}, args...)...)))
		var result struct {
			Error string
			End   struct{ Streams []any }
		}
		if err := json.Unmarshal([]byte(r.Stdout), &result); err != nil {
			t.Fatalf("%v\n%v", err, r)
		}
		if result.Error == "" && len(result.End.Streams) > 0 {
			return
		}
		if !strings.Contains(result.Error, "refused") || time.Since(start) > 10*time.Second { // the server may not listen yet
			t.Fatal(r)
		}
	}
}
