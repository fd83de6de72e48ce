//go:build linux

package integration

import (
	"regexp"
	"strings"
)

// A byteCase is one client that sends bytes and looks at the answer. The
// numbers in the names are those of a list of what proxies get wrong; each is
// sent whole, cut at each byte, and one byte at a time.
type byteCase struct {
	name string
	at   string // the listener; empty is mixed
	send string
	fin  bool   // the client ends its direction after send
	want string // a regular expression: of hexadecimal digits, or of text when it begins with HTTP
	end  end
}

// end is what becomes of the connection after the answer.
type end int

const (
	stays  end = iota // it stays open for now
	closes            // the proxy closes it at once
	either            // the answer is all that matters
)

// The listeners of bytesConfig.
const (
	mixedAt = "127.0.0.1:1080"
	usersAt = "127.0.0.1:1081"
	socksAt = "127.0.0.1:1082"
	httpAt  = "127.0.0.1:1083"
)

const bytesConfig = `
default = "127.0.0.3"

[[rules]]
name = "no back door"
to   = ["127.0.0.9", "10.0.0.0/8"]
use  = "deny"

[[listen]]
mixed = "127.0.0.1:1080"

[[listen]]
mixed = "127.0.0.1:1081"
users = "users"

[[listen]]
socks = "127.0.0.1:1082"

[[listen]]
http = "127.0.0.1:1083"
`

// The parts that requests are made of. Port 7 echoes, port 9 is closed, port 8
// resets; the source is 127.0.0.3.
const (
	hi     = "\x05\x01\x00"
	login  = "\x05\x01\x02"
	echo   = "\x7f\x00\x00\x01\x00\x07"
	to     = "\x05\x01\x00\x01" // CONNECT to an IPv4 address
	to6    = "\x05\x01\x00\x04"
	toName = "\x05\x01\x00\x03"
)

// The parts of answers, in hexadecimal digits.
const (
	yes  = "050000017f000003(?:[1-9a-f].{3}|0[1-9a-f].{2})" // BND is the source, and a port
	no   = "050[1-8]00(?:01.{12}|04.{36}|03.+)"
	ping = "70696e67"
)

// socksName is a request for a name and the echo port.
func socksName(name string) string { return toName + string(rune(len(name))) + name + "\x00\x07" }

// socksName255 is socksName for names of 128 to 255 bytes, whose length is no
// one-byte rune.
func socksName255(name string) string {
	return toName + string([]byte{byte(len(name))}) + name + "\x00\x07"
}

func userpass(user, password string) string {
	b := append([]byte{1, byte(len(user))}, user...)
	return string(append(append(b, byte(len(password))), password...))
}

func allMethods() string {
	b := []byte{5, 255}
	for m := range 255 {
		b = append(b, byte(m))
	}
	return string(b)
}

func greetingCases() []byteCase {
	return []byteCase{
		{name: "1 no login", send: hi, want: "0500"},
		{name: "2 login of two", at: usersAt, send: "\x05\x02\x00\x02", want: "0502"},
		{name: "3 bypass", at: usersAt, send: hi + to + echo, want: "05ff", end: closes},
		{name: "4 zero methods", send: "\x05\x00", want: "05ff", end: closes},
		{name: "5 method FF", send: "\x05\x01\xff", want: "05ff", end: closes},
		{name: "6 GSSAPI", send: "\x05\x01\x01", want: "05ff", end: closes},
		{name: "7 all methods", send: allMethods(), want: "0500"},
		{name: "7 all methods and users", at: usersAt, send: allMethods(), want: "0502"},
		{name: "9 version 0", send: "\x00\x01\x00", want: "", end: closes},
		{name: "9 version 6", send: "\x06\x01\x00", want: "", end: closes},
		{name: "9 GET", at: socksAt, send: "GET /", want: "", end: closes},
		{name: "9 TLS", at: socksAt, send: "\x16\x03\x01", want: "", end: closes},
		{name: "9 TLS on mixed", send: "\x16\x03\x01", want: "", end: closes},
		{name: "9 SOCKS on http", at: httpAt, send: hi, want: "(?:485454502f.*)?", end: closes},
	}
}

func loginCases() []byteCase {
	full := strings.Repeat("u", 255)
	cases := []byteCase{
		{name: "11 good", send: userpass("ann", "secret"), want: "05020100"},
		{name: "11 good and request", send: userpass("ann", "secret") + to + echo + "ping", want: "05020100" + yes + ping},
		{name: "13 wrong and request", send: userpass("ann", "wrong") + to + echo, want: "050201(?:0[1-9a-f]|[1-9a-f].)", end: closes},
		{name: "14 wrong, then right", send: userpass("ann", "wrong") + userpass("ann", "secret"), want: "050201(?:0[1-9a-f]|[1-9a-f].)", end: closes},
		{name: "15 request instead", send: to + echo, want: "0502(?:01..)?", end: closes},
		{name: "16 version 5", send: "\x05\x03ann\x06secret", want: "0502(?:01..)?", end: closes},
	}
	for name, sub := range map[string]string{
		"17 both empty":     "\x01\x00\x00",
		"17 empty user":     userpass("", "secret"),
		"17 empty password": userpass("ann", ""),
		"18 password NUL":   userpass("ann", "secret\x00"),
		"18 user NUL x":     userpass("ann\x00x", "secret"),
		"18 password twice": userpass("ann", "secret\x00secret"),
		"19 short password": userpass("ann", "secre"),
		"20 255 and 255":    userpass(full, full),
		"unknown user":      userpass("bob", "secret"),
	} {
		cases = append(cases, byteCase{name: name, send: sub, want: "050201(?:0[1-9a-f]|[1-9a-f].)", end: closes})
	}
	for i := range cases {
		cases[i].at = usersAt
		cases[i].send = login + cases[i].send
	}
	return cases
}

