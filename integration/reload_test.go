//go:build linux

package integration

import (
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	reloads = 100
	// portion is sent each way with each reload: 1 GB in all.
	portion = 10 << 20
)

// TestReloads reloads 100 times, every other time with a broken file, during a
// transfer of 1 GB each way and 200 open flows: nothing is lost, nobody is
// closed, and each new flow follows the file that was good last.
func TestReloads(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	who := r.Server.GreetTCP(t, "0.0.0.0:4000")
	r.serve(reloadConfig(0))
	open := make([]*net.TCPConn, 200)
	for i := range open {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1+i%20), s.Addr.Port()))
		if err != nil {
			t.Fatal(err)
		}
		open[i] = c
		echoed(t, c, "x")
	}
	bulk := startTransfer(t, r)
	want := reloadSource(0)
	for i := 1; i <= reloads; i++ {
		bulk.portion(t)
		if i%2 == 0 {
			wantBroken(t, r, brokenFiles[i/2%len(brokenFiles)], i)
		} else {
			e := r.reload(reloadConfig(i))
			if e.text("msg") != "reloaded" || e.number("reloads") != i {
				t.Fatalf("reload %d is answered by %v, want reloaded, %d", i, e, i)
			}
			want = reloadSource(i)
		}
		wantNewSource(t, r, at(nstest.ServerV4(1), who.Addr.Port()), want)
		for _, c := range open[i%10*20 : i%10*20+20] {
			if got, err := tryEcho(c, "still here"); got != "still here" {
				t.Fatalf("an open flow after reload %d: %q, %v", i, got, err)
			}
		}
	}
	bulk.finish(t)
	for i, c := range open {
		if got, err := tryEcho(c, "still here"); got != "still here" {
			t.Errorf("open flow %d at the end: %q, %v", i, got, err)
		}
	}
}

// reloadSource is where the flows of reloadConfig leave from.
func reloadSource(i int) netip.Addr { return nstest.ProxyV4(nstest.FirstSource + i%10) }

func reloadConfig(i int) string {
	return fmt.Sprintf(`
default = "wan"
[sources]
wan = %q
[[rules]]
name = "reload %d"
to   = "203.0.113.0/24"
use  = "wan"
[[listen]]
mixed = "127.0.0.1:1080"
`, reloadSource(i), i)
}

// brokenFiles are files that no reload accepts, and what its error must say.
// BUSY is held by somebody else.
var brokenFiles = []struct{ text, err string }{
	{"default = \n", `config\.toml:1:\d+`},
	{"default = \"wan\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", `config\.toml:1:11`},
	{"default = \"deny\"\nlog_level = 3\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", `config\.toml:2:1.*log_level`},
	{"default = \"deny\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\nusers = \"missing\"\n", `missing`},
	{"default = \"deny\"\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[[listen]]\nmixed = \"127.0.0.1:1999\"\n", `127\.0\.0\.1:1999`},
}

func wantBroken(t *testing.T, r *rig, broken struct{ text, err string }, i int) {
	t.Helper()
	if strings.Contains(broken.text, "1999") {
		l, err := r.Proxy.Listen("tcp4", "127.0.0.1:1999")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	e := r.reload(broken.text)
	if e.text("msg") != "reload failed" || !regexp.MustCompile(`(?s)`+broken.err).MatchString(e.text("err")) {
		t.Fatalf("reload %d is answered by %v, want reload failed and %q", i, e, broken.err)
	}
}

// wantNewSource opens a flow to a server that greets with the source.
func wantNewSource(t *testing.T, r *rig, dst netip.AddrPort, want netip.Addr) {
	t.Helper()
	c, err := r.through("127.0.0.1:1080", dst)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := rest(t, c); got != want.String()+"\n" {
		t.Fatalf("a new flow left from %q, want %v", got, want)
	}
	c.Close()
}

// transfer is one flow that carries bulk data both ways at once.
type transfer struct {
	up, down chan struct{}  // a portion to send for each
	sums     chan [2]uint64 // of what was sent and received, by each end
	failed   chan error
	seed     maphash.Seed
	over     sync.Once
}

func startTransfer(t *testing.T, r *rig) *transfer {
	t.Helper()
	b := &transfer{
		up: make(chan struct{}, 1), down: make(chan struct{}, 1),
		sums: make(chan [2]uint64, 2), failed: make(chan error, 4), seed: maphash.MakeSeed(),
	}
	s := r.Server.ServeTCP(t, "0.0.0.0:5001", func(c *net.TCPConn) { b.run(c, b.down) })
	c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), s.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	go b.run(c, b.up)
	t.Cleanup(b.stop)
	return b
}

// stop lets both ends send no more.
func (b *transfer) stop() {
	b.over.Do(func() {
		close(b.up)
		close(b.down)
	})
}

