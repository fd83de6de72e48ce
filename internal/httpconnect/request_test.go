package httpconnect_test

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/httpconnect"
)

const connectE = "CONNECT 203.0.113.5:80 HTTP/1.1\r\n"

// result is what Parse says in the end, comparable.
type result struct {
	Request httpconnect.Request
	Rest    string // what is left for the tunnel, after a request
	Status  int    // 0 for a request, -1 while more is needed
	Reason  string
}

func parse(t testing.TB, in []byte) result {
	t.Helper()
	request, n, err := httpconnect.Parse(in)
	if n < 0 || n > len(in) || n > httpconnect.MaxHeader {
		t.Fatalf("Parse(%q) takes %d of %d bytes", in, n, len(in))
	}
	if err == nil {
		return result{Request: request, Rest: string(in[n:])}
	}
	if request != (httpconnect.Request{}) {
		t.Fatalf("Parse(%q) = %+v beside error %v", in, request, err)
	}
	if errors.Is(err, httpconnect.ErrMore) {
		if n != 0 || len(in) >= httpconnect.MaxHeader {
			t.Fatalf("Parse of %d bytes takes %d and asks for more", len(in), n)
		}
		return result{Status: -1}
	}
	var refused *httpconnect.Error
	if !errors.As(err, &refused) || refused.Status < 400 {
		t.Fatalf("Parse(%q): error %v", in, err)
	}
	return result{Status: refused.Status, Reason: refused.Reason}
}

// parseGrowing gives Parse ever longer prefixes of in, from the length from
// in steps of step, until it asks for no more.
func parseGrowing(t testing.TB, in []byte, from, step int) result {
	t.Helper()
	for end := from; end < len(in); end += step {
		if got := parse(t, in[:end]); got.Status >= 0 {
			got.Rest += string(in[end:])
			if got.Status != 0 {
				got.Rest = ""
			}
			return got
		}
	}
	return parse(t, in)
}

func basic(s string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s)) + "\r\n"
}

func fields(n int) string { return strings.Repeat("A: b\r\n", n) }

// row is one request; n is the number of its byte case in the list of protocol
// faults that the project keeps, 0 for none.
type row struct {
	n      int
	name   string
	in     string
	status int // 0: served
	addr   string
	host   string
	port   uint16
	login  string // user:password
	user   string // of a login out of form
	rest   string
}

func runRows(t *testing.T, rows []row) {
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			whole := parse(t, []byte(tt.in))
			if whole.Status != tt.status {
				t.Fatalf("case %d: got status %d (%s), want %d", tt.n, whole.Status, whole.Reason, tt.status)
			}
			checkCuts(t, []byte(tt.in), whole)
			if tt.status != 0 {
				return
			}
			want := httpconnect.Request{Name: tt.host, Addr: netip.AddrPortFrom(netip.Addr{}, tt.port), User: tt.user}
			if tt.addr != "" {
				want.Addr = netip.MustParseAddrPort(tt.addr)
			}
			if tt.login != "" {
				want.HasLogin = true
				want.User, want.Password, _ = strings.Cut(tt.login, ":")
			}
			if whole.Request != want || whole.Rest != tt.rest {
				t.Errorf("case %d:\ngot  %+v, left %q\nwant %+v, left %q", tt.n, whole.Request, whole.Rest, want, tt.rest)
			}
		})
	}
}

// checkCuts wants the same result cut at each byte and byte by byte; of a long
// request not at each.
func checkCuts(t *testing.T, in []byte, whole result) {
	t.Helper()
	stride := 1 + len(in)/300
	for cut := 1; cut < len(in); cut += stride {
		if got := parseGrowing(t, in, cut, len(in)); got != whole {
			t.Errorf("cut at %d:\ngot  %+v\nwant %+v", cut, got, whole)
		}
	}
	if got := parseGrowing(t, in, 1, stride); got != whole {
		t.Errorf("byte by byte:\ngot  %+v\nwant %+v", got, whole)
	}
}