func connectCases() []byteCase {
	long := strings.Repeat("a", 255)
	refused := map[string]string{
		"22 empty name":     toName + "\x00\x00\x07",
		"23 255 x a":        socksName255(long),
		"24 NUL in name":    socksName("\x00.example"),
		"24 NUL after name": socksName("echo.example\x00"),
		"25 CR LF":          socksName("a\r\nb: c"),
		"25 ESC":            socksName("\x1b[31mred"),
		"25 percent":        socksName("%n%s%x"),
		"25 markup":         socksName("<img src=x>"),
		"25 not UTF-8":      socksName255("\xff\xfe\x80"),
		"26 command 0":      "\x05\x00\x00\x01" + echo,
		"26 command 4":      "\x05\x04\x00\x01" + echo,
		"26 command FF":     "\x05\xff\x00\x01" + echo,
		"27 type 0":         "\x05\x01\x00\x00" + echo,
		"27 type 2":         "\x05\x01\x00\x02" + echo,
		"27 type FF":        "\x05\x01\x00\xff" + echo,
		"31 0.0.0.0":        to + "\x00\x00\x00\x00\x00\x07",
		"port 0":            to + "\x7f\x00\x00\x01\x00\x00",
		"denied":            to + "\x7f\x00\x00\x09\x00\x07",
	}
	codes := map[string]string{"26": "07", "27": "08", "denied": "02"}
	cases := []byteCase{
		{name: "21 closed port", send: to + "\x7f\x00\x00\x01\x00\x09", want: "0500" + "05050001.{12}", end: closes},
		{name: "28 SOCKS4 after", send: "\x04\x01\x00\x07\x7f\x00\x00\x01\x00", want: "0500", end: closes},
		{name: "28 version 0", send: "\x00\x01\x00\x01" + echo, want: "0500", end: closes},
		{name: "29 cut short", send: toName + "\x09", fin: true, want: "0500", end: closes},
		{name: "37 early data", send: to + echo + "ping", want: "0500" + yes + ping},
		{name: "37 name", send: socksName("echo.example") + "ping", want: "0500" + yes + ping},
		{name: "37 name with a dot", send: socksName("Echo.Example.") + "ping", want: "0500" + yes + ping},
		{name: "37 address as a name", send: socksName("127.0.0.1") + "ping", want: "0500" + yes + ping},
		{name: "40 reset", send: to + "\x7f\x00\x00\x01\x00\x08" + "x", want: "0500" + yes, end: closes},
		{name: "RSV is not zero", send: "\x05\x01\x01\x01" + echo, want: "0500(?:" + yes + "|" + no + ")", end: either},
		{name: "41 FIN after data", send: to + echo + "ping", fin: true, want: "0500" + yes + ping, end: closes},
	}
	for name, send := range refused {
		want := no
		if code := codes[strings.Fields(name)[0]]; code != "" {
			want = "05" + code + no[len("050[1-8]"):]
		}
		cases = append(cases, byteCase{name: name, send: send, want: "0500" + want, end: closes})
	}
	for i := range cases {
		cases[i].send = hi + cases[i].send
	}
	return cases
}

func socks4Cases() []byteCase {
	const granted, rejected = "005a.{12}", "005b.{12}"
	const head = "\x04\x01\x00\x07"
	return []byteCase{
		{name: "57 SOCKS4", send: head + "\x7f\x00\x00\x01\x00", want: granted},
		{name: "57 user id and data", send: head + "\x7f\x00\x00\x01bob\x00ping", want: granted + ping},
		{name: "58 SOCKS4a", send: head + "\x00\x00\x00\x01\x00echo.example\x00", want: granted},
		{name: "58 user id and data", send: head + "\x00\x00\x00\x01bob\x00echo.example\x00ping", want: granted + ping},
		{name: "57 on socks", at: socksAt, send: head + "\x7f\x00\x00\x01\x00", want: granted},
		{name: "57 closed port", send: "\x04\x01\x00\x09\x7f\x00\x00\x01\x00", want: rejected, end: closes},
		{name: "57 denied", send: head + "\x7f\x00\x00\x09\x00", want: rejected, end: closes},
		{name: "57 0.0.0.0", send: head + "\x00\x00\x00\x00\x00", want: rejected, end: closes},
		{name: "58 empty name", send: head + "\x00\x00\x00\x01\x00\x00", want: rejected, end: closes},
		{name: "58 unknown name", send: head + "\x00\x00\x00\x01\x00unknown.example\x00", want: rejected, end: closes},
		{name: "57 command 9", send: "\x04\x09\x00\x07\x7f\x00\x00\x01\x00", want: "(?:" + rejected + ")?", end: closes},
		{name: "60 with users", at: usersAt, send: head + "\x7f\x00\x00\x01\x00", want: "(?:005[b-d].{12})?", end: closes},
		{name: "60 4a with users", at: usersAt, send: head + "\x00\x00\x00\x01ann\x00echo.example\x00", want: "(?:005[b-d].{12})?", end: closes},
	}
}

