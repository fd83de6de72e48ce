package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/config"
)

func TestRun(t *testing.T) {
	target := echoServer(t)
	p := run(t, mixed("127.0.0.1:0")+"[[listen]]\nudp = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n")
	if len(p.addrs) != 2 {
		t.Fatalf("got %v, want two addresses", p.addrs)
	}
	p.log.wait(t, "ready", 1)
	for _, a := range p.addrs {
		if a.Network() == "tcp" {
			c := mustThrough(t, a.String(), target)
			mustEcho(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if l := p.log.wait(t, "flow", 1)[0]; l.text("listener") != "office" || !strings.HasPrefix(l.text("src"), "127.0.0.2:") {
		t.Errorf("got %v", l)
	}
	p.end()
	p.log.wait(t, "stopped", 1)
	for _, a := range p.addrs {
		if a.Network() == "tcp" {
			if c, err := net.Dial("tcp", a.String()); err == nil {
				_ = c.Close() // the failure is that it is there
				t.Errorf("%v is still served", a)
			}
		}
	}
}

// TestRunFails leaves nothing behind of a program that cannot start.
func TestRunFails(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }() // the end of the test
	other := freeAddr(t)
	text := mixed(other) + "[[listen]]\nmixed = \"" + busy.Addr().String() + "\"\n"
	for name, tt := range map[string]struct {
		load func() (*config.Config, error)
		want error
	}{
		"load": {func() (*config.Config, error) { return nil, fs.ErrNotExist }, fs.ErrNotExist},
		"busy": {func() (*config.Config, error) { return config.Parse("a.toml", []byte(text)) }, syscall.EADDRINUSE},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := Run(ctx, Options{Load: tt.load}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			ln, err := net.Listen("tcp", other)
			if err != nil {
				t.Fatal(err)
			}
			_ = ln.Close() // it was there
		})
	}
}

// TestBadReload changes nothing, counts, and says why.
func TestBadReload(t *testing.T) {
	target := echoServer(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }() // the end of the test
	busyUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busyUDP.Close() }() // the end of the test
	udp := busyUDP.LocalAddr().String()
	addr, unopened := freeAddr(t), freeAddr(t)
	p := run(t, mixed(addr))
	flow := mustThrough(t, addr, target)
	for i, tt := range []struct{ name, text, want string }{
		{"syntax", "default = ", "srcproxy.toml:1"},
		{"unknown key", mixed(addr) + "colour = 1\n", "colour"},
		{"missing file", mixed(addr) + "users = \"nowhere\"\n", "nowhere"},
		{"busy", mixed(unopened) + "[[listen]]\nmixed = \"" + busy.Addr().String() + "\"\n", busy.Addr().String()},
		{"busy UDP", mixed(unopened) + "[[listen]]\nudp = \"" + udp + "\"\nto = \"127.0.0.1:9\"\n", udp},
		{"twice", mixed(addr) + "[[listen]]\nmixed = \"" + addr + "\"\n", addr},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := p.change(tt.text, "reload failed")
			if l.text("level") != "ERROR" || l["reloads"] != float64(i+1) || !strings.Contains(l.text("err"), tt.want) {
				t.Errorf("got %v, want reload %d and %q", l, i+1, tt.want)
			}
			mustEcho(t, flow)
			mustEcho(t, mustThrough(t, addr, target))
			if c, err := net.Dial("tcp", unopened); err == nil {
				_ = c.Close() // the failure is that it is there
				t.Errorf("%v is open", unopened)
			}
		})
	}
	if l := p.change(mixed(addr), "reloaded"); l["reloads"] != float64(7) {
		t.Errorf("got %v, want reload 7", l)
	}
}

// TestReload takes new rules for new flows, closes what is gone and opens what is new.
func TestReload(t *testing.T) {
	target := echoServer(t)
	kept, gone, added := freeAddr(t), freeAddr(t), freeAddr(t)
	p := run(t, mixed(kept)+"[[listen]]\nname = \"gone\"\nmixed = \""+gone+"\"\n")
	old, dying := mustThrough(t, kept, target), mustThrough(t, gone, target)
	text := strings.Replace(mixed(kept), "127.0.0.2", "127.0.0.3", 1) + "[[listen]]\nmixed = \"" + added + "\"\n"
	if l := p.change(text, "reloaded"); l["reloads"] != float64(1) {
		t.Errorf("got %v, want reload 1", l)
	}
	if c, err := net.Dial("tcp", gone); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a removed listener: got %v, %v, want it refused", c, err)
	}
	mustEcho(t, old)
	mustEcho(t, dying)
	for _, addr := range []string{kept, added} {
		mustEcho(t, mustThrough(t, addr, target))
	}
	if err := dying.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, dying); err != nil {
		t.Error(err)
	}
	l := p.log.wait(t, "flow", 1)[0]
	if l.text("listener") != "gone" || !strings.HasPrefix(l.text("src"), "127.0.0.2:") {
		t.Errorf("got %v, want the old flow from the old source", l)
	}
	p.change("default = \"deny\"\n[[listen]]\nmixed = \""+kept+"\"\n", "reloaded")
	if c, err := through(kept, target); err == nil {
		_ = c.Close() // the failure is that it is there
		t.Error("a denied flow was let through")
	}
}

