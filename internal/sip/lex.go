package sip

import "bytes"

// isSpace reports whether c is part of linear white space. Line ends count: within a field
// they can only be those of a folded line.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// isToken reports whether c may stand in a token (RFC 3261 section 25.1).
func isToken(c byte) bool {
	switch {
	case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '-', '.', '!', '%', '*', '_', '+', '`', '\'', '~':
		return true
	}
	return false
}

// skipLineEnds leaves out the line ends before a start line (RFC 3261 section 7.5).
func skipLineEnds(b []byte) []byte {
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// skipSpace leaves out leading white space.
func skipSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	return b
}

// trim leaves out white space on both sides.
func trim(b []byte) []byte {
	b = skipSpace(b)
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// until returns the length of the part of b before the first white space, ';', ',' or '='.
func until(b []byte) int {
	for i, c := range b {
		if isSpace(c) || c == ';' || c == ',' || c == '=' {
			return i
		}
	}
	return len(b)
}

// value returns the length of the part of b before the first white space, ';' or ','.
func value(b []byte) int {
	for i, c := range b {
		if isSpace(c) || c == ';' || c == ',' {
			return i
		}
	}
	return len(b)
}

// quoted returns the length of the quoted string at the start of b, with its quotes.
// One that does not end takes all of b.
func quoted(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// param takes the next parameter off b, which begins at its ';'. It ends before the next ';' or ','
// outside of quotes; what stands between the value and that end is ignored.
func param(b []byte) (name, val, rest []byte) {
	b = skipSpace(b[1:])
	n := until(b)
	name, b = b[:n], skipSpace(b[n:])
	if len(b) > 0 && b[0] == '=' {
		b = skipSpace(b[1:])
		if len(b) > 0 && b[0] == '"' {
			n = quoted(b)
		} else {
			n = value(b)
		}
		val, b = b[:n], b[n:]
	}
	return name, val, b[delimiter(b):]
}

// delimiter returns the length of the part of b before the first ';' or ',' outside of quotes.
func delimiter(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case ';', ',':
			return i
		case '"':
			i += quoted(b[i:]) - 1
		}
	}
	return len(b)
}

// paramOf looks in the parameters at the start of b for one of that name, the first if there are
// several, and returns what follows the parameters: nothing, or a ',' and the next value.
func paramOf(b []byte, name string) (val, rest []byte) {
	found := false
	for len(b) > 0 && b[0] == ';' {
		var n, v []byte
		n, v, b = param(b)
		if !found && fold(n, name) {
			found, val = true, v
		}
	}
	return val, b
}

// fold reports whether b is the lower-case ASCII word, in any case.
func fold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i := range b {
		if lower(b[i]) != word[i] {
			return false
		}
	}
	return true
}

// lower returns c in lower case, if it is an ASCII letter.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// nameAddr takes the address off b, which is a name-addr ("name" <uri>) or an addr-spec (uri), and
// returns the rest from the first ';' or ',' after it.
func nameAddr(b []byte) (uri, rest []byte) {
	b = skipSpace(b)
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += quoted(b[i:]) - 1
		case ';', ',':
			return trim(b[:i]), b[i:]
		case '<':
			b = b[i+1:]
			end := bytes.IndexByte(b, '>')
			if end < 0 {
				return trim(b), nil
			}
			rest = b[end+1:]
			return trim(b[:end]), rest[delimiter(rest):]
		}
	}
	return trim(b), nil
}

// number reads decimal digits and nothing else. The second result is false for
// anything else and for what does not fit.
func number(b []byte) (n uint32, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := uint32(c - '0')
		if c < '0' || c > '9' || n > (1<<32-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}