const (
	head200 = `HTTP/1\.[01] 200 [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n`
	head400 = `HTTP/1\.[01] 400 [^\r\n]*\r\n(?s:.*)`
	headNo  = `HTTP/1\.[01] [45]\d\d [^\r\n]*\r\n(?s:.*)`
	head407 = `HTTP/1\.[01] 407 [^\r\n]*\r\n(?s:.*)Proxy-Authenticate: Basic(?s:.*)`
)

func httpCases() []byteCase {
	connect := func(target string, headers ...string) string {
		return "CONNECT " + target + " HTTP/1.1\r\n" + strings.Join(append(headers, "Host: x\r\n\r\n"), "")
	}
	cases := []byteCase{
		{name: "61 CONNECT", send: connect("127.0.0.1:7"), want: head200},
		{name: "61 name", send: connect("Echo.example:7"), want: head200},
		{name: "61 HTTP/1.0", send: "CONNECT 127.0.0.1:7 HTTP/1.0\r\n\r\n", want: head200},
		{name: "61 on http", at: httpAt, send: connect("127.0.0.1:7"), want: head200},
		{name: "62 early data", send: connect("127.0.0.1:7") + "ping", want: head200 + "ping"},
		{name: "63 Content-Length", send: connect("127.0.0.1:7", "Content-Length: 4\r\n") + "ping", want: "(?:" + head200 + "ping|" + headNo + ")", end: either},
		{name: "63 chunked", send: connect("127.0.0.1:7", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", want: "(?:" + head200 + "0\r\n\r\n|" + headNo + ")", end: either},
		{name: "64 closed port", send: connect("127.0.0.1:9"), want: strings.Replace(headNo, `[45]\d\d`, "50[2-4]", 1), end: either},
		{name: "64 denied", send: connect("127.0.0.9:7"), want: strings.Replace(headNo, `[45]\d\d`, "403", 1), end: either},
		{name: "64 unknown name", send: connect("unknown.example:7"), want: strings.Replace(headNo, `[45]\d\d`, "50[2-4]", 1), end: either},
		{name: "GET", send: "GET http://127.0.0.1:7/ HTTP/1.1\r\nHost: 127.0.0.1:7\r\n\r\n", want: headNo, end: either},
		{name: "origin form", send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", want: headNo, end: either},
		{name: "version", send: "CONNECT 127.0.0.1:7 HTTP/9.9\r\n\r\n", want: headNo, end: either},
		{name: "no version", send: "CONNECT 127.0.0.1:7\r\n\r\n", want: headNo, end: either},
		{name: "space before colon", send: connect("127.0.0.1:7", "Proxy-Authorization : x\r\n"), want: headNo, end: either},
		{name: "NUL in a header", send: connect("127.0.0.1:7", "A: b\x00c\r\n"), want: headNo, end: either},
		{name: "68 no login", at: usersAt, send: connect("127.0.0.1:7"), want: head407, end: either},
		{name: "68 bad", at: usersAt, send: connect("127.0.0.1:7", "Proxy-Authorization: Basic YW5uOndyb25n\r\n"), want: head407, end: either},
		{name: "68 good", at: usersAt, send: connect("127.0.0.1:7", "Proxy-Authorization: bAsIc YW5uOnNlY3JldA==\r\n"), want: head200},
		{name: "68 Authorization", at: usersAt, send: connect("127.0.0.1:7", "Authorization: Basic YW5uOnNlY3JldA==\r\n"), want: head407, end: either},
		{name: "68 not base64", at: usersAt, send: connect("127.0.0.1:7", "Proxy-Authorization: Basic !!\r\n"), want: headNo, end: either},
		{name: "68 NUL", at: usersAt, send: connect("127.0.0.1:7", "Proxy-Authorization: Basic YW5uOnNlY3JldAA=\r\n"), want: head407, end: either},
	}
	for _, target := range []string{
		"127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:65543", "127.0.0.1:80x", "127.0.0.1:+80", "127.0.0.1:-7", ":7",
		"http://127.0.0.1:7/", "ann@127.0.0.1:7", "::1:7", "127.0.0.1 :7", "127.0.0.1\x00:7", "[::1", "*", "/", "127.0.0.1:7/",
	} {
		cases = append(cases, byteCase{name: "65, 66 " + target, send: connect(target), want: head400, end: either})
	}
	return cases
}

// matches reports whether the whole answer is what the case wants.
func (c byteCase) matches(answer string) bool {
	return regexp.MustCompile(`^(?:` + c.want + `)$`).MatchString(answer)
}
