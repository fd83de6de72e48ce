package httpconnect_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/httpconnect"
)

func TestAppendResponse(t *testing.T) {
	want := "HTTP/1.1 200 Connection established\r\n\r\n"
	if got := string(httpconnect.AppendResponse([]byte("x"), 200, "unused")); got != "x"+want {
		t.Errorf("got %q, want %q", got, "x"+want)
	}
	want = "HTTP/1.1 407 Proxy Authentication Required\r\n" +
		"Proxy-Authenticate: Basic realm=\"srcproxy\", charset=\"UTF-8\"\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n" +
		"X-Content-Type-Options: nosniff\r\n" +
		"Cache-Control: no-store\r\n" +
		"Connection: close\r\n" +
		"Content-Length: 17\r\n\r\n" +
		"a login is asked\n"
	if got := string(httpconnect.AppendResponse(nil, 407, "a login is asked")); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestResponses reads each response with net/http, as a client would.
func TestResponses(t *testing.T) {
	for _, status := range []int{400, 403, 405, 407, 429, 431, 502, 503, 504, 505, 599} {
		raw := string(httpconnect.AppendResponse(nil, status, "rule \"a\" says no"))
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), &http.Request{Method: http.MethodConnect})
		if err != nil {
			t.Fatalf("%d: %v in %q", status, err, raw)
		}
		body, err := io.ReadAll(r.Body)
		if got, want := string(body), "rule \"a\" says no\n"; got != want || err != nil {
			t.Errorf("%d: got body %q, %v, want %q", status, got, err, want)
		}
		if r.StatusCode != status || !r.Close || r.ContentLength != int64(len(body)) {
			t.Errorf("%d: got status %d, close %v, length %d", status, r.StatusCode, r.Close, r.ContentLength)
		}
		if text := http.StatusText(status); text != "" && r.Status[4:] != text {
			t.Errorf("%d: got reason phrase %q, want %q", status, r.Status[4:], text)
		}
		if got := r.Header.Get("Allow") == "CONNECT"; got != (status == 405) {
			t.Errorf("%d: Allow is there: %v", status, got)
		}
		if got := r.Header.Get("Proxy-Authenticate") != ""; got != (status == 407) {
			t.Errorf("%d: Proxy-Authenticate is there: %v", status, got)
		}
	}
}

func TestResponseText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"plain", `host "a": no`, `host "a": no`},
		{"CR LF", "a\r\nContent-Length: 0\r\n\r\n", `a\x0d\x0aContent-Length: 0\x0d\x0a\x0d\x0a`},
		{"ESC, NUL, DEL", "\x1b[2J\x00\x7f", `\x1b[2J\x00\x7f`},
		{"UTF-8", "bücher", "bücher"},
		{"not UTF-8", "a\xffb", `a\xffb`},
		{"C1 and right to left", "\u009b\u202e", `\u009b\u202e`},
		{"long", strings.Repeat("a", 5000), strings.Repeat("a", 1024)},
		{"long and escaped", strings.Repeat("\n", 5000), strings.Repeat(`\x0a`, 256)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw := string(httpconnect.AppendResponse(nil, 400, tt.text))
			_, body, _ := strings.Cut(raw, "\r\n\r\n")
			if want := tt.want + "\n"; body != want {
				t.Errorf("got %q, want %q", body, want)
			}
		})
	}
}

func TestResponseAllocs(t *testing.T) {
	buf := make([]byte, 0, 1024)
	if got := testing.AllocsPerRun(100, func() { httpconnect.AppendResponse(buf, 200, "") }); got != 0 {
		t.Errorf("a 200 allocates %v times, want 0", got)
	}
}

func FuzzAppendResponse(f *testing.F) {
	f.Add(400, "a\r\n\r\nb")
	f.Add(407, "\xff\x00")
	f.Fuzz(func(t *testing.T, status int, text string) {
		if status < 300 || status > 599 {
			return
		}
		raw := string(httpconnect.AppendResponse(nil, status, text))
		r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
		if err != nil {
			t.Fatalf("%v in %q", err, raw)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || status != 304 && int64(len(body)) != r.ContentLength || len(body) > 1025 {
			t.Fatalf("%d bytes of %d, %v", len(body), r.ContentLength, err)
		}
		for _, c := range strings.TrimSuffix(string(body), "\n") {
			if c < ' ' || c == 0x7f {
				t.Fatalf("body %q", body)
			}
		}
	})
}
