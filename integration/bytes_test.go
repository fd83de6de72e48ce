//go:build linux

package integration

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	// gap is the pause between two parts of what a client sends: pacing, so that
	// they come as two reads, and nothing waits for it.
	gap = 2 * time.Millisecond
	// atOnce bounds a close that is due at once; the handshake's deadline is twice
	// as long.
	atOnce = 5 * time.Second
	// clientsAtOnce bounds the connections of TestBytes.
	clientsAtOnce = 24
)

// TestBytes sends each case whole, cut at each byte, and one byte at a time.
// Nothing is left in the program afterwards.
func TestBytes(t *testing.T) {
	r := newRig(t)
	r.Server.ServeDNS(t, nil)
	echoServer := r.Proxy.EchoTCP(t, "127.0.0.1:7")
	r.Proxy.ServeTCP(t, "127.0.0.1:8", func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1)) // else the reset could come before the reply
		_ = c.SetLinger(0)
	})
	wild := r.Proxy.EchoTCP(t, "127.0.0.9:7")
	r.writeUsers(map[string]string{"ann": "secret"})
	r.serve(bytesConfig)
	if got, err := r.through(mixedAt, echoServer.Addr); err != nil { // warm up
		t.Fatal(err)
	} else {
		got.Close()
	}
	r.log.wait(t, 1, "flow")
	before := r.descriptors()

	for _, group := range []struct {
		name  string
		cases []byteCase
	}{
		{"greeting", greetingCases()}, {"login", loginCases()}, {"CONNECT", connectCases()}, {"SOCKS4", socks4Cases()}, {"HTTP", httpCases()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) { r.tryAllWays(t, c) })
			}
		})
	}
	eventually(t, fmt.Sprintf("%d descriptors, as before", before), func() bool { return r.descriptors() <= before })
	if peers := wild.Peers(); len(peers) != 0 {
		t.Errorf("the denied address was called by %v", peers)
	}
	for _, line := range r.log.notJSON() {
		t.Errorf("the log has a line that is not JSON: %q", line)
	}
	wantGoroutines(t, r)
}

// tryAllWays runs one case in each way to cut it, some at a time.
func (r *rig) tryAllWays(t *testing.T, c byteCase) {
	ways := [][]string{{c.send}, strings.Split(c.send, "")}
	// Split cuts at runes; bytes are meant.
	ways[1] = ways[1][:0]
	for i := range len(c.send) {
		ways[1] = append(ways[1], c.send[i:i+1])
		if i > 0 {
			ways = append(ways, []string{c.send[:i], c.send[i:]})
		}
	}
	free := make(chan struct{}, clientsAtOnce)
	var all sync.WaitGroup
	for _, parts := range ways {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			if err := r.try(c, parts); err != nil {
				t.Errorf("in %d parts, the first of %d bytes: %v", len(parts), len(parts[0]), err)
			}
		})
	}
	all.Wait()
}

func (r *rig) try(c byteCase, parts []string) error {
	at := c.at
	if at == "" {
		at = mixedAt
	}
	conn, err := r.Proxy.Dial(net.Dialer{Timeout: patience}, "tcp", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() { sent <- deliver(conn.(*net.TCPConn), parts, c.fin) }()
	closed, err := readAnswer(conn, c)
	// A proxy that has seen enough may close before all is sent.
	if e := <-sent; e != nil && err == nil && !closed && c.end == stays {
		err = e
	}
	return err
}

func deliver(c *net.TCPConn, parts []string, fin bool) error {
	for i, p := range parts {
		if i > 0 {
			time.Sleep(gap)
		}
		if _, err := io.WriteString(c, p); err != nil {
			return err
		}
	}
	if fin {
		return c.CloseWrite()
	}
	return nil
}

// readAnswer reads until the answer is what the case wants and, where it wants
// a close, to the end.
func readAnswer(conn net.Conn, c byteCase) (closed bool, err error) {
	slow := time.Duration(len(c.send)) * gap * 2
	if err := conn.SetReadDeadline(time.Now().Add(atOnce + slow)); err != nil {
		return false, err
	}
	var got []byte
	buf := make([]byte, 4096)
	for {
		if c.end != closes && c.matches(c.text(got)) {
			return false, nil
		}
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if err == nil {
			continue
		}
		switch answer := c.text(got); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, fmt.Errorf("answer %q and open, want %q", answer, c.want)
		case !c.matches(answer):
			return true, fmt.Errorf("answer %q, then %v, want %q", answer, err, c.want)
		case c.end == stays:
			return true, fmt.Errorf("closed after the answer: %w", err)
		}
		return true, nil
	}
}

// text is the answer in the form of want.
func (c byteCase) text(answer []byte) string {
	if strings.HasPrefix(c.want, "HTTP") || strings.HasPrefix(c.want, "(?:HTTP") {
		return string(answer)
	}
	return hex.EncodeToString(answer)
}

