package sip

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// lines joins header lines and ends the header.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

// plain is a message without oddities, of about 600 bytes.
var plain = lines(
	"INVITE sip:+4930555123@provider.example;user=phone SIP/2.0",
	"Via: SIP/2.0/UDP 198.51.100.30:5060;rport;branch=z9hG4bKPj3c1f0b2a9d",
	"Max-Forwards: 70",
	`From: "Reception" <sip:100@provider.example>;tag=a7c1e09b`,
	"To: <sip:+4930555123@provider.example>",
	`Contact: "Reception" <sip:100@198.51.100.30:5060;ob>;expires=300`,
	"Call-ID: 5b1d0f6e7c-4242@198.51.100.30",
	"CSeq: 20711 INVITE",
	"Allow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE, OPTIONS",
	"Supported: replaces, 100rel, timer, norefersub",
	"User-Agent: a telephone with a long name/7.1.2",
	"Content-Type: application/sdp",
	"Content-Length: 0",
)

// must are the fields without which there is no message.
var must = []string{"Via: SIP/2.0/UDP h;branch=z9hG4bKx", "Call-ID: c", "From: <sip:a@h>;tag=f", "To: <sip:b@h>", "CSeq: 1 OPTIONS"}

// with is an OPTIONS with more or other lines: one that names a field of must replaces it.
func with(more ...string) string {
	l := []string{"OPTIONS sip:b@h SIP/2.0"}
	for _, m := range must {
		name, _, _ := strings.Cut(m, ":")
		if !replaced(name, more) {
			l = append(l, m)
		}
	}
	return lines(append(l, more...)...)
}

// replaced reports whether a line begins with the name, and "-name" too, which only takes it out.
func replaced(name string, more []string) bool {
	for _, m := range more {
		if strings.HasPrefix(strings.TrimPrefix(m, "-"), name+":") {
			return true
		}
	}
	return false
}

