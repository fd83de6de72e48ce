package httpconnect

import (
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// maxText bounds the body of a response in bytes.
const maxText = 1024

// Realm is the realm that a 407 asks a login for.
const Realm = "srcproxy"

// AppendResponse appends a response and returns the longer slice. A 2xx opens
// the tunnel: it has no content, and neither Content-Length nor
// Transfer-Encoding (RFC 9110 section 9.3.6); text is not used. Any other has
// text as its plain-text content, with control characters escaped and cut at
// 1 KiB, and says that the connection is closed. A 405 says what is allowed
// and a 407 which login is asked for. There is no Date: this package has no
// clock.
func AppendResponse(b []byte, status int, text string) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, phrase(status)...)
	b = append(b, "\r\n"...)
	if status/100 == 2 {
		return append(b, "\r\n"...)
	}
	switch status {
	case 405:
		b = append(b, "Allow: CONNECT\r\n"...)
	case 407:
		b = append(b, `Proxy-Authenticate: Basic realm="`+Realm+`", charset="UTF-8"`+"\r\n"...)
	}
	body := escape(text) + "\n"
	return fmt.Appendf(b, "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"+
		"Cache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// phrase returns the reason phrase of the statuses that a proxy here sends.
func phrase(status int) string {
	switch status {
	case 200:
		return "Connection established"
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 405:
		return "Method Not Allowed"
	case 407:
		return "Proxy Authentication Required"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Status"
}

// escape returns text as a terminal can show it, at most maxText bytes long.
func escape(text string) string {
	var out []byte
	for i, n := 0, 0; i < len(text); i += n {
		var r rune
		r, n = utf8.DecodeRuneInString(text[i:])
		was := len(out)
		out = appendEscaped(out, r, text[i:i+n])
		if len(out) > maxText {
			return string(out[:was])
		}
	}
	return string(out)
}

// appendEscaped appends s, the bytes of r.
func appendEscaped(b []byte, r rune, s string) []byte {
	switch {
	case r == utf8.RuneError && len(s) == 1:
		return fmt.Appendf(b, `\x%02x`, s[0])
	case r < ' ' || r == 0x7f:
		return fmt.Appendf(b, `\x%02x`, r)
	case !unicode.IsPrint(r):
		return fmt.Appendf(b, `\u%04x`, r)
	}
	return append(b, s...)
}
