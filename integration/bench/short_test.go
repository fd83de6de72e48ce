//go:build linux

// Package bench measures the built program beside its peers, in one interleaved run on
// loopback: only the ratio of two figures of one run means something.
package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	batch       = 500 // connections of one proxy before it is the other one's turn
	clients     = 8   // at a time
	tick        = 10 * time.Millisecond
	startWithin = 30 * time.Second
)

// proxy is a SOCKS5 server under measurement.
type proxy struct {
	name string
	addr string
	pid  int
	cpu  time.Duration // used for the connections so far
}

// BenchmarkShortConnection reports the CPU time that each proxy spends on a connection
// that carries 64 bytes each way through SOCKS5.
func BenchmarkShortConnection(b *testing.B) {
	target := echo(b)
	proxies := []*proxy{startSrcproxy(b), startMicrosocks(b)}
	for _, p := range proxies {
		p.run(b, target) // warm up
		p.cpu = 0
	}
	conns := 0
	for b.Loop() {
		for _, p := range proxies {
			p.run(b, target)
		}
		conns += batch
	}
	for _, p := range proxies {
		b.ReportMetric(float64(p.cpu.Microseconds())/float64(conns), p.name+"-cpu-µs/conn")
	}
	b.ReportMetric(float64(proxies[0].cpu)/float64(proxies[1].cpu), "ratio")
	b.ReportMetric(0, "ns/op") // the time is the load tool's as well, and says nothing
}

// run makes one batch of connections and adds what the proxy spent on them.
func (p *proxy) run(b *testing.B, target net.Addr) {
	b.Helper()
	before := cpuTime(b, p.pid)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range batch / clients {
				if err := shortConnection(p.addr, target); err != nil {
					b.Error(p.name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	p.cpu += cpuTime(b, p.pid) - before
}

// shortConnection asks for target, sends 64 bytes, and reads them back.
func shortConnection(proxy string, target net.Addr) error {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // all that was asked has been answered
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var reply [10]byte
	if _, err := io.ReadFull(c, reply[:2]); err != nil {
		return err
	}
	t := target.(*net.TCPAddr)
	request := append([]byte{5, 1, 0, 1}, t.IP.To4()...)
	if _, err := c.Write(append(request, byte(t.Port>>8), byte(t.Port))); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return err
	}
	if reply[1] != 0 {
		return fmt.Errorf("reply %d", reply[1])
	}
	sent, got := bytes.Repeat([]byte("x"), 64), make([]byte, 64)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("sent %q, got %q", sent, got)
	}
	return nil
}

// cpuTime is what a process, its ended threads included, has used (proc(5), stat).
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, fields 14 and 15 of the whole line
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick
}

func startSrcproxy(b *testing.B) *proxy {
	b.Helper()
	dir := b.TempDir()
	binary, config := filepath.Join(dir, "srcproxy"), filepath.Join(dir, "config.toml")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/srcproxy")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	addr := freeAddr(b)
	text := fmt.Sprintf("default = \"127.0.0.2\"\n[[listen]]\nsocks = %q\n[log]\nflows = false\n", addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return start(b, "srcproxy", addr, binary, "serve", "-c", config)
}

func startMicrosocks(b *testing.B) *proxy {
	b.Helper()
	path, err := exec.LookPath("microsocks")
	if err != nil {
		b.Skip("microsocks is not installed: apt-get install microsocks")
	}
	addr := freeAddr(b)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		b.Fatal(err)
	}
	return start(b, "microsocks", addr, path, "-i", host, "-p", port, "-b", "127.0.0.2")
}

// start runs a proxy until the benchmark ends, and waits until it accepts.
func start(b *testing.B, name, addr, path string, args ...string) *proxy {
	b.Helper()
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended; Wait tells nothing new
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close() // only to see that somebody accepts
			return &proxy{name: name, addr: addr, pid: cmd.Process.Pid}
		}
	}
	b.Fatalf("%s does not accept on %s", name, addr)
	return nil
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }() // its address is all that was wanted
	return l.Addr().String()
}

// echo answers every connection with what it sends.
func echo(b *testing.B) net.Addr {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() }) // ends the loop below
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c) // the client sees what went wrong
			}()
		}
	}()
	return l.Addr()
}
