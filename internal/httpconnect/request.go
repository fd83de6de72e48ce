package httpconnect

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/hostname"
)

// maxPassword is how much of a password bcrypt counts. A longer one would be
// accepted by its beginning.
const maxPassword = 72

// requestLine reads method, request-target and version. What is wrong with
// their values is kept for the end of the header; the error is one of framing.
func (p *parser) requestLine(line []byte) error {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !isToken(method) || !ok || !isVersion(version) {
		return bad("not a request line of HTTP/1")
	}
	switch v := string(version); {
	case v != "HTTP/1.1" && v != "HTTP/1.0":
		p.fault = &Error{505, v + " is not spoken here"}
	case string(method) != "CONNECT":
		p.fault = &Error{405, "only CONNECT is served here"}
	default:
		p.fault = p.authority(string(target))
	}
	return nil
}

// isVersion tells whether b is an HTTP-version (RFC 9112 section 2.3).
func isVersion(b []byte) bool {
	return len(b) == len("HTTP/1.1") && bytes.HasPrefix(b, []byte("HTTP/")) &&
		isDigit(b[5]) && b[6] == '.' && isDigit(b[7])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// authority reads the authority-form of a request-target (RFC 9112 section
// 3.2.3): host ":" port, where an IPv6 address stands in brackets.
func (p *parser) authority(target string) *Error {
	colon := strings.LastIndexByte(target, ':')
	if colon < 0 {
		return bad("the destination has no port: want host:port")
	}
	port, ok := parsePort(target[colon+1:])
	if !ok {
		return bad("the destination's port is not a number from 1 to 65535")
	}
	host, fault := cutBrackets(target[:colon])
	if fault != nil {
		return fault
	}
	addr, name, err := hostname.Parse(host)
	switch {
	case err != nil:
		return bad("%v", err)
	case addr.IsUnspecified(): // RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2
		return bad("the unspecified address is no destination")
	}
	p.request.Addr, p.request.Name = netip.AddrPortFrom(addr, port), name
	return nil
}

// cutBrackets returns the IPv6 address inside brackets, or a host that needs
// none.
func cutBrackets(host string) (string, *Error) {
	inner, opened := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	colon := strings.Contains(inner, ":")
	switch {
	case opened && closed && colon:
		return inner, nil
	case opened || closed:
		return "", bad("brackets are for an IPv6 address")
	case colon:
		return "", bad("an IPv6 address stands in brackets, and a scheme, path or user in no destination")
	}
	return host, nil
}

// parsePort reads 1 to 65535 in decimal. A leading zero is refused: readers
// disagree on what it means.
func parsePort(s string) (uint16, bool) {
	if len(s) == 0 || len(s) > len("65535") || s[0] == '0' {
		return 0, false
	}
	port := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		port = 10*port + int(s[i]-'0')
	}
	return uint16(port), port <= 65535
}

// field reads one header field (RFC 9112 section 5).
func (p *parser) field(line []byte) error {
	if p.fields++; p.fields > MaxFields {
		return &Error{431, "more than 100 header fields"}
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(name) {
		return bad("header field %d is not a name and a colon", p.fields)
	}
	switch {
	case equalFold(name, "Host"):
		return once(&p.host, "Host")
	case equalFold(name, "Proxy-Authorization"):
		p.basic(string(bytes.Trim(value, " \t")))
		return once(&p.login, "Proxy-Authorization")
	}
	return nil
}

func equalFold(name []byte, s string) bool {
	return len(name) == len(s) && strings.EqualFold(string(name), s)
}

func once(seen *bool, name string) error {
	if *seen {
		return bad("%s stands twice", name)
	}
	*seen = true
	return nil
}

// basic reads credentials of the Basic scheme (RFC 7617 section 2). Those of
// another scheme, and what cannot be decoded, are no login.
func (p *parser) basic(credentials string) {
	scheme, token, _ := strings.Cut(credentials, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimLeft(token, " "))
	if err != nil {
		return
	}
	user, password, _ := strings.Cut(string(decoded), ":") // without a colon the password is empty
	r := &p.request
	r.User = user
	if isUsable(user) && isUsable(password) && len(password) <= maxPassword {
		r.HasLogin, r.Password = true, password
	}
}

// isUsable refuses what no users file can hold: an empty user or password, and
// control characters, which RFC 7617 section 2 forbids in both; NUL among
// them, at which bcrypt stops.
func isUsable(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}
