package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/inbound"
)

var update = flag.Bool("update", false, "write the expected outputs of the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"srcproxy": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":  await,
			"exits":  exits,
			"verify": verify,
		},
	})
}

// exits runs a program and compares its exit code: exits 2 srcproxy srve.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENTS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code: got %s, want %s", got, args[0])
	}
}

// await waits until somebody accepts on a unix socket: await admin.sock.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await SOCKET")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		c, err := net.Dial("unix", ts.MkAbs(args[0]))
		if err == nil {
			ts.Check(c.Close())
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("nobody accepts: %v", err)
		}
	}
}

// verify checks a login against a users file: verify FILE NAME PASSWORD.
func verify(ts *testscript.TestScript, neg bool, args []string) {
	users, err := inbound.ParseUsers([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	_, _, err = users.Verify(context.Background(), netip.IPv6Loopback(), args[1], args[2])
	if neg != (err != nil) {
		ts.Fatalf("the login of %s: %v", args[1], err)
	}
}

// output runs a command line and returns its exit code and what it printed.
func output(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := env{strings.NewReader(stdin), &out, &errs, func(string) string { return "" }}
	return run(t.Context(), e, args), out.String(), errs.String()
}

func TestPasswords(t *testing.T) {
	for _, tt := range []struct {
		name, password, err string
	}{
		{"72 bytes with blanks around them", " " + strings.Repeat("x", 70) + " ", ""},
		{"73 bytes", strings.Repeat("x", 73), "the password has 73 bytes, and bcrypt looks at 72"},
		{"not ASCII", strings.Repeat("ü", 37), "the password has 74 bytes, and bcrypt looks at 72"},
		{"NUL", "a\x00b", "the password has a NUL, and bcrypt stops there"},
		{"empty", "", "the password is empty"},
		{"two lines", "a\nb", "the password is one line; the standard input has more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := output(t, tt.password+"\n", "passwd", "alice")
			if tt.err != "" {
				if code != exitFound || stdout != "" || stderr != "srcproxy: "+tt.err+"\n" {
					t.Fatalf("got %d, %q, %q, want the error %q", code, stdout, stderr, tt.err)
				}
				return
			}
			users, err := inbound.ParseUsers([]byte(stdout))
			if err != nil {
				t.Fatalf("%q: %v", stdout, err)
			}
			if _, _, err := users.Verify(t.Context(), netip.IPv6Loopback(), "alice", tt.password); err != nil {
				t.Errorf("the login with it: %v", err)
			}
		})
	}
}

func TestUserNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"alice": true, "crawler-1": true, "älice": true, "a b": true, strings.Repeat("x", 255): true,
		"": false, "a:b": false, "#a": false, " a": false, "a\n": false, "a\x00": false, strings.Repeat("x", 256): false,
	} {
		if err := checkUser(name); (err == nil) != ok {
			t.Errorf("%.20q: got %v", name, err)
		}
	}
}

func TestDestination(t *testing.T) {
	for _, tt := range []struct {
		in, name, dst string
	}{
		{"example.com:443", "example.com", "invalid AddrPort"},
		{"example.com", "example.com", ""},
		{"192.0.2.1:25", "", "192.0.2.1:25"},
		{"192.0.2.1", "", "192.0.2.1:0"},
		{"2001:db8::1", "", "[2001:db8::1]:0"},
		{"[2001:db8::1]", "", "[2001:db8::1]:0"},
		{"[2001:db8::1]:25", "", "[2001:db8::1]:25"},
		{"[::ffff:192.0.2.1]:25", "", "[::ffff:192.0.2.1]:25"},
	} {
		name, dst, err := destination(tt.in)
		if err != nil || name != tt.name || tt.name == "" && dst.String() != tt.dst {
			t.Errorf("%s: got %q, %v, %v", tt.in, name, dst, err)
		}
	}
	for _, in := range []string{"", ":443", "example.com:0", "example.com:65536", "example.com:x", "http://example.com", "https://example.com:443", "a b:1", "user@example.com:22", "[::1", "a:b:c"} {
		if name, dst, err := destination(in); err == nil {
			t.Errorf("%q: got %q, %v, want an error", in, name, dst)
		}
	}
}

func TestOneLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    oneLine
		want string // of the default
	}{
		{"nothing", oneLine{}, "kernel"},
		{"one source", oneLine{sources: []string{"127.0.0.2"}}, "source"},
		{"one of each family", oneLine{sources: []string{"127.0.0.2", "::1"}}, "source"},
		{"two of one family", oneLine{sources: []string{"127.0.0.2", "127.0.0.3"}}, "sources"},
		{"three", oneLine{sources: []string{"127.0.0.2", "127.0.0.3", "::1"}}, "sources"},
		{"a prefix", oneLine{sources: []string{"2001:db8::/64"}}, "source"},
		{"a range", oneLine{sources: []string{"127.0.0.2-127.0.0.9"}}, "source"},
		{"a prefix and an address", oneLine{sources: []string{"2001:db8::/64", "127.0.0.2"}}, "sources"},
		{"everywhere, open", oneLine{listen: []string{":1080"}, open: true}, "kernel"},
		{"everywhere, some", oneLine{listen: []string{"[::]:1080"}, allow: []string{"10.0.0.0/8", "2001:db8::/32"}}, "kernel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.o.check(); err != nil {
				t.Fatal(err)
			}
			cfg, err := tt.o.load()
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Default.String(); got != tt.want {
				t.Errorf("default: got %s, want %s", got, tt.want)
			}
			if len(cfg.Listen) != 1 || cfg.Listen[0].Kind != config.Mixed {
				t.Errorf("got listeners %+v", cfg.Listen)
			}
		})
	}
}

func TestQuoteIsTOML(t *testing.T) {
	text := "default = \"kernel\"\n[[rules]]\nname = " + quote("a \"b\" \\c\\ \t\x01 ü €") + "\nuse = \"deny\"\n"
	cfg, err := config.Parse("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.Rules[0].Name, "a \"b\" \\c\\ \t\x01 ü €"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCurl(t *testing.T) {
	for _, tt := range []struct {
		l    config.Listener
		addr string
		want string
	}{
		{config.Listener{Kind: config.Mixed}, "127.0.0.1:1080", "curl -x socks5h://127.0.0.1:1080 https://example.com/"},
		{config.Listener{Kind: config.SOCKS}, "[::]:1080", "curl -x socks5h://127.0.0.1:1080 https://example.com/"},
		{config.Listener{Kind: config.HTTP}, "[::1]:3128", "curl -p -x http://[::1]:3128 https://example.com/"},
		{config.Listener{Kind: config.Mixed, UsersFile: "users"}, "198.51.100.1:1080", "curl -U USER -x socks5h://198.51.100.1:1080 https://example.com/"},
		{config.Listener{Kind: config.TCP}, "127.0.0.1:25", ""},
	} {
		if got := curl(&tt.l, netip.MustParseAddrPort(tt.addr)); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