func TestScanPlain(t *testing.T) {
	m, err := Scan([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	want := slow{
		method: "INVITE", uri: "sip:+4930555123@provider.example;user=phone", branch: "z9hG4bKPj3c1f0b2a9d", sentBy: "198.51.100.30:5060",
		callID: "5b1d0f6e7c-4242@198.51.100.30", from: "sip:100@provider.example", fromTag: "a7c1e09b", to: "sip:+4930555123@provider.example",
		seq: "20711", seqMethod: "INVITE", expires: NoExpires, contacts: []slowContact{{"sip:100@198.51.100.30:5060;ob", 300}},
	}
	if got := fast(&m); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got := string(ParseURI(m.URI).User); got != "+4930555123" {
		t.Errorf("user of the Request-URI: got %q", got)
	}
}

func TestScanSubslices(t *testing.T) {
	b := []byte(plain)
	m, err := Scan(b)
	if err != nil {
		t.Fatal(err)
	}
	u := ParseURI(m.URI)
	for i := range b {
		b[i] = 'x'
	}
	for _, p := range [][]byte{m.Method, m.URI, u.User, u.Host, u.Params, m.Branch, m.SentBy, m.CallID, m.From.Tag, m.CSeqMethod, m.Contact} {
		if len(p) == 0 || len(bytes.Trim(p, "x")) != 0 {
			t.Errorf("%q is a copy", p)
		}
	}
}

func TestScan(t *testing.T) {
	tests := []struct {
		name, msg string
		check     func(m *Message) (got, want string)
	}{
		{"short names in any case", with("V: SIP/2.0/UDP h;branch=z9hG4bKs", "I: short", "-Via:", "-Call-ID:"), branchAndCallID("z9hG4bKs short")},
		{"long names in any case", with("vIA: SIP/2.0/UDP h;branch=z9hG4bKs", "CALL-ID: long", "-Via:", "-Call-ID:"), branchAndCallID("z9hG4bKs long")},
		{"space before colon", with("Via  \t: SIP/2.0/UDP h;branch=z9hG4bKs", "Call-ID \t:c", "-Via:", "-Call-ID:"), branchAndCallID("z9hG4bKs c")},
		{"folded lines", with("Via: SIP  /   2.0\r\n /UDP\r\n    192.0.2.2 ; \r\n\tbranch =\r\n z9hG4bKfold ;x=y", "Call-ID:\r\n folded@h"), branchAndCallID("z9hG4bKfold folded@h")},
		{"bare LF", strings.ReplaceAll(with(), "\r\n", "\n"), branchAndCallID("z9hG4bKx c")},
		{"line ends before", "\r\n\r\n" + with(), branchAndCallID("z9hG4bKx c")},
		{"no empty line", strings.TrimSuffix(with(), "\r\n"), branchAndCallID("z9hG4bKx c")},
		{"body is no header", with() + "Call-ID: two\r\n", branchAndCallID("z9hG4bKx c")},
		{"two values in a Via", with("Via: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2"), branchAndCallID("z9hG4bK1 c")},
		{"first Via has no branch", with("Via: SIP/2.0/UDP a,SIP/2.0/UDP b;branch=z9hG4bK2"), branchAndCallID(" c")},
		{"two Vias", with("Via: SIP/2.0/UDP a;branch=z9hG4bK1", "v: SIP/2.0/UDP b;branch=z9hG4bK2"), branchAndCallID("z9hG4bK1 c")},
		{"quoted parameter before branch", with(`Via: SIP/2.0/UDP a;x=";branch=no,\"";BRANCH=z9hG4bK1`), branchAndCallID("z9hG4bK1 c")},
		{"parameter without value", with("Via: SIP/2.0/UDP a;rport;;branch=z9hG4bK1"), branchAndCallID("z9hG4bK1 c")},
		{"IPv6 sent-by", with("Via: SIP/2.0/UDP [2001:db8::9:1]:5062 ;branch=z9hG4bK1"), func(m *Message) (string, string) { return string(m.SentBy), "[2001:db8::9:1]:5062" }},
		{"unknown transport", with("Via: SIP/2.0/UNKNOWN h;branch=z9hG4bK1"), branchAndCallID("z9hG4bK1 c")},
		{"branch is only the cookie", with("Via: SIP/2.0/UDP h;branch=z9hG4bK"), branchAndCallID("z9hG4bK c")},
		{"odd Call-ID", with("Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"), branchAndCallID("z9hG4bKx intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{")},

		{"tag after a quoted name", with(`From: "J \\\"; tag=no <x>" <sip:j@h;tag=no> ;` + "\r\n tag = 98asjd8"), tags("98asjd8 ")},
		{"tag after a bare address", with("From: sip:j@h;x=1;tag=f1", "To: tel:+1-555;TAG=t1"), tags("f1 t1")},
		{"tag in the address is none", with("From: <sip:j@h;tag=no>", "To: <sip:b@h>"), tags(" ")},
		{"comma and semicolon in an address", with("From: <sip:a,b;c@h>;tag=f"), func(m *Message) (string, string) { return string(ParseURI(m.From.URI).User), "a,b;c" }},
		{"address that does not end", with("To: <sip:b@h;tag=no"), tags("f ")},
		{"quote that does not end", with(`To: "b <sip:b@h>;tag=no`), tags("f ")},

		{"method of any token", lines(append([]string{"!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0"}, must...)...), func(m *Message) (string, string) {
			return string(m.Method) + " " + string(ParseURI(m.URI).User), "!interesting-Method0123456789_*+`.%indeed'~ 1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
		}},
		{"user with a semicolon", lines(append([]string{"OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0"}, must...)...), user("user;par=u%40example.net example.com ")},
		{"headers in the URI", lines(append([]string{"OPTIONS sips:u@h;lr?Route=%3Csip:x%3E&a=;b SIP/2.0"}, must...)...), user("u h ;lr")},
		{"tel", lines(append([]string{"OPTIONS tel:+4930;phone-context=x SIP/2.0"}, must...)...), user("+4930  ;phone-context=x")},
		{"unknown scheme", lines(append([]string{"OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0"}, must...)...), user("  ")},
		{"spaces in the start line", lines(append([]string{"OPTIONS  sip:b@h  sip/2.0  "}, must...)...), user("b h ")},

		{"status", lines(append([]string{"SIP/2.0 200 = 2**3 * 5**2 \xd0\x9d\xd0\xbe"}, must...)...), status(200)},
		{"status without reason", lines(append([]string{"SIP/2.0 100"}, must...)...), status(100)},
		{"largest CSeq", with("CSeq: 004294967295\r\n INVITE"), func(m *Message) (string, string) {
			return fast(m).seq + " " + string(m.CSeqMethod), "4294967295 INVITE"
		}},
		{"NUL and 8-bit bytes", with("X: \x00\xff\x80", "Call-ID: a\x00b"), branchAndCallID("z9hG4bKx a\x00b")},
		{"line without a colon", with("nonsense"), branchAndCallID("z9hG4bKx c")},
		{"64 kB", with(strings.Repeat("X: "+strings.Repeat("y", 200)+"\r\n", 310)+"Z: z") + "body", branchAndCallID("z9hG4bKx c")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.ReplaceAll(strings.ReplaceAll(tt.msg, "-Via:\r\n", ""), "-Call-ID:\r\n", "")
			m, err := Scan([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := tt.check(&m); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			compare(t, []byte(text))
		})
	}
}

func branchAndCallID(want string) func(*Message) (string, string) {
	return func(m *Message) (string, string) { return string(m.Branch) + " " + string(m.CallID), want }
}

func tags(want string) func(*Message) (string, string) {
	return func(m *Message) (string, string) { return string(m.From.Tag) + " " + string(m.To.Tag), want }
}

func user(want string) func(*Message) (string, string) {
	return func(m *Message) (string, string) {
		u := ParseURI(m.URI)
		return string(u.User) + " " + string(u.Host) + " " + string(u.Params), want
	}
}

func status(want int) func(*Message) (string, string) {
	return func(m *Message) (string, string) {
		return strings.Repeat("i", m.Status), strings.Repeat("i", want)
	}
}

func TestScanFaults(t *testing.T) {
	start := func(line string) string { return lines(append([]string{line}, must...)...) }
	tests := []struct {
		name, msg string
		want      Fault
	}{
		{"empty", "", ErrTruncated},
		{"line ends only", "\r\n\r\n", ErrTruncated},
		{"start line only", "OPTIONS sip:b@h SIP/2.0\r\n", ErrNoVia},
		{"cut in the start line", "OPTIONS sip:b@h SIP/2.0", ErrTruncated},
		{"cut in a branch", strings.SplitAfter(with(), "z9hG4bKx")[0], ErrTruncated},
		{"cut in a line end", with()[:strings.Index(with(), "\r\n\r\n")+1], ErrTruncated},
		{"cut in the empty line", with()[:len(with())-1], ErrTruncated},
		{"version 3", start("OPTIONS sip:b@h SIP/3.0"), ErrStartLine},
		{"no version", start("OPTIONS sip:b@h"), ErrStartLine},
		{"no URI", start("OPTIONS SIP/2.0"), ErrStartLine},
		{"empty URI", start("OPTIONS  SIP/2.0"), ErrStartLine},
		{"HTTP", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", ErrStartLine},
		{"method is no token", start("OPT@ONS sip:b@h SIP/2.0"), ErrStartLine},
		{"status too large", start("SIP/2.0 4294967301 better not break"), ErrStartLine},
		{"status 099", start("SIP/2.0 099 low"), ErrStartLine},
		{"status 700", start("SIP/2.0 700 high"), ErrStartLine},
		{"status line of version 7", start("SIP/7.0 200 OK"), ErrStartLine},
		{"no status", start("SIP/2.0"), ErrStartLine},
		{"no Via", strings.Replace(with(), "Via", "Vio", 1), ErrNoVia},
		{"Via without sent-by", with("Via: SIP/2.0/UDP ;branch=z9hG4bKx"), ErrNoVia},
		{"Via without transport", with("Via: SIP/2.0 h;branch=z9hG4bKx"), ErrNoVia},
		{"Via begins with a comma", with("Via: ,SIP/2.0/UDP h;branch=z9hG4bKx"), ErrNoVia},
		{"empty Via", with("Via:"), ErrNoVia},
		{"no Call-ID", strings.Replace(with(), "Call-ID", "Call-IP", 1), ErrNoCallID},
		{"empty Call-ID", with("Call-ID: \r\n "), ErrNoCallID},
		{"no From", strings.Replace(with(), "From", "Fram", 1), ErrNoFrom},
		{"no To", strings.Replace(with(), "To", "Tu", 1), ErrNoTo},
		{"no CSeq", strings.Replace(with(), "CSeq", "CSek", 1), ErrCSeq},
		{"CSeq too large", with("CSeq: 4294967296 OPTIONS"), ErrCSeq},
		{"CSeq far too large", with("CSeq: 36893488147419103232 OPTIONS"), ErrCSeq},
		{"negative CSeq", with("CSeq: -1 OPTIONS"), ErrCSeq},
		{"CSeq without method", with("CSeq: 1 "), ErrCSeq},
		{"two Call-IDs", with("Call-ID: a", "i: b"), ErrDuplicate},
		{"two Froms", with("From: <sip:a@h>;tag=1", "f: <sip:a@h>;tag=2"), ErrDuplicate},
		{"two CSeqs", with("CSeq: 1 A", "CSEQ: 2 B"), ErrDuplicate},
		{"RTP", "\x80\x00\x12\x34" + strings.Repeat("\x00", 160), ErrTruncated},
	}
	covered := map[Fault]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Scan([]byte(tt.msg)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			compare(t, []byte(tt.msg))
		})
		covered[tt.want] = true
	}
	for f := Fault(1); f < Faults; f++ {
		if !covered[f] || f.Error() == Faults.Error() {
			t.Errorf("fault %d: no test, or no text", f)
		}
	}
}

func TestContacts(t *testing.T) {
	got := []slowContact{}
	m, err := Scan([]byte(with(
		`Contact: "Doe, Jane; expires=5" <sip:1@h;a=b>;q=0.5;EXPIRES = 60 , sip:2@h;expires=0`,
		"X: y",
		"m: <sip:3@h,4>;expires=soon,\r\n <sip:5@h>;expires=\"7\"",
		"Contact: , <> \"x,<sip:y@h>;\", <sip:6@h>;x=\",\";expires=4294967295;expires=1",
		"Expires: 1800",
		"Expires: 5",
	)))
	if err != nil {
		t.Fatal(err)
	}
	for c := range m.Contacts {
		got = append(got, slowContact{string(c.URI), c.Expires})
	}
	want := []slowContact{
		{"sip:1@h;a=b", 60},
		{"sip:2@h", 0},
		{"sip:3@h,4", badExpires},
		{"sip:5@h", badExpires},
		{"sip:6@h", 4294967295},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if m.Expires != 1800 || string(m.Contact) != "sip:1@h;a=b" {
		t.Errorf("got Expires %d, Contact %q", m.Expires, m.Contact)
	}
	for c := range m.Contacts {
		if string(ParseURI(c.URI).User) == "2" {
			break // must not panic
		}
	}
}

func TestKindOf(t *testing.T) {
	stun := "\x00\x01\x00\x04\x21\x12\xa4\x42abcdefghijkl\x80\x28\x00\x00"
	tests := []struct {
		name, b string
		want    Kind
	}{
		{"empty", "", KeepAlive},
		{"CRLF", "\r\n", KeepAlive},
		{"CRLF CRLF", "\r\n\r\n", KeepAlive},
		{"four zeros", "\x00\x00\x00\x00", KeepAlive},
		{"six bytes of line ends", "\r\n\r\n\r\n", Other},
		{"STUN", stun, STUN},
		{"STUN response", "\x01\x01" + stun[2:], STUN},
		{"STUN, wrong length", stun + "\x00\x00\x00\x00", Other},
		{"STUN, cut", stun[:19], Other},
		{"STUN of RFC 3489", "\x00\x01\x00\x00abcdefghijklmnop", STUN},
		{"no cookie, other method", "\x00\x03\x00\x00abcdefghijklmnop", Other},
		{"request", plain, SIP},
		{"response", "SIP/2.0 200 OK\r\n", SIP},
		{"request after line ends", "\r\n\r\n" + plain, SIP},
		{"RTP", "\x80\x00\x12\x34\x00\x00\x00\x00", Other},
		{"DTLS", "\x16\xfe\xfd\x00\x00\x00\x00", Other},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := KindOf([]byte(tt.b)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := TransactionID([]byte(stun)); string(got[4:]) != "abcdefghijkl" {
		t.Errorf("transaction: got %q", got)
	}
	if got := TransactionID([]byte(stun[:19])); got != (ID{}) {
		t.Errorf("transaction of a cut message: got %q", got)
	}
}

// TestScanBounded gives Scan 64 kB of whatever could make it slow. Work that grows with the square
// would take seconds; the limit is a hundred times what it takes.
func TestScanBounded(t *testing.T) {
	const size = 64_000
	const bound = 100 * time.Millisecond
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for _, value := range []string{
		";", ",", "<", `"`, `\"`, `"\`, "a;", "a,", "<>,", ";a=", ";a=\"", "\r\n ", " ", "=", ";expires=1,", "\r\nm: x",
		"\r\nv: x", "\r\nx", ":", "@", "sip:",
	} {
		for _, name := range []string{"Via: SIP/2.0/UDP h", "Contact: ", "From: ", "To: x", "Call-ID: ", "X", "CSeq: 1 "} {
			b := []byte(with(name + fill(value)))
			if best := fastest(b, 3, bound); best > bound {
				t.Errorf("%q and 64 kB of %q: %v", name, value, best)
			}
		}
	}
}

// fastest returns how long a Scan of b takes with all Contacts: the best of some tries, or the first
// that is good enough.
func fastest(b []byte, tries int, enough time.Duration) time.Duration {
	best := time.Hour
	for range tries {
		start := time.Now()
		if m, err := Scan(b); err == nil {
			for range m.Contacts {
				continue
			}
		}
		if best = min(best, time.Since(start)); best < enough {
			break
		}
	}
	return best
}

// compare runs Scan and its slow twin on b.
func compare(t *testing.T, b []byte) {
	t.Helper()
	m, err := Scan(b)
	want, fault := slowScan(b)
	if err == nil && fault != 0 || err != nil && err != fault {
		t.Fatalf("%q: got error %v, twin has %v", b, err, fault)
	}
	if err != nil {
		return
	}
	if got := fast(&m); !reflect.DeepEqual(got, want) {
		t.Fatalf("%q:\ngot  %+v\ntwin %+v", b, got, want)
	}
	for _, raw := range [][]byte{m.URI, m.From.URI, m.To.URI, m.Contact} {
		u := ParseURI(raw)
		user, host, params := slowURI(string(u.Raw))
		if string(u.User) != user || string(u.Host) != host || string(u.Params) != params {
			t.Fatalf("%q: got %q %q %q, twin has %q %q %q", u.Raw, u.User, u.Host, u.Params, user, host, params)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(with("m: *", "Expires: 0")))
	f.Add([]byte(with(`Contact: "a,b" <sip:1@h>;expires=1 x, tel:2;expires`, "t: x;tag=\"\\\"")))
	f.Add([]byte("SIP/2.0 200 OK\nv:SIP / 2.0 / UDP\n h ; branch = z\ni:c\nf:a;tag=1\nt:b;tag=2\ncseq:1\n X\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		compare(t, b)
		_ = KindOf(b)
		_ = TransactionID(b)
	})
}