// run sends a portion for each token, and receives to the end.
func (b *transfer) run(c *net.TCPConn, tokens <-chan struct{}) {
	sent := make(chan uint64, 1)
	go func() { sent <- b.send(c, tokens) }()
	received := maphash.Hash{}
	received.SetSeed(b.seed)
	if _, err := io.CopyBuffer(&received, onlyReader{c}, make([]byte, 256<<10)); err != nil {
		b.failed <- fmt.Errorf("receive: %w", err)
	}
	b.sums <- [2]uint64{<-sent, received.Sum64()}
}

// onlyReader hides the ways around the buffer.
type onlyReader struct{ io.Reader }

func (b *transfer) send(c *net.TCPConn, tokens <-chan struct{}) uint64 {
	sum := maphash.Hash{}
	sum.SetSeed(b.seed)
	data := make([]byte, portion)
	state := uint64(c.LocalAddr().(*net.TCPAddr).Port)
	for range tokens {
		for i := range data {
			state = state*6364136223846793005 + 1442695040888963407
			data[i] = byte(state >> 56)
		}
		_, _ = sum.Write(data) // never fails
		if _, err := c.Write(data); err != nil {
			b.failed <- fmt.Errorf("send: %w", err)
			break
		}
	}
	if err := c.CloseWrite(); err != nil {
		b.failed <- fmt.Errorf("end of sending: %w", err)
	}
	return sum.Sum64()
}

// portion lets both ends send one more portion, once the one before the last
// is on its way.
func (b *transfer) portion(t *testing.T) {
	t.Helper()
	limit := time.After(2 * patience)
	for _, tokens := range []chan<- struct{}{b.up, b.down} {
		select {
		case tokens <- struct{}{}:
		case err := <-b.failed:
			t.Fatal(err)
		case <-limit:
			t.Fatal("the transfer is stuck")
		}
	}
}

// finish waits for the ends and compares what was sent with what was received.
func (b *transfer) finish(t *testing.T) {
	t.Helper()
	b.stop()
	one, other := within(t, b.sums), within(t, b.sums)
	select {
	case err := <-b.failed:
		t.Fatal(err)
	default:
	}
	if one[0] != other[1] || one[1] != other[0] {
		t.Errorf("hashes differ: sent %x, received %x; sent %x, received %x", one[0], other[1], other[0], one[1])
	}
}

// TestReloadStorm sends many signals while a file is read: they become one more reload,
// or a few, the last file is in force, and the program goes on.
func TestReloadStorm(t *testing.T) {
	const most = 5
	r := newRig(t)
	who := r.Server.GreetTCP(t, "0.0.0.0:4000")
	config := func(i int) string { return reloadConfig(i) + "[[rules]]\nto = \"file:list\"\nuse = \"deny\"\n" }
	r.write("list", "192.0.2.1\n")
	r.serve(config(0))

	if err := os.Remove(r.path("list")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(r.path("list"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	var held *os.File
	eventually(t, "the program reads the list", func() (ok bool) {
		var err error
		held, err = os.OpenFile(r.path("list"), os.O_WRONLY|unix.O_NONBLOCK, 0) // ENXIO: nobody reads
		return err == nil
	})
	r.write("config.toml", config(7))
	r.write("list", "192.0.2.1\n")
	for range 1000 {
		r.signal(syscall.SIGHUP)
		r.descriptors() // takes the time in which the signal arrives
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last file is in force", func() bool {
		c, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(1), who.Addr.Port()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return firstReply(c) == reloadSource(7).String()+"\n"
	})
	const asked = 10 // between which the program would take what waits
	for range asked {
		if got, code := r.admin("reload"); code != 0 {
			t.Fatal(got)
		}
	}
	all := r.log.wait(t, 1+asked, "reloaded", "reload failed")
	if n := all[len(all)-1].number("reloads"); n > most+asked {
		t.Errorf("1001 signals became %d reloads, want at most %d", n-asked, most)
	}
	if e := r.reload(config(8)); e.text("msg") != "reloaded" {
		t.Errorf("after the storm: %v", e)
	}
}

// TestReloadListeners adds and removes listeners: those that stay keep their
// socket, those that go refuse.
func TestReloadListeners(t *testing.T) {
	r := newRig(t)
	who := r.Server.GreetTCP(t, "0.0.0.0:4000")
	dst := at(nstest.ServerV4(1), who.Addr.Port())
	r.serve(reloadConfig(0))
	if e := r.reload(reloadConfig(1) + "[[listen]]\nsocks = \"127.0.0.1:1081\"\n"); e.text("msg") != "reloaded" {
		t.Fatalf("reload: %v", e)
	}
	old, err := r.through("127.0.0.1:1081", dst)
	if err != nil {
		t.Fatal(err)
	}
	if e := r.reload(reloadConfig(2)); e.text("msg") != "reloaded" {
		t.Fatalf("reload: %v", e)
	}
	if c, err := r.tryDial("127.0.0.1:1081"); err == nil {
		c.Close()
		t.Error("a listener that was removed still accepts")
	}
	if got := firstReply(old); got != reloadSource(1).String()+"\n" {
		t.Errorf("a flow of the removed listener got %q, want what its decision says, %v", got, reloadSource(1))
	}
	wantNewSource(t, r, dst, reloadSource(2))
}
