package flows_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/srcproxy/srcproxy/internal/flows"
)

var full = flows.Info{
	Listener: "office", User: "crawler", Session: "a1", Client: netip.MustParseAddrPort("10.0.8.4:51000"),
	Network: "tcp", Dst: netip.MustParseAddrPort("203.0.113.25:25"), Name: "smtp.mail.example",
	Rule: "mail keeps its address", Source: "mail", Src: netip.MustParseAddrPort("198.51.100.25:41233"),
}

var handlers = map[string]func(io.Writer) slog.Handler{
	"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
	"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
}

// logging returns a registry that logs flows.
func logging(log *slog.Logger, destinations bool) *flows.Registry {
	r := &flows.Registry{Log: log}
	r.SetLogging(true, destinations)
	return r
}

func TestLine(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(full.Dst), Err: syscall.ECONNREFUSED}
	tests := []struct {
		name   string
		hide   bool // no destinations
		info   flows.Info
		err    error
		reason error
		want   string
	}{
		{"full", false, full, refused, nil, `level=INFO msg=flow client=10.0.8.4:51000 user=crawler-a1 listener=office ` +
			`dst=203.0.113.25:25 name=smtp.mail.example rule="mail keeps its address" source=mail src=198.51.100.25:41233 ` +
			`in=2000 out=10 duration=1.5s err="dial tcp 203.0.113.25:25: connection refused"`},
		{
			"clean end", false,
			flows.Info{Client: full.Client, Listener: "office"},
			nil, nil,
			`level=INFO msg=flow client=10.0.8.4:51000 listener=office in=2000 out=10 duration=1.5s`,
		},
		{
			"closed", false,
			flows.Info{},
			net.ErrClosed, flows.ErrDrained,
			`level=INFO msg=flow in=2000 out=10 duration=1.5s err="ended by the drain limit"`,
		},
		{
			"no port yet", false,
			flows.Info{Src: netip.MustParseAddrPort("192.0.2.1:0")},
			nil, nil,
			`level=INFO msg=flow src=192.0.2.1 in=2000 out=10 duration=1.5s`,
		},
		{
			"destinations hidden", true, full, fmt.Errorf("to %s: %w", full.Name, errors.Join(refused, io.EOF)), nil,
			`level=INFO msg=flow client=10.0.8.4:51000 user=crawler-a1 listener=office ` +
				`rule="mail keeps its address" source=mail src=198.51.100.25:41233 in=2000 out=10 duration=1.5s err="connection refused"`,
		},
		{
			"name hidden", true,
			flows.Info{Name: "a.example"},
			&net.DNSError{Err: "no such host", Name: "a.example"}, nil,
			`level=INFO msg=flow in=2000 out=10 duration=1.5s err="no such host"`,
		},
		{
			"cause struck out", true, full, errors.New("smtp.mail.example at 203.0.113.25 is odd"), nil,
			`level=INFO msg=flow client=10.0.8.4:51000 user=crawler-a1 listener=office ` +
				`rule="mail keeps its address" source=mail src=198.51.100.25:41233 in=2000 out=10 duration=1.5s err="- at - is odd"`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				r := logging(slog.New(handlers["text"](&out)), !tt.hide)
				f := r.Open(tt.info, nil)
				f.Up.Add(10)
				f.Down.Add(2000)
				<-time.After(1500 * time.Millisecond)
				if tt.reason != nil {
					f.Close(tt.reason)
				}
				f.Done(tt.err)
				f.Done(tt.err)
				_, got, _ := strings.Cut(out.String(), " ") // without the time
				if got != tt.want+"\n" {
					t.Errorf("got  %swant %s", got, tt.want)
				}
			})
		})
	}
}

func TestNoLine(t *testing.T) {
	var out bytes.Buffer
	quiet := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	for name, r := range map[string]*flows.Registry{
		"zero value": {},
		"no log":     logging(nil, true),
		"off":        {Log: slog.New(handlers["text"](&out))},
		"level":      logging(quiet, true),
	} {
		r.Open(full, nil).Done(nil)
		r.Refuse(full, time.Now(), io.EOF)
		if out.Len() != 0 {
			t.Errorf("%s: got %q", name, &out)
		}
	}
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := logging(slog.New(handlers["json"](&out)), true)
		start := time.Now()
		<-time.After(time.Second)
		r.Refuse(flows.Info{Rule: "rule 3", Name: "a.example"}, start, errors.New("denied"))
		_, got, _ := strings.Cut(out.String(), ",")
		want := `"level":"INFO","msg":"flow","name":"a.example","rule":"rule 3","in":0,"out":0,"duration":1000000000,"err":"denied"}` + "\n"
		if got != want || r.Len() != 0 {
			t.Errorf("got  %swant %s", got, want)
		}
	})
}