// wantGoroutines ends the program with SIGQUIT and wants as many goroutines as
// a second one has that served nobody, give or take five.
func wantGoroutines(t *testing.T, r *rig) {
	t.Helper()
	used := r.goroutines()
	r.serve(r.last)
	if fresh := r.goroutines(); used > fresh+5 {
		t.Errorf("%d goroutines, a fresh program has %d", used, fresh)
	}
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+`)

func (r *rig) goroutines() int {
	r.t.Helper()
	r.signal(syscall.SIGQUIT)
	<-r.proc.Done()
	return len(goroutine.FindAllString(r.log.String(), -1))
}

const loopbackConfig = `
default = "127.0.0.3"
[[listen]]
mixed = "127.0.0.1:1080"
`

// TestEarlyData sends 200,000 bytes before the reply (case 38), and wants all
// of them echoed.
func TestEarlyData(t *testing.T) {
	r := newRig(t)
	r.Proxy.EchoTCP(t, "127.0.0.1:7")
	r.serve(loopbackConfig)
	c := r.dial(mixedAt)
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(append([]byte(hi+to+echo), data...))
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got := rest(t, c)
	if err := within(t, sent); err != nil {
		t.Error(err)
	}
	const replies = 2 + 10
	if len(got) != replies+len(data) || got[replies:] != string(data) {
		t.Errorf("%d bytes came back, want the %d sent after a reply of %d", len(got), len(data), replies)
	}
}

// TestOversized sends requests without end (cases 59 and 67): closed in bounded
// time, and the memory does not grow with them.
func TestOversized(t *testing.T) {
	r := newRig(t)
	r.serve(loopbackConfig)
	line := strings.Repeat("a", 1<<20)
	for name, send := range map[string]string{
		"59 user id without end": "\x04\x01\x00\x07\x7f\x00\x00\x01" + line[:256<<10],
		"59 name without end":    "\x04\x01\x00\x07\x00\x00\x00\x01\x00" + line[:256<<10],
		"67 a long line":         "CONNECT " + line,
		"67 a long header":       "CONNECT 127.0.0.1:7 HTTP/1.1\r\nA: " + line,
		"67 many headers":        "CONNECT 127.0.0.1:7 HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 100_000),
		"67 header without end":  "CONNECT 127.0.0.1:7 HTTP/1.1\r\n" + line,
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial(mixedAt)
			go func() { _, _ = io.WriteString(c, send) }() // cut off by the proxy
			_ = c.SetReadDeadline(time.Now().Add(atOnce))  // of an open connection
			answer, err := io.ReadAll(c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("open after %v", atOnce)
			}
			if strings.HasPrefix(name, "67") && len(answer) > 0 && !regexp.MustCompile(`^HTTP/1\.1 4(31|00|14) `).Match(answer) {
				t.Errorf("answer is %q, want 431, 400 or nothing", answer)
			}
		})
	}
	if rss := r.rss(); rss > 64<<20 {
		t.Errorf("%d MiB are resident", rss>>20)
	}
}

// TestHandshakeDeadline is silent, or slow, or stops half way (case 10): closed
// at the deadline, which counts from the first moment and not from each byte.
func TestHandshakeDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.writeUsers(map[string]string{"ann": "secret"})
	r.serve(bytesConfig + "\n[timeouts]\nhandshake = \"2s\"\n")
	var all sync.WaitGroup
	for name, first := range map[string]string{
		"silent": "", "half a greeting": "\x05\x02\x00", "slow": "\x05\xff", "half a request": hi + to, "SOCKS4": "\x04\x01",
		"HTTP": "CONNECT ", "HTTP slow": "CONNECT 127.0.0.1:7 HTTP/1.1\r\nA: ",
	} {
		all.Go(func() {
			c, err := r.tryDial(mixedAt)
			if err != nil {
				t.Error(err)
				return
			}
			start := time.Now()
			_, _ = io.WriteString(c, first) // the read below tells
			if strings.HasSuffix(name, "slow") {
				go drip(c)
			}
			_ = c.SetReadDeadline(start.Add(patience)) // of an open connection
			_, err = io.ReadAll(c)
			if d := time.Since(start); errors.Is(err, os.ErrDeadlineExceeded) || d < 1500*time.Millisecond || d > 3500*time.Millisecond {
				t.Errorf("%s: ended after %v with %v, want 2s", name, d, err)
			}
		})
	}
	all.Wait()
}

// drip writes a byte every 300 ms until the connection ends.
func drip(c net.Conn) {
	for {
		if _, err := c.Write([]byte{'1'}); err != nil {
			return
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// TestUnansweredConnect dials where nothing answers (case 30): the reply comes
// at the dial's deadline.
func TestUnansweredConnect(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	r := newRig(t)
	drop := r.command("nft", "add table inet hole; add chain inet hole in { type filter hook prerouting priority 0; }; add rule inet hole in ip daddr 203.0.113.99 drop")
	if got := r.Server.Run(t, drop); got.Err != nil {
		t.Fatal(got)
	}
	r.serve(mainConfig + "\n[timeouts]\ndial = \"1s\"\n")
	start := time.Now()
	_, err := r.through("127.0.0.1:1080", at(nstest.ServerV4(99), 80))
	if d := time.Since(start); err != refused(replyTTL) || d < 900*time.Millisecond || d > 3*time.Second {
		t.Errorf("%v after %v, want %v after 1s", err, d, refused(replyTTL))
	}
	got := r.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_connect}", "-x", "http://127.0.0.1:1080", "--proxytunnel", "http://203.0.113.99/")
	if got.Stdout != "504" {
		t.Errorf("CONNECT: got %v\nwant 504", got)
	}
}
