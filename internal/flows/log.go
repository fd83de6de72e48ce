package flows

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxText bounds a text in the log line: a name has at most 255 bytes, but an
// error may list every address that was tried.
const maxText = 2048

// log writes the one line of a flow, level info, message "flow":
//
//	client user listener dst name rule source src in out duration err
//
// Empty ones are left out; in and out stand in every line. As in the counters
// of an interface, in is what came from the destination and out is what was sent
// to it. A user's session follows the name as the client wrote it: name-session.
func (r *Registry) log(i *Info, start time.Time, in, out int64, err error, more ...slog.Attr) {
	if r.Log == nil || !r.logFlows.Load() || !r.Log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	a := make(attrs, 0, 12)
	a.addr("client", i.Client)
	a.text("user", login(i))
	a.text("listener", i.Listener)
	if r.logDestinations.Load() {
		a.addr("dst", i.Dst)
		a.text("name", i.Name)
	}
	a.text("rule", i.Rule)
	a.text("source", i.Source)
	a.addr("src", i.Src)
	a = append(a, slog.Int64("in", in), slog.Int64("out", out),
		slog.Duration("duration", time.Since(start).Round(time.Microsecond)))
	if err != nil {
		a.text("err", errText(i, err, r.logDestinations.Load()))
	}
	a = append(a, more...)
	r.Log.LogAttrs(context.Background(), slog.LevelInfo, "flow", a...)
}

func login(i *Info) string {
	if i.User == "" || i.Session == "" {
		return i.User
	}
	return i.User + "-" + i.Session
}

// attrs collects what is not empty.
type attrs []slog.Attr

func (a *attrs) text(key, s string) {
	if s != "" {
		*a = append(*a, slog.String(key, Clean(s)))
	}
}

func (a *attrs) addr(key string, p netip.AddrPort) {
	if p.Addr().IsValid() {
		*a = append(*a, slog.String(key, withPort(p)))
	}
}

// errText returns the text of err. Without destinations it is that of the
// innermost cause, as those around it tell where to; and what the cause itself
// says of the destination is struck out.
func errText(i *Info, err error, destinations bool) string {
	if destinations {
		return err.Error()
	}
	s := innermost(err)
	for _, secret := range []string{i.Name, i.Dst.Addr().String()} {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "-")
		}
	}
	return s
}

// innermost follows the first branch of err down to its end.
func innermost(err error) string {
	for {
		var inner error
		switch e := err.(type) { //nolint:errorlint // walks the chain itself
		case *net.DNSError:
			return e.Err // its Error says the name
		case *net.AddrError:
			return e.Err
		case interface{ Unwrap() []error }:
			if list := e.Unwrap(); len(list) > 0 {
				inner = list[0]
			}
		default:
			inner = errors.Unwrap(err)
		}
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// Clean keeps a text that others chose from leaving its line or steering a
// terminal. Handlers of log/slog escape the controls of ASCII; the JSON one
// passes DEL, the C1 controls and the ones that turn the direction of text. All
// are replaced here, so that no handler needs to be trusted.
func Clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	if !strings.ContainsFunc(s, unsafeRune) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, c := range s { // bytes that are no UTF-8 come as U+FFFD
		if unsafeRune(c) {
			c = escape(c)
		}
		b.WriteRune(c)
	}
	return b.String()
}

// unsafeRune reports whether a rune is a control, a format character, or a
// separator of lines or paragraphs.
func unsafeRune(c rune) bool {
	if c < utf8.RuneSelf {
		return c < ' ' || c == 0x7f
	}
	return unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// escape shows a control of ASCII by its picture (U+2400 ...), any other rune
// by the replacement character.
func escape(c rune) rune {
	switch {
	case c < ' ':
		return '\u2400' + c
	case c == 0x7f:
		return '\u2421'
	}
	return utf8.RuneError
}