// TestRefusalsAreBounded: of a flood of refusals few get a line, others do meanwhile, and
// none is uncounted.
func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := logging(slog.New(handlers["text"](&out)), true)
		refuse := func(client string, n int) (lines int) {
			out.Reset()
			for range n {
				r.Refuse(flows.Info{Client: netip.MustParseAddrPort(client), Rule: "no"}, time.Now(), errors.New("denied"))
			}
			return strings.Count(out.String(), "msg=flow")
		}
		if got := refuse("192.0.2.1:1000", 1000); got != 20 {
			t.Errorf("one client has %d lines in a second, want 20", got)
		}
		if got := refuse("192.0.2.2:1000", 1); got != 1 || !strings.Contains(out.String(), "err=denied left_out=980\n") {
			t.Errorf("another client has %d lines: %s", got, &out)
		}
		all := 0
		for i := range 1000 {
			all += refuse(fmt.Sprintf("198.51.%d.%d:1", 100+i/250, i%250), 1)
		}
		if all != 100-21 {
			t.Errorf("1000 clients have %d lines in the second, want %d", all, 100-21)
		}
		<-time.After(time.Second)
		if got := refuse("192.0.2.1:1000", 1); got != 1 || !strings.Contains(out.String(), "left_out=921\n") {
			t.Errorf("a second later: %d lines: %s", got, &out)
		}
		if c := r.Rules()[0]; c.Hits != 2002 {
			t.Errorf("%d are counted, want 2002", c.Hits)
		}
	})
}

// forgeries are names and users that would like to be more than a value.
var forgeries = map[string]string{
	"CR LF":       "a\r\ntime=x level=INFO msg=flow client=192.0.2.66:1",
	"LF JSON":     "a\"}\n{\"msg\":\"flow\",\"client\":\"192.0.2.66:1\"}",
	"ESC":         "\x1b[2J\x1b]0;title\x07",
	"quotes":      `" err="none`,
	"backslashes": `\" \\ \n`,
	"NUL and DEL": "a\x00b\x7fc",
	"C1":          "a\u009b31mb\u0085c",
	"direction":   "a\u202egnp.exe\u2066\u200f",
	"separators":  "a\u2028b\u2029c",
	"not UTF-8":   "a\x9b\xff\xc0\xaf",
	"255 bytes":   strings.Repeat("x", 254) + "\n",
	"key":         "x=1 in=5",
	"empty keys":  "= = =",
}

func TestForgery(t *testing.T) {
	for kind, handler := range handlers {
		for name, s := range forgeries {
			t.Run(kind+"/"+name, func(t *testing.T) {
				var out bytes.Buffer
				r := logging(slog.New(handler(&out)), true)
				i := flows.Info{User: s, Session: s, Name: s, Listener: "office", Source: "mail"}
				r.Open(i, nil).Done(fmt.Errorf("lookup %s: no such host", s))
				r.Refuse(i, time.Now(), nil)
				oneLine(t, kind, out.String())
			})
		}
	}
}

// oneLine checks the two lines of one test.
func oneLine(t *testing.T, kind, out string) {
	t.Helper()
	lines := strings.SplitAfter(out, "\n")
	if len(lines) != 3 || lines[2] != "" {
		t.Fatalf("got %d lines: %q", len(lines)-1, out)
	}
	for _, line := range lines[:2] {
		for _, c := range strings.TrimSuffix(line, "\n") {
			if c < ' ' || c >= 0x7f && c < 0xa0 || strings.ContainsRune("\u200f\u2028\u2029\u202e\u2066", c) {
				t.Errorf("got the raw rune %U in %q", c, line)
			}
		}
		if !utf8.ValidString(line) {
			t.Errorf("not UTF-8: %q", line)
		}
		if kind == "json" {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%v: %q", err, line)
			} else if v["source"] != "mail" || v["in"] != 0.0 || v["client"] != nil {
				t.Errorf("got forged keys: %v", v)
			}
		}
		if kind == "text" && !quoted(line, " client=") {
			t.Errorf("got a forged key: %q", line)
		}
	}
}

// quoted reports whether part stands inside double quotes wherever it occurs.
func quoted(line, part string) bool {
	for at := strings.Index(line, part); at >= 0; {
		open := false
		for i := 0; i < at; i++ {
			switch line[i] {
			case '\\':
				i++
			case '"':
				open = !open
			}
		}
		if !open {
			return false
		}
		next := strings.Index(line[at+1:], part)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return true
}

func FuzzForgery(f *testing.F) {
	for _, s := range forgeries {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for kind, handler := range handlers {
			var out bytes.Buffer
			r := logging(slog.New(handler(&out)), true)
			i := flows.Info{User: s, Name: s, Source: "mail"}
			r.Open(i, nil).Done(errors.New(s))
			r.Refuse(i, time.Now(), nil)
			oneLine(t, kind, out.String())
		}
	})
}