func TestParse(t *testing.T) {
	served := func(n int, name, in, rest, addr string) row {
		return row{n: n, name: name, in: in, rest: rest, addr: addr}
	}
	named := func(name, target, host string) row {
		return row{name: name, in: "CONNECT " + target + ":80 HTTP/1.1\r\n\r\n", host: host, port: 80}
	}
	runRows(t, []row{
		served(61, "plain", connectE+"Host: 203.0.113.5:80\r\nUser-Agent: x\r\n\r\n", "", "203.0.113.5:80"),
		served(62, "early bytes", connectE+"\r\nping", "ping", "203.0.113.5:80"),
		served(62, "early lines", connectE+"\r\n\r\n\r\n", "\r\n\r\n", "203.0.113.5:80"),
		served(63, "Content-Length", connectE+"Content-Length: 4\r\n\r\nping", "ping", "203.0.113.5:80"),
		served(63, "chunked", connectE+"Transfer-Encoding: chunked\r\n\r\n4\r\nping\r\n0\r\n\r\n", "4\r\nping\r\n0\r\n\r\n", "203.0.113.5:80"),
		served(0, "HTTP/1.0", "CONNECT 203.0.113.5:80 HTTP/1.0\r\n\r\n", "", "203.0.113.5:80"),
		served(0, "IPv6", "CONNECT [2001:db8::1]:65535 HTTP/1.1\r\n\r\n", "", "[2001:db8::1]:65535"),
		served(0, "IPv4-mapped is unmapped", "CONNECT [::ffff:203.0.113.5]:1 HTTP/1.1\r\n\r\n", "", "203.0.113.5:1"),
		served(0, "address with a dot", "CONNECT 203.0.113.5.:80 HTTP/1.1\r\n\r\n", "", "203.0.113.5:80"),
		served(0, "100 fields", connectE+fields(100)+"\r\n", "", "203.0.113.5:80"),
		served(0, "empty value, tab, obs-text", connectE+"A:\r\nB:\t\xff \r\n\r\n", "", "203.0.113.5:80"),
		served(0, "longest header", connectE+"A: "+strings.Repeat("a", 16<<10-len(connectE)-len("A: \r\n\r\n"))+"\r\n\r\nping", "ping", "203.0.113.5:80"),
		named("name", "Server.Example.", "server.example"),
		named("underscore", "_a.server.example", "_a.server.example"),
	})
}

func TestParseLogin(t *testing.T) {
	in := func(n int, name, fields, login, user string) row {
		return row{n: n, name: name, in: connectE + fields + "\r\nx", addr: "203.0.113.5:80", login: login, user: user, rest: "x"}
	}
	good := base64.StdEncoding.EncodeToString([]byte("alice:secret"))
	runRows(t, []row{
		in(68, "none", "", "", ""),
		in(68, "good", basic("alice:secret"), "alice:secret", ""),
		in(68, "bAsIc", "pRoXy-aUthorization: bAsIc   "+good+" \r\n", "alice:secret", ""),
		in(68, "Authorization", "Authorization: Basic "+good+"\r\n", "", ""),
		in(68, "not base64", "Proxy-Authorization: Basic ?\r\n", "", ""),
		in(68, "no padding", "Proxy-Authorization: Basic YTpiYw\r\n", "", ""),
		in(68, "no colon", basic("alice"), "", "alice"),
		in(68, "other scheme", "Proxy-Authorization: Bearer "+good+"\r\n", "", ""),
		in(68, "scheme alone", "Proxy-Authorization: Basic\r\n", "", ""),
		in(68, "empty", "Proxy-Authorization:\r\n", "", ""),
		in(0, "colon in the password", basic("alice:a:b"), "alice:a:b", ""),
		in(0, "UTF-8", basic("ålice:sécret"), "ålice:sécret", ""),
		in(17, "empty user", basic(":x"), "", ""),
		in(17, "empty password", basic("alice:"), "", "alice"),
		in(18, "NUL in the password", basic("alice:secret\x00"), "", "alice"),
		in(18, "NUL in the user", basic("alice\x00x:secret"), "", "alice\x00x"),
		in(0, "72 bytes", basic("alice:"+strings.Repeat("a", 72)), "alice:"+strings.Repeat("a", 72), ""),
		in(20, "73 bytes", basic("alice:"+strings.Repeat("a", 73)), "", "alice"),
		{name: "twice", in: connectE + basic("alice:secret") + basic("alice:other") + "\r\n", status: 400},
	})
}

