//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// mainConfig has a default of both families, a rule for the mail server, and
// a rule whose source has no IPv6 address for a destination that has nothing
// else.
const mainConfig = `
default = "wan"

[sources]
wan  = ["198.51.100.10", "2001:db8:1::10"]
mail = "198.51.100.25"

[[rules]]
name = "mail keeps its address"
to   = ["*.mail.example", "203.0.113.25"]
use  = "mail"

[[rules]]
name = "four only"
to   = "2001:db8:2::25"
use  = "mail"

[[rules]]
name = "forbidden city"
to   = "203.0.113.66"
use  = "deny"

[[listen]]
mixed = "127.0.0.1:1080"
`

var (
	wan4  = netip.MustParseAddr("198.51.100.10")
	wan6  = netip.MustParseAddr("2001:db8:1::10")
	mail4 = netip.MustParseAddr("198.51.100.25")
)

// TestCurl is the main job: each way that curl knows, to three destinations.
func TestCurl(t *testing.T) {
	nstest.Need(t, "curl")
	r := newRig(t)
	s4 := r.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	s6 := r.Server.ServeHTTP(t, "[::]:80", nil)
	r.serve(mainConfig)
	for _, way := range []struct {
		name     string
		args     []string
		literal6 bool // the protocol can carry an IPv6 address
	}{
		{"socks5-hostname", []string{"--socks5-hostname", "127.0.0.1:1080"}, true},
		{"socks5", []string{"--socks5", "127.0.0.1:1080"}, true},
		{"socks4a", []string{"--socks4a", "127.0.0.1:1080"}, false},
		{"socks4", []string{"-4", "--socks4", "127.0.0.1:1080"}, false},
		{"proxytunnel", []string{"--proxytunnel", "-x", "http://127.0.0.1:1080"}, true},
	} {
		for _, to := range []struct {
			url    string
			server *nstest.Server
			want   netip.Addr
		}{
			{"http://server.example/", s4, wan4},
			{"http://203.0.113.77/", s4, wan4},
			{"http://smtp.mail.example/", s4, mail4},
			{"http://203.0.113.25/", s4, mail4},
			{"http://[2001:db8:2::9]/", s6, wan6},
		} {
			if strings.Contains(to.url, "[") && !way.literal6 {
				continue
			}
			t.Run(way.name+" "+to.url, func(t *testing.T) {
				to.server.Forget()
				got := r.run("curl", append(way.args, "-sS", "--max-time", "20", to.url)...)
				if got.Err != nil || got.Stdout != to.want.String() {
					t.Errorf("got %v\nwant %v", got, to.want)
				}
				wantSources(t, to.server, to.want, 1)
			})
		}
	}
}

// TestCurlNames asks for names whose addresses the proxy resolves: where both
// families exist, one of them answers, from its own source.
func TestCurlNames(t *testing.T) {
	nstest.Need(t, "curl")
	r := newRig(t)
	r.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	r.Server.ServeHTTP(t, "[::]:80", nil)
	r.serve(mainConfig)
	for name, want := range map[string][]netip.Addr{
		"six.example":    {wan6},
		"both.example":   {wan6, wan4},
		"SERVER.example": {wan4},
	} {
		got := r.run("curl", "-sS", "--max-time", "20", "--socks5-hostname", "127.0.0.1:1080", "http://"+name+"/")
		if a, err := netip.ParseAddr(got.Stdout); err != nil || !slices.Contains(want, a) {
			t.Errorf("%s: got %v\nwant one of %v", name, got, want)
		}
	}
}

// TestRefusedIsExplained asks for an IPv6 destination whose rule names a source
// with IPv4 only, and for one that is denied: the reply, the log line and
// explain say so, and not a packet reaches the server.
func TestRefusedIsExplained(t *testing.T) {
	r := newRig(t)
	r.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	r.Server.ServeHTTP(t, "[::]:80", nil)
	leaks := r.Server.CountLeaks(t, "wan0")
	r.serve(mainConfig)
	for _, test := range []struct {
		name, dst, rule string
		reply           refused
		status          int
	}{
		{"no source of the family", "[2001:db8:2::25]:80", "four only", replyNetwork, 502},
		{"denied", "203.0.113.66:80", "forbidden city", replyRuleset, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			dst := netip.MustParseAddrPort(test.dst)
			before, _ := r.log.with("flow")
			if _, err := r.through("127.0.0.1:1080", dst); err != test.reply {
				t.Errorf("SOCKS5: %v, want %v", err, test.reply)
			}
			got := r.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_connect}", "-x", "http://127.0.0.1:1080", "--proxytunnel", "http://"+test.dst+"/")
			if want := fmt.Sprint(test.status); got.Stdout != want {
				t.Errorf("CONNECT: got %v\nwant %s", got, want)
			}
			for _, e := range r.log.wait(t, len(before)+2, "flow")[len(before):] {
				if e.text("rule") != test.rule || !strings.Contains(e.text("err"), test.rule) {
					t.Errorf("the log line %v does not name the rule %q in rule and err", e, test.rule)
				}
				if e.text("dst") != test.dst {
					t.Errorf("the log line has dst %q, want %q", e.text("dst"), test.dst)
				}
			}
			explained := r.program("explain", "-c", r.path("config.toml"), test.dst)
			if explained.Err == nil || !strings.Contains(explained.Stdout, test.rule) {
				t.Errorf("explain: got %v\nwant exit 1 and %q", explained, test.rule)
			}
		})
	}
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets for refused flows: %q", n, details)
	}
}

// TestFlowLine looks at every key of the one log line.
func TestFlowLine(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoTCP(t, "0.0.0.0:7")
	r.serve(mainConfig)
	c := r.dial("127.0.0.1:1080")
	bnd, err := handshake(c, connect5Name("smtp.mail.example", s.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if got := echoed(t, c, "twelve bytes"); got != "twelve bytes" {
		t.Errorf("echo is %q", got)
	}
	c.Close()
	e := r.log.wait(t, 1, "flow")[0]
	for key, want := range map[string]string{
		"client": c.LocalAddr().String(), "user": "", "listener": "mixed 127.0.0.1:1080",
		"dst": "203.0.113.25:7", "name": "smtp.mail.example", "rule": "mail keeps its address",
		"source": "mail", "src": s.Peers()[0].String(), "err": "",
	} {
		if got := e.text(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	for _, key := range []string{"in", "out"} {
		if got := e.number(key); got != 12 {
			t.Errorf("%s is %v, want 12", key, e[key])
		}
	}
	if e["duration"] == nil {
		t.Error("duration is missing")
	}
	if bnd != s.Peers()[0] {
		t.Errorf("BND is %v, the server saw %v", bnd, s.Peers()[0])
	}
}
