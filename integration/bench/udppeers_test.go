//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// source is the address that every program is to send from.
func source() netip.Addr { return nstest.ProxyV4(nstest.FirstSource) }

// clientOf is the address of client i on the loopback of the proxy host.
func clientOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}) }

// writeConfig writes the configuration of a program and returns its name.
func writeConfig(b testing.TB, name, text string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// command is a program whose messages are shown when the test fails.
func command(b testing.TB, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	b.Cleanup(func() {
		if b.Failed() {
			b.Logf("%s: %s", filepath.Base(path), tail(out.String()))
		}
	})
	return cmd
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// serveSrcproxy starts srcproxy with these listeners, and waits until it is ready.
func serveSrcproxy(b testing.TB, n *nstest.Namespace, listeners string) *nstest.Process {
	b.Helper()
	config := writeConfig(b, "config.toml", fmt.Sprintf("default = %q\n%s[log]\nflows = false\nformat = \"json\"\n", source(), listeners))
	out, err := os.CreateTemp(b.TempDir(), "log")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the program has its own
	cmd := exec.Command(nstest.Binary{}.Build(b), "serve", "-c", config)
	cmd.Stderr = out
	p := n.Start(b, cmd)
	waitFor(b, "srcproxy is ready", func() bool {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			b.Fatal(err)
		}
		select {
		case <-p.Done():
			b.Fatalf("srcproxy has ended: %s", text)
		default:
		}
		return bytes.Contains(text, []byte(`"ready"`))
	})
	return p
}

const danteConfig = `logoutput: stderr
errorlog: stderr
internal: %s port = %d
external: %s
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: root
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: udpassociate }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: udpreply }
`

// serveDante starts the SOCKS server of Debian's package dante-server.
func serveDante(b testing.TB, n *nstest.Namespace, at netip.AddrPort) *nstest.Process {
	b.Helper()
	config := writeConfig(b, "danted.conf", fmt.Sprintf(danteConfig, at.Addr(), at.Port(), source()))
	p := n.Start(b, command(b, "danted", "-f", config, "-p", config+".pid"))
	waitForTCP(b, n, at)
	return p
}

const nginxConfig = `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
pid %[1]s/nginx.pid;
error_log stderr error;
worker_processes auto;
events { worker_connections 8192; }
stream {
	server {
		listen %[2]v udp reuseport rcvbuf=4m sndbuf=4m;
		proxy_pass %[3]v;
		proxy_bind %[4]v;
		proxy_timeout 1h;
	}
}
`

// serveNginx starts a forward of Debian's packages nginx-light and libnginx-mod-stream.
func serveNginx(b testing.TB, n *nstest.Namespace, at, to netip.AddrPort) *nstest.Process {
	b.Helper()
	config := writeConfig(b, "nginx.conf", fmt.Sprintf(nginxConfig, b.TempDir(), at, to, source()))
	p := n.Start(b, command(b, "nginx", "-e", "stderr", "-c", config))
	waitFor(b, "nginx has started its workers", func() bool { return len(group(b, p.Pid())) > 1 })
	return p
}

// needNginx skips the benchmark where a package is missing.
func needNginx(b testing.TB) {
	b.Helper()
	nstest.Need(b, "nginx")
	if _, err := os.Stat("/usr/lib/nginx/modules/ngx_stream_module.so"); err != nil {
		nstest.Skip(b, "libnginx-mod-stream is not installed")
	}
}

// waitFor waits until ok is true.
func waitFor(b testing.TB, what string, ok func() bool) {
	b.Helper()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for deadline := time.Now().Add(startWithin); !ok(); <-t.C {
		if time.Now().After(deadline) {
			b.Fatalf("not in %v: %s", startWithin, what)
		}
	}
}

func waitForTCP(b testing.TB, n *nstest.Namespace, at netip.AddrPort) {
	b.Helper()
	waitFor(b, at.String()+" accepts", func() bool {
		c, err := n.Dial(net.Dialer{}, "tcp", at.String())
		if err != nil {
			return false
		}
		_ = c.Close() // only to see that somebody accepts
		return true
	})
}

// associate asks for a UDP association for local and port, which lives as long as the
// benchmark, and returns where its datagrams go.
func associate(b testing.TB, n *nstest.Namespace, proxy, local netip.AddrPort) netip.AddrPort {
	b.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)), Timeout: startWithin}
	c, err := n.Dial(d, "tcp", proxy.String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() }) // ends the association
	if err := c.SetDeadline(time.Now().Add(startWithin)); err != nil {
		b.Fatal(err)
	}
	var reply [10]byte
	if _, err = c.Write([]byte{5, 1, 0}); err == nil {
		_, err = io.ReadFull(c, reply[:2])
	}
	if err == nil {
		_, err = c.Write(append([]byte{5, 3, 0}, socksAddress(local)...))
	}
	if err == nil {
		_, err = io.ReadFull(c, reply[:])
	}
	if err != nil || reply[1] != 0 || reply[3] != 1 {
		b.Fatalf("associate %v: %v, reply %v", local, err, reply)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[4:8])), uint16(reply[8])<<8|uint16(reply[9]))
}

// socksAddress is ATYP, address and port of RFC 1928 section 5.
func socksAddress(a netip.AddrPort) []byte {
	ip := a.Addr().As4()
	return append(append([]byte{1}, ip[:]...), byte(a.Port()>>8), byte(a.Port()))
}

// group returns the processes of the process group that pid leads, by what stands
// behind their names in /proc/PID/stat (proc(5)): state first.
func group(b testing.TB, pid int) (stats [][]string) {
	b.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if fields[2] == strconv.Itoa(pid) {
			stats = append(stats, fields)
		}
	}
	return stats
}

// groupTime is what all of the group that pid leads, ended children included, have used.
func groupTime(b testing.TB, pid int) time.Duration {
	b.Helper()
	var ticks int
	for _, fields := range group(b, pid) {
		for _, f := range fields[11:15] { // utime, stime, cutime and cstime
			n, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * tick
}