func TestParseRefused(t *testing.T) {
	target := func(n int, target string) row {
		return row{n: n, name: "target " + target, in: "CONNECT " + target + " HTTP/1.1\r\nHost: a\r\n\r\n", status: 400}
	}
	raw := func(n int, name, in string, status int) row { return row{n: n, name: name, in: in, status: status} }
	rows := []row{
		raw(66, "NUL in the host", "CONNECT h\x00:80 HTTP/1.1\r\n\r\n", 400),
		raw(66, "space in the host", "CONNECT h :80 HTTP/1.1\r\n\r\n", 400),
		raw(67, "1 MiB field", connectE+"A: "+strings.Repeat("a", 1<<20)+"\r\n\r\n", 431),
		raw(67, "1 MiB request line", "CONNECT "+strings.Repeat("a", 1<<20)+":80 HTTP/1.1\r\n\r\n", 431),
		raw(67, "1 MiB without a line", strings.Repeat("A", 1<<20), 431),
		raw(67, "100 000 fields", connectE+fields(100_000)+"\r\n", 431),
		raw(67, "101 fields", connectE+fields(101)+"\r\n", 431),
		raw(67, "one byte too long", connectE+"A: "+strings.Repeat("a", 16<<10+1-len(connectE)-len("A: \r\n\r\n"))+"\r\n\r\n", 431),

		raw(0, "other method", "GET http://server.example/ HTTP/1.1\r\nHost: server.example\r\n\r\n", 405),
		raw(0, "other method, origin-form", "GET / HTTP/1.0\r\n\r\n", 405),
		raw(0, "POST with content", "POST http://server.example/ HTTP/1.1\r\nContent-Length: 4\r\n\r\nping", 405),
		raw(0, "method in lower case", "connect server.example:80 HTTP/1.1\r\n\r\n", 405),
		raw(0, "other method, then a fault", "GET / HTTP/1.1\r\nA\r\n\r\n", 405),
		raw(0, "other method, too long", "GET / HTTP/1.1\r\nA: "+strings.Repeat("a", 16<<10), 405),
		raw(0, "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
		raw(0, "HTTP/1.2", "CONNECT server.example:80 HTTP/1.2\r\n\r\n", 505),
		raw(0, "HTTP/0.9", "GET /\r\n", 400),
		raw(0, "http/1.1", "CONNECT server.example:80 http/1.1\r\n\r\n", 400),
		raw(0, "HTTP/1", "CONNECT server.example:80 HTTP/1\r\n\r\n", 400),
		raw(0, "HTTP/11.1", "CONNECT server.example:80 HTTP/11.1\r\n\r\n", 400),
		raw(0, "no version", "CONNECT server.example:80\r\n\r\n", 400),
		raw(0, "two spaces", "CONNECT  server.example:80 HTTP/1.1\r\n\r\n", 400),
		raw(0, "tab", "CONNECT\tserver.example:80 HTTP/1.1\r\n\r\n", 400),
		raw(0, "trailing space", "CONNECT server.example:80 HTTP/1.1 \r\n\r\n", 400),
		raw(0, "leading space", " CONNECT server.example:80 HTTP/1.1\r\n\r\n", 400),
		raw(0, "empty line first", "\r\n"+connectE+"\r\n", 400),
		raw(0, "method is no token", "CON(NECT server.example:80 HTTP/1.1\r\n\r\n", 400),
		raw(9, "TLS", "\x16\x03\x01\x02\x00\x01\x00", 400),
		raw(9, "SOCKS", "\x05\x01\x00", 400),
		raw(0, "bare LF", "CONNECT server.example:80 HTTP/1.1\n\n", 400),
		raw(0, "bare LF in a field", connectE+"A: b\nC: d\r\n\r\n", 400),
		raw(0, "bare LF at the end", connectE+"A: b\r\n\n", 400),
		raw(0, "bare CR in a value", connectE+"A: b\rCC: d\r\n\r\n", 400),
		raw(0, "CR CR LF", connectE+"A: b\r\r\n\r\n", 400),
		raw(0, "NUL in a value", connectE+"A: \x00\r\n\r\n", 400),
		raw(0, "ESC in a value", connectE+"A: \x1b[2J\r\n\r\n", 400),
		raw(0, "DEL in a value", connectE+"A: \x7f\r\n\r\n", 400),
		raw(0, "folded line", connectE+"A: b\r\n c\r\n\r\n", 400),
		raw(0, "folded by a tab", connectE+"A: b\r\n\tc: d\r\n\r\n", 400),
		raw(0, "space first", connectE+" A: b\r\n\r\n", 400),
		raw(0, "space before the colon", connectE+"A : b\r\n\r\n", 400),
		raw(0, "empty name", connectE+": b\r\n\r\n", 400),
		raw(0, "no colon", connectE+"A\r\n\r\n", 400),
		raw(0, "name is no token", connectE+"A\xff: b\r\n\r\n", 400),
		raw(0, "two Hosts", connectE+"Host: a\r\nhOST: a\r\n\r\n", 400),

		raw(0, "nothing", "", -1),
		raw(0, "request line cut", connectE[:20], -1),
		raw(0, "request line alone", connectE, -1),
		raw(0, "CR of the end", connectE+"A: b\r\n\r", -1),
		raw(0, "other method cut", "GET / HTTP/1.1\r\n", -1),
	}
	for _, s := range []string{
		"server.example", ":", "", "server.example:", "server.example:0", "server.example:00", "server.example:65536", "server.example:65616",
		"server.example:4294967376", "server.example:18446744073709551696", "server.example:80x", "server.example:+80", "server.example:-80", "server.example:080", "server.example:0x50",
		"server.example:8_0", ":80", "server.example:http",
	} {
		rows = append(rows, target(65, s))
	}
	for _, s := range []string{
		"http://server.example:80/", "https://server.example:80", "user@server.example:80", "user:password@server.example:80", "::1:80", "2001:db8::1:80",
		"server.example:80/", "/", "*", "[::1]", "[::1]80", "[::1:80", "::1]:80", "[[::1]]:80", "[203.0.113.5]:80", "[server.example]:80", "[::1%25lo]:80",
		"[::1%lo]:80", "[]:80", "[v1.a:b]:80", "server.example%00:80", "a..example:80", "127.9:80", "0x7f000009:80", "2130706441:80", "0177.0.0.011:80",
		"0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80", "b\xfccher.example:80", "a\x80:80", "<img>:80", "server.example:80:80", "server.example,a:80",
		strings.Repeat("a", 255) + ":80",
	} {
		rows = append(rows, target(66, s))
	}
	runRows(t, rows)
}

// TestParseLength tells the refusals that leave nothing unread from the ones
// that come as soon as the framing is broken.
func TestParseLength(t *testing.T) {
	for in, want := range map[string]int{
		"GET / HTTP/1.1\r\n\r\nx":            len("GET / HTTP/1.1\r\n\r\n"),
		"CONNECT a HTTP/1.1\r\nA: b\r\n\r\n": len("CONNECT a HTTP/1.1\r\nA: b\r\n\r\n"),
		"CONNECT a:1 HTTP/1.1\r\nA\r\n\r\n":  0,
		"\x16\x03\x01":                       0,
	} {
		if _, n, err := httpconnect.Parse([]byte(in)); n != want || err == nil {
			t.Errorf("Parse(%q) takes %d bytes, %v, want %d", in, n, err, want)
		}
	}
}

func TestParseAllocs(t *testing.T) {
	for in, want := range map[string]float64{
		connectE + "Host: 203.0.113.5:80\r\nUser-Agent: curl/8.0\r\nProxy-Connection: Keep-Alive\r\n\r\n": 1,
		"CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\n\r\n":                         1,
		connectE + basic("alice:secret") + "\r\n":                                                         4,
		connectE: 1,
	} {
		b := []byte(in)
		got := testing.AllocsPerRun(100, func() {
			if _, _, err := httpconnect.Parse(b); err != nil && !errors.Is(err, httpconnect.ErrMore) {
				t.Fatal(err)
			}
		})
		if got > want {
			t.Errorf("Parse(%q) allocates %v times, want at most %v", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, in := range []string{
		connectE + "Host: a\r\n\r\nping", connectE + basic("alice:secret") + "\r\n", "CONNECT [2001:db8::1]:80 HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n", connectE + "A: b\r\n c\r\n\r\n", "CONNECT a:1 HTTP/1.1\n\n", connectE + fields(101), "CONNECT a",
	} {
		f.Add([]byte(in), uint16(5))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		whole := parse(t, in)
		if got := parseGrowing(t, in, min(int(cut), len(in)), 1+len(in)/50); got != whole {
			t.Fatalf("cut at %d:\ngot  %+v\nwant %+v", cut, got, whole)
		}
		if whole.Status == -1 {
			checkMore(t, in)
		}
		checkReason(t, whole.Reason)
		r := whole.Request
		if whole.Status == 0 && (r.Addr.Port() == 0 || r.Addr.Addr().IsValid() == (r.Name != "") || r.Addr.Addr().IsUnspecified()) {
			t.Fatalf("Parse(%q): destination %v, %q", in, r.Addr, r.Name)
		}
	})
}

// checkMore wants that some longer input is answered.
func checkMore(t *testing.T, in []byte) {
	t.Helper()
	for _, end := range []string{"\r\n\r\n", "\n\r\n", "\x00"} {
		if parse(t, append(in[:len(in):len(in)], end...)).Status >= 0 {
			return
		}
	}
	t.Fatalf("%q: no longer input is answered", in)
}

func checkReason(t *testing.T, s string) {
	t.Helper()
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			t.Fatalf("reason %q has byte %#02x", s, s[i])
		}
	}
}

func BenchmarkParse(b *testing.B) {
	in := []byte("CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\nUser-Agent: curl/8.0\r\nProxy-Connection: Keep-Alive\r\n\r\n")
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := httpconnect.Parse(in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseLongest is the most that one call can cost: a client that
// sends byte by byte makes as many calls as bytes.
func BenchmarkParseLongest(b *testing.B) {
	in := []byte(connectE + strings.Repeat("A: "+strings.Repeat("b", 160)+"\r\n", 98))
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, _, err := httpconnect.Parse(in); !errors.Is(err, httpconnect.ErrMore) {
			b.Fatal(err)
		}
	}
}