// TestReloadToWildcard widens a listener and narrows it again, without a connect that
// is refused.
func TestReloadToWildcard(t *testing.T) {
	addr := freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, mixed(addr))
	var stop atomic.Bool
	failed := make(chan error, 1)
	go func() {
		for !stop.Load() {
			c, err := net.Dial("tcp", addr)
			switch {
			case err == nil:
				_ = c.Close() // it was there
			case !errors.Is(err, syscall.ECONNRESET): // the old listener ends those who wait in it
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	wide := mixed("[::]:"+port) + "open = true\n"
	for range 5 {
		p.change(wide, "reloaded")
		p.change(mixed(addr), "reloaded")
	}
	p.change(wide, "reloaded")
	stop.Store(true)
	if err := within(t, failed, limit); err != nil {
		t.Errorf("a connect failed: %v", err)
	}
	if n := len(p.log.all("reload failed")); n != 0 {
		t.Errorf("%d reloads failed", n)
	}
	mustEcho(t, mustThrough(t, net.JoinHostPort("::1", port), echoServer(t)))
}

// TestDrain waits for a flow, and lets nobody in meanwhile.
func TestDrain(t *testing.T) {
	target := echoServer(t)
	addr := freeAddr(t)
	p := run(t, mixed(addr))
	flow := mustThrough(t, addr, target)
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }() // read to its end
	p.stop()
	if l := p.log.wait(t, "draining", 1)[0]; l["flows"] != float64(1) {
		t.Errorf("got %v, want one flow", l)
	}
	_ = silent.SetReadDeadline(time.Now().Add(limit)) // it is open
	if _, err := silent.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent client was not closed")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close() // the failure is that it is there
		t.Error("a draining program takes connections")
	}
	mustEcho(t, flow)
	if n := len(p.log.all("stopped")); n != 0 {
		t.Error("the program stopped before its flow")
	}
	if err := flow.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.log.wait(t, "stopped", 1)
}

// TestStopLeavesProbes ends with a source that its probe found down, and does not say
// that it came up. No packet with a source of 127.0.0.0/8 leaves a host.
func TestStopLeavesProbes(t *testing.T) {
	p := run(t, fmt.Sprintf("default = \"lte\"\n[sources]\n"+
		"lte = { ip = \"127.0.0.2\", probe = { tcp = \"203.0.113.1:443\", every = \"1s\", timeout = \"1s\", fall = 1 } }\n"+
		"[[listen]]\nmixed = %q\n", freeAddr(t)))
	if l := p.log.wait(t, "source changed", 1)[0]; l["state"] != "down" {
		t.Fatalf("got %v, want the source down", l)
	}
	p.end()
	p.log.wait(t, "stopped", 1)
	if changes := p.log.all("source changed"); len(changes) != 1 {
		t.Errorf("at the stop: %v, want no change", changes[1:])
	}
}

// TestDrainEnds resets what is left at the limit.
func TestDrainEnds(t *testing.T) {
	target := echoServer(t)
	addr := freeAddr(t)
	p := run(t, strings.Replace(mixed(addr), "20s", "300ms", 1))
	flow := mustThrough(t, addr, target)
	began := time.Now()
	p.end()
	if took := time.Since(began); took < 250*time.Millisecond || took > 5*time.Second {
		t.Errorf("the drain took %v, want 300 ms", took)
	}
	if _, err := flow.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	if l := p.log.wait(t, "flow", 1)[0]; l.text("err") != "ended by the drain limit" {
		t.Errorf("got %v", l)
	}
}

// TestReloadsLeaveNothing reloads a hundred times, every other time with a listener
// more, and wants goroutines and descriptors back.
func TestReloadsLeaveNothing(t *testing.T) {
	target := echoServer(t)
	addr, other := freeAddr(t), freeAddr(t)
	p := run(t, mixed(addr))
	mustEcho(t, mustThrough(t, addr, target))
	more := mixed(addr) + "[[listen]]\nmixed = \"" + other + "\"\n[[listen]]\nudp = \"" + other + "\"\nto = \"127.0.0.1:9\"\n"
	p.change(more, "reloaded") // the first UDP listener starts what all of them share
	p.change(mixed(addr), "reloaded")
	files, routines := openFiles(t), runtime.NumGoroutine()
	for i := range 100 {
		switch i % 3 {
		case 0:
			p.change(more, "reloaded")
		case 1:
			p.change(mixed(addr)+"[[listen]]\nmixed = \""+other+"\"\nlimit = -1\n", "reload failed")
		default:
			p.change(mixed(addr), "reloaded")
		}
	}
	p.change(mixed(addr), "reloaded")
	deadline := time.Now().Add(limit)
	for {
		f, r := openFiles(t), runtime.NumGoroutine()
		if f <= files && r <= routines {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d descriptors and %d goroutines, want %d and %d", f, r, files, routines)
		}
		<-time.After(time.Millisecond)
	}
	const want = 1 + 2 + 2*34
	if n := len(p.log.all("listening")); n != want {
		t.Errorf("got %d lines about listeners, want %d", n, want)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
