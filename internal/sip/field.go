package sip

// scan is the state of one Scan: which fields it has met.
type scan struct {
	seen [expires + 1]bool
}

// take reads a field into m and returns what is wrong with it, or 0.
func (s *scan) take(m *Message, f field, val []byte) Fault {
	again := s.seen[f]
	s.seen[f] = true
	switch {
	case again && (f == via || f == contact || f == expires): // the first one counts
		return 0
	case again:
		return ErrDuplicate
	}
	switch f {
	case via:
		return m.readVia(val)
	case callID:
		return m.readCallID(val)
	case from:
		m.From = readParty(val)
	case to:
		m.To = readParty(val)
	case cseq:
		return m.readCSeq(val)
	case contact:
		m.Contact, _ = nameAddr(val)
	case expires:
		m.Expires = seconds(trim(val))
	}
	return 0
}

// missing returns the fault of the first mandatory field that was not there, or 0.
func (s *scan) missing() Fault {
	switch {
	case !s.seen[via]:
		return ErrNoVia
	case !s.seen[callID]:
		return ErrNoCallID
	case !s.seen[from]:
		return ErrNoFrom
	case !s.seen[to]:
		return ErrNoTo
	case !s.seen[cseq]:
		return ErrCSeq
	}
	return 0
}

// readVia reads the first value of a Via field: SIP / 2.0 / transport sent-by ;params.
func (m *Message) readVia(b []byte) Fault {
	for part := range 3 {
		b = skipSpace(b)
		n := 0
		for n < len(b) && isToken(b[n]) {
			n++
		}
		if n == 0 {
			return ErrNoVia
		}
		b = b[n:]
		if part == 2 {
			break
		}
		if b = skipSpace(b); len(b) == 0 || b[0] != '/' {
			return ErrNoVia
		}
		b = b[1:]
	}
	if len(b) == 0 || !isSpace(b[0]) {
		return ErrNoVia
	}
	n := delimiter(b)
	m.SentBy = trim(b[:n])
	if len(m.SentBy) == 0 {
		return ErrNoVia
	}
	m.Branch, _ = paramOf(b[n:], "branch")
	return 0
}

// readCallID takes the whole value, which has no white space inside.
func (m *Message) readCallID(b []byte) Fault {
	m.CallID = trim(b)
	if len(m.CallID) == 0 {
		return ErrNoCallID
	}
	return 0
}

// readParty reads the value of a From or To field.
func readParty(b []byte) Party {
	uri, rest := nameAddr(b)
	tag, _ := paramOf(rest, "tag")
	return Party{URI: uri, Tag: tag}
}

// readCSeq reads a number and a method.
func (m *Message) readCSeq(b []byte) Fault {
	b = trim(b)
	n := 0
	for n < len(b) && !isSpace(b[n]) {
		n++
	}
	seq, ok := number(b[:n])
	method := skipSpace(b[n:])
	if !ok || len(method) == 0 {
		return ErrCSeq
	}
	m.CSeq, m.CSeqMethod = seq, method
	return 0
}

// seconds reads an expiry.
func seconds(b []byte) int64 {
	n, ok := number(b)
	if !ok {
		return badExpires
	}
	return int64(n)
}

// Contacts yields all values of all Contact fields, in their order. Each is read once more
// from the datagram; nothing is allocated.
func (m *Message) Contacts(yield func(Contact) bool) {
	rest := m.contacts
	for len(rest) > 0 && !isLineEnd(rest) {
		line, next, ok := nextField(rest)
		if !ok {
			return
		}
		rest = next
		f, val := split(line)
		if f == contact && !eachContact(val, yield) {
			return
		}
	}
}

// eachContact yields the values of one Contact field and reports whether to go on.
func eachContact(b []byte, yield func(Contact) bool) bool {
	for {
		uri, rest := nameAddr(b)
		val, rest := paramOf(rest, "expires")
		c := Contact{URI: uri, Expires: NoExpires}
		if val != nil {
			c.Expires = seconds(val)
		}
		if len(uri) > 0 && !yield(c) {
			return false
		}
		if len(rest) == 0 {
			return true
		}
		b = rest[1:] // after the comma
	}
}
