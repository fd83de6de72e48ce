package sip

import (
	"regexp"
	"strconv"
	"strings"
)

// slow is what slowScan finds: all as strings.
type slow struct {
	method, status, uri, branch, sentBy, callID string
	from, fromTag, to, toTag, seq, seqMethod    string
	expires                                     int64
	contacts                                    []slowContact
}

type slowContact struct {
	uri     string
	expires int64
}

const (
	space  = "[ \t\r\n]"
	token  = "[-.!%*_+`'~0-9A-Za-z]+"
	quotes = `"(?:\\.|[^"\\])*(?:"|\\?\z)`
)

var (
	statusLine = regexp.MustCompile(`(?s)^[sS][iI][pP]/2\.0 [ \t\r]*([1-6][0-9][0-9])(?: .*)?$`)
	anyStatus  = regexp.MustCompile(`(?s)^[sS][iI][pP]/2\.0(?: |$)`)
	request    = regexp.MustCompile(`(?s)^(` + token + `) (.*) [sS][iI][pP]/2\.0$`)
	viaValue   = regexp.MustCompile(`(?s)^` + space + `*` + token + space + `*/` + space + `*` + token + space + `*/` + space + `*` + token + `(` + space + `.*)$`)
	upToDelim  = regexp.MustCompile(`(?s)^(?:` + quotes + `|[^";,])*`)
	upToURI    = regexp.MustCompile(`(?s)^(?:` + quotes + `|[^";,<])*`)
	oneParam   = regexp.MustCompile(`(?s)^;` + space + `*([^ \t\r\n;,=]*)` + space + `*(=` + space + `*(` + quotes + `|[^ \t\r\n;,]*))?`)
	cseqValue  = regexp.MustCompile(`(?s)^([0-9]+)` + space + `+(.+)$`)
	sipURI     = regexp.MustCompile(`(?s)^[sS][iI][pP][sS]?:(?:([^@:]*)(?::[^@]*)?@)?([^;?]*)(;[^?]*)?(?:\?.*)?$`)
	telURI     = regexp.MustCompile(`(?s)^[tT][eE][lL]:([^;]*)(;.*)?$`)
)

var slowNames = map[string]string{
	"v": "via", "i": "call-id", "f": "from", "t": "to", "m": "contact",
	"via": "via", "call-id": "call-id", "from": "from", "to": "to", "contact": "contact", "cseq": "cseq", "expires": "expires",
}

// slowScan is Scan as one would write it without a thought for its speed.
func slowScan(b []byte) (m slow, fault Fault) {
	m.expires = NoExpires
	first, rest, ok := strings.Cut(strings.TrimLeft(string(b), "\r\n"), "\n")
	if !ok {
		return m, ErrTruncated
	}
	first = strings.Trim(first, " \t\r\n")
	if g := statusLine.FindStringSubmatch(first); g != nil {
		m.status = g[1]
	} else if g := request.FindStringSubmatch(first); g != nil && !anyStatus.MatchString(first) && slowTrim(g[2]) != "" {
		m.method, m.uri = g[1], slowTrim(g[2])
	} else {
		return m, ErrStartLine
	}
	seen := map[string]bool{}
	lines := strings.SplitAfter(rest, "\n")
	for i := 0; i < len(lines); {
		line := lines[i]
		if line == "\n" || line == "\r\n" || line == "" {
			break
		}
		i++
		for strings.HasSuffix(line, "\n") && i < len(lines) && (strings.HasPrefix(lines[i], " ") || strings.HasPrefix(lines[i], "\t")) {
			line += lines[i]
			i++
		}
		if !strings.HasSuffix(line, "\n") {
			return m, ErrTruncated
		}
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		name = slowNames[asciiLower(slowTrim(name))]
		if !ok || name == "" {
			continue
		}
		if fault := m.field(name, value, seen); fault != 0 {
			return m, fault
		}
	}
	for _, must := range []struct {
		name  string
		fault Fault
	}{{"via", ErrNoVia}, {"call-id", ErrNoCallID}, {"from", ErrNoFrom}, {"to", ErrNoTo}, {"cseq", ErrCSeq}} {
		if !seen[must.name] {
			return m, must.fault
		}
	}
	return m, 0
}

