package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that should happen at once.
const patience = 10 * time.Second

// service is a srcproxy serve that runs inside the test.
type service struct {
	t     *testing.T
	lines chan string // what it prints
	code  chan int
}

// serve starts a srcproxy serve. The test has to end it by a signal.
func serve(t *testing.T, args ...string) *service {
	t.Helper()
	r, w := io.Pipe()
	s := &service{t: t, lines: make(chan string, 1000), code: make(chan int, 1)}
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			s.lines <- lines.Text()
		}
	}()
	go func() {
		e := env{strings.NewReader(""), w, w, func(string) string { return "" }}
		s.code <- run(t.Context(), e, append([]string{"serve"}, args...))
	}()
	return s
}

// until waits for a line with text in it, and returns it.
func (s *service) until(text string) string {
	s.t.Helper()
	var seen []string
	for deadline := time.After(patience); ; {
		select {
		case l := <-s.lines:
			if strings.Contains(l, text) {
				return l
			}
			seen = append(seen, l)
		case code := <-s.code:
			s.t.Fatalf("it ended with %d before it said %q:\n%s", code, text, strings.Join(seen, "\n"))
		case <-deadline:
			s.t.Fatalf("it did not say %q:\n%s", text, strings.Join(seen, "\n"))
		}
	}
}

func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the end, and compares the exit code.
func (s *service) ends(want int) {
	s.t.Helper()
	select {
	case got := <-s.code:
		if got != want {
			s.t.Errorf("exit code: got %d, want %d", got, want)
		}
	case <-time.After(patience):
		s.t.Fatal("it does not end")
	}
}

// freeAddr returns an address on which nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		// Below the ephemeral ports: one of those may be somebody's local port by the time it is used.
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// connect opens a flow through the proxy, and returns what ends it and the address from
// which the server was reached.
func connect(t *testing.T, proxy string) (end func(), from netip.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", l.Addr())
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, " 200 ") {
		t.Fatalf("the proxy answers %q, %v", line, err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	end = func() {
		c.Close()
		far.Close()
	}
	return end, netip.MustParseAddrPort(far.RemoteAddr().String()).Addr()
}

func TestServeOneLine(t *testing.T) {
	addr := freeAddr(t)
	s := serve(t, "--listen", addr, "--source", "127.0.0.2", "--source", "127.0.0.3")
	line := s.until("curl -x socks5h://" + addr)
	if !strings.HasSuffix(line, " https://example.com/") {
		t.Errorf("the banner says %q", line)
	}
	seen := make(map[netip.Addr]int)
	for range 4 {
		end, from := connect(t, addr)
		end()
		seen[from]++
	}
	if seen[netip.MustParseAddr("127.0.0.2")] != 2 || seen[netip.MustParseAddr("127.0.0.3")] != 2 {
		t.Errorf("the server saw %v, want two from each source", seen)
	}
	s.signal(syscall.SIGTERM)
	s.ends(exitFine)
}

func TestServeJSON(t *testing.T) {
	addr := freeAddr(t)
	s := serve(t, "--listen", addr, "--json")
	s.until(`"try": "curl -x socks5h://` + addr)
	s.signal(syscall.SIGINT)
	s.ends(exitFine)
}

// TestSecondSignal: a flow that does not end keeps the drain going, and a second
// signal does not wait for it.
func TestSecondSignal(t *testing.T) {
	addr := freeAddr(t)
	s := serve(t, "--listen", addr)
	s.until("curl ")
	connect(t, addr)
	s.signal(syscall.SIGTERM)
	s.until("draining")
	select {
	case code := <-s.code:
		t.Fatalf("it ended with %d while a flow lived", code)
	default:
	}
	s.signal(syscall.SIGTERM)
	s.ends(exitFound)
}

func TestReload(t *testing.T) {
	addr := freeAddr(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n[[listen]]\nmixed = \""+addr+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := func() netip.Addr {
		end, from := connect(t, addr)
		end()
		return from
	}
	write(`default = "127.0.0.2"`)
	s := serve(t, "-c", file)
	s.until("curl ")
	for _, step := range []struct{ text, log, from string }{
		{`default = "127.0.0.3"`, "reloaded", "127.0.0.3"},
		{`default = "127.0.0.`, "reload failed", "127.0.0.3"},
		{`default = "127.0.0.2"`, "reloaded", "127.0.0.2"},
	} {
		write(step.text)
		s.signal(syscall.SIGHUP)
		s.until(step.log)
		if got := from(); got != netip.MustParseAddr(step.from) {
			t.Errorf("after %s: flows leave from %v, want %s", step.text, got, step.from)
		}
	}
	s.signal(syscall.SIGTERM)
	s.ends(exitFine)
}

func TestNotBound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct{ kind, addr, want string }{
		{"mixed", l.Addr().String(), fmt.Sprintf("pid %d (", os.Getpid())},
		{"udp", c.LocalAddr().String(), fmt.Sprintf("pid %d (", os.Getpid())},
	} {
		text := fmt.Sprintf("default = \"kernel\"\n[[listen]]\n%s = %q\nallow = \"127.0.0.0/8\"\n", tt.kind, tt.addr)
		if tt.kind == "udp" {
			text += "to = \"127.0.0.1:9\"\n"
		}
		file := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := output(t, "", "serve", "-c", file)
		if code != exitFound || stdout != "" || !strings.Contains(stderr, tt.addr) || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s %s: got %d, %q, %q, want %q", tt.kind, tt.addr, code, stdout, stderr, tt.want)
		}
	}
}
