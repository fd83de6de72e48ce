package sip

import "bytes"

// URI is a sip, sips or tel URI, cut where a forwarder looks at it. All fields are
// parts of the bytes it was read from.
type URI struct {
	Raw    []byte // all of it
	User   []byte // of a sip URI, without a password; of a tel URI, the number
	Host   []byte // of a sip URI: host, and port if there is one
	Params []byte // what follows, from the ';', without headers
}

// ParseURI cuts a URI. A text without a scheme, or with a scheme other than sip, sips and tel,
// has only Raw. Nothing is refused, allocated or copied.
func ParseURI(b []byte) URI {
	u := URI{Raw: b}
	colon := bytes.IndexByte(b, ':')
	if colon < 0 {
		return u
	}
	scheme, b := b[:colon], b[colon+1:]
	switch {
	case fold(scheme, "tel"):
		u.User, u.Params = cut(b, ';')
		return u
	case !fold(scheme, "sip") && !fold(scheme, "sips"):
		return u
	}
	if at := bytes.IndexByte(b, '@'); at >= 0 { // a user part may have ';' and '?' in it
		user := b[:at]
		b = b[at+1:]
		u.User, _ = cut(user, ':')
	}
	b, _ = cut(b, '?')
	u.Host, u.Params = cut(b, ';')
	return u
}

// cut splits b before the first c. The second part is empty without one.
func cut(b []byte, c byte) (before, from []byte) {
	if i := bytes.IndexByte(b, c); i >= 0 {
		return b[:i], b[i:]
	}
	return b, nil
}
