package sip

import "bytes"

// Fault is the reason why Scan refuses a message. Faults are small and dense, so that an
// array of Faults counters can be indexed by them.
type Fault uint8

// The faults.
const (
	ErrStartLine Fault = iota + 1 // neither a request nor a status line of SIP/2.0
	ErrTruncated                  // the header ends inside a line
	ErrNoVia                      // no Via, or none that can be read
	ErrNoCallID                   // no Call-ID, or an empty one
	ErrNoFrom                     // no From
	ErrNoTo                       // no To
	ErrCSeq                       // no CSeq, or one that is not a 32-bit number and a method
	ErrDuplicate                  // a field that may stand only once stands twice
	Faults                        // one more than the last fault
)

// Error returns the reason in words.
func (f Fault) Error() string {
	switch f {
	case ErrStartLine:
		return "sip: bad start line"
	case ErrTruncated:
		return "sip: header cut off"
	case ErrNoVia:
		return "sip: no usable Via"
	case ErrNoCallID:
		return "sip: no Call-ID"
	case ErrNoFrom:
		return "sip: no From"
	case ErrNoTo:
		return "sip: no To"
	case ErrCSeq:
		return "sip: no usable CSeq"
	case ErrDuplicate:
		return "sip: field stands twice"
	}
	return "sip: unknown fault"
}

// Message is what a forwarder needs of a SIP request or response. All slices are parts
// of the datagram that was scanned and live as long as it does.
type Message struct {
	Method []byte // of a request; nil in a response
	Status int    // of a response, 100 to 699; 0 in a request
	URI    []byte // Request-URI

	Branch []byte // of the topmost Via; empty without one (RFC 2543)
	SentBy []byte // of the topmost Via, as written

	CallID     []byte
	From, To   Party
	CSeq       uint32
	CSeqMethod []byte

	Contact []byte // the address of the first one; "*" in a REGISTER that removes all
	Expires int64  // seconds; NoExpires without the field

	contacts []byte // the header from the first Contact on
}

// Party is the address and the tag of a From or To field.
type Party struct {
	URI []byte
	Tag []byte // empty without one
}

// Contact is one value of the Contact fields.
type Contact struct {
	URI     []byte
	Expires int64 // seconds, from the parameter; NoExpires without one
}

// NoExpires stands for an expiry that a message does not give.
const NoExpires = -1

// badExpires is what a malformed expiry means (RFC 3261 section 10.3), and the
// default where none is given.
const badExpires = 3600

// field is a header field that Scan reads.
type field uint8

const (
	other field = iota
	via
	callID
	from
	to
	cseq
	contact
	expires
)

// Scan reads the header of a SIP message of any size. It needs a start line,
// Via, Call-ID, From, To and CSeq, all of them valid as far as they are read here, and takes
// the rest as it is: any case, compact names, folded lines, bare LF as line ends, and no
// empty line if the datagram ends with a line end. An error is always a Fault.
//
// The work is linear in the size of the header, and nothing is allocated or copied.
func Scan(b []byte) (Message, error) {
	m := Message{Expires: NoExpires}
	line, rest, ok := nextLine(skipLineEnds(b))
	if !ok {
		return m, ErrTruncated
	}
	if !m.startLine(line) {
		return m, ErrStartLine
	}
	var s scan
	for len(rest) > 0 && !isLineEnd(rest) {
		start := rest
		if line, rest, ok = nextField(rest); !ok {
			return m, ErrTruncated
		}
		f, val := split(line)
		if f == other {
			continue
		}
		if f == contact && m.contacts == nil {
			m.contacts = start
		}
		if fault := s.take(&m, f, val); fault != 0 {
			return m, fault
		}
	}
	if fault := s.missing(); fault != 0 {
		return m, fault
	}
	return m, nil
}

// split cuts a line into its field and value. Most of those that do not count are known by
// their first byte.
func split(line []byte) (field, []byte) {
	if len(line) == 0 {
		return other, nil
	}
	switch lower(line[0]) {
	case 'v', 'i', 'f', 't', 'm', 'c', 'e', ' ', '\t', '\r':
	default:
		return other, nil
	}
	before, after, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return other, nil
	}
	return fieldOf(trim(before)), after
}

// nextLine takes a line off b, without its LF.
func nextLine(b []byte) (line, rest []byte, ok bool) {
	line, rest, ok = bytes.Cut(b, []byte{'\n'})
	if !ok {
		return nil, nil, false
	}
	return line, rest, true
}

// nextField takes a line and the lines that continue it off b.
func nextField(b []byte) (line, rest []byte, ok bool) {
	end := 0
	for {
		n := bytes.IndexByte(b[end:], '\n')
		if n < 0 {
			return nil, nil, false
		}
		end += n + 1
		if end == len(b) || b[end] != ' ' && b[end] != '\t' {
			return b[:end-1], b[end:], true
		}
	}
}

// isLineEnd reports whether b begins with the empty line after the header.
func isLineEnd(b []byte) bool {
	return b[0] == '\n' || b[0] == '\r' && len(b) > 1 && b[1] == '\n'
}

// startLine reads the Request-Line or Status-Line.
func (m *Message) startLine(line []byte) bool {
	line = trim(line)
	first, rest := cut(line, ' ')
	if fold(first, "sip/2.0") {
		return m.statusLine(rest)
	}
	sp := bytes.LastIndexByte(rest, ' ')
	if sp < 0 || !fold(rest[sp+1:], "sip/2.0") || len(first) == 0 {
		return false
	}
	for _, c := range first {
		if !isToken(c) {
			return false
		}
	}
	uri := trim(rest[:sp])
	m.Method, m.URI = first, uri
	return len(uri) > 0
}

// statusLine reads what follows the version: three digits and any reason.
func (m *Message) statusLine(b []byte) bool {
	code, _ := cut(skipSpace(b), ' ')
	n, ok := number(code)
	if !ok || len(code) != 3 || n < 100 || n > 699 {
		return false
	}
	m.Status = int(n)
	return true
}

// fieldOf returns the field with that name, in its long or compact form.
func fieldOf(name []byte) field {
	switch len(name) {
	case 1:
		return compact(lower(name[0]))
	case 2:
		if fold(name, "to") {
			return to
		}
	case 3:
		if fold(name, "via") {
			return via
		}
	case 4:
		if fold(name, "from") {
			return from
		}
		if fold(name, "cseq") {
			return cseq
		}
	case 7:
		if fold(name, "call-id") {
			return callID
		}
		if fold(name, "contact") {
			return contact
		}
		if fold(name, "expires") {
			return expires
		}
	}
	return other
}

// compact returns the field with that compact name (RFC 3261 section 7.3.3).
func compact(c byte) field {
	switch c {
	case 'v':
		return via
	case 'i':
		return callID
	case 'f':
		return from
	case 't':
		return to
	case 'm':
		return contact
	}
	return other
}