func (m *slow) field(name, value string, seen map[string]bool) Fault {
	again := seen[name]
	seen[name] = true
	if name == "contact" {
		m.contacts = append(m.contacts, slowContacts(value)...)
		return 0
	}
	if again {
		if name == "via" || name == "expires" {
			return 0
		}
		return ErrDuplicate
	}
	switch name {
	case "via":
		g := viaValue.FindStringSubmatch(value)
		if g == nil {
			return ErrNoVia
		}
		m.sentBy = slowTrim(upToDelim.FindString(g[1]))
		if m.sentBy == "" {
			return ErrNoVia
		}
		params, _ := slowParams(g[1][len(upToDelim.FindString(g[1])):])
		m.branch = params["branch"]
	case "call-id":
		if m.callID = slowTrim(value); m.callID == "" {
			return ErrNoCallID
		}
	case "from", "to":
		uri, rest := slowNameAddr(value)
		params, _ := slowParams(rest)
		if name == "from" {
			m.from, m.fromTag = uri, params["tag"]
		} else {
			m.to, m.toTag = uri, params["tag"]
		}
	case "cseq":
		g := cseqValue.FindStringSubmatch(slowTrim(value))
		if g == nil {
			return ErrCSeq
		}
		n, err := strconv.ParseUint(g[1], 10, 32)
		if err != nil {
			return ErrCSeq
		}
		m.seq, m.seqMethod = strconv.FormatUint(n, 10), g[2]
	case "expires":
		m.expires = slowSeconds(slowTrim(value))
	}
	return 0
}

func slowContacts(value string) (cs []slowContact) {
	for {
		uri, rest := slowNameAddr(value)
		params, rest := slowParams(rest)
		c := slowContact{uri, NoExpires}
		if v, ok := params["expires"]; ok && v != "\x00" {
			c.expires = slowSeconds(v)
		}
		if uri != "" {
			cs = append(cs, c)
		}
		if rest == "" {
			return cs
		}
		value = rest[1:]
	}
}

// slowParams returns the parameters by their names in lower case, the first of each, and what follows.
func slowParams(s string) (map[string]string, string) {
	params := map[string]string{}
	for strings.HasPrefix(s, ";") {
		g := oneParam.FindStringSubmatch(s)
		name := asciiLower(g[1])
		if _, ok := params[name]; !ok {
			params[name] = g[3]
			if g[2] == "" && name == "expires" {
				params[name] = "\x00" // named without a value
			}
		}
		s = s[len(g[0]):]
		s = s[len(upToDelim.FindString(s)):]
	}
	return params, s
}

func slowNameAddr(s string) (uri, rest string) {
	s = strings.TrimLeft(s, " \t\r\n")
	before := upToURI.FindString(s)
	s = s[len(before):]
	if !strings.HasPrefix(s, "<") {
		return slowTrim(before), s
	}
	uri, rest, _ = strings.Cut(s[1:], ">")
	return slowTrim(uri), rest[len(upToDelim.FindString(rest)):]
}

func slowURI(s string) (user, host, params string) {
	if g := telURI.FindStringSubmatch(s); g != nil {
		return g[1], "", g[2]
	}
	if g := sipURI.FindStringSubmatch(s); g != nil {
		return g[1], g[2], g[3]
	}
	return "", "", ""
}

func slowSeconds(s string) int64 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return badExpires
	}
	return int64(n)
}

func slowTrim(s string) string { return strings.Trim(s, " \t\r\n") }

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// fast returns what Scan has found in the form of slowScan.
func fast(m *Message) slow {
	s := slow{
		method: string(m.Method), uri: string(m.URI), branch: string(m.Branch), sentBy: string(m.SentBy),
		callID: string(m.CallID), from: string(m.From.URI), fromTag: string(m.From.Tag), to: string(m.To.URI),
		toTag: string(m.To.Tag), seq: strconv.FormatUint(uint64(m.CSeq), 10), seqMethod: string(m.CSeqMethod), expires: m.Expires,
	}
	if m.Status != 0 {
		s.status = strconv.Itoa(m.Status)
	}
	for c := range m.Contacts {
		s.contacts = append(s.contacts, slowContact{string(c.URI), c.Expires})
	}
	return s
}
