package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of how long an answer is remembered, and of what is taken from it. What an
// answer says is moved into them.
const (
	minTTL      = time.Second // so that a burst of flows is one query
	maxTTL      = time.Hour
	maxNegative = 5 * time.Minute // RFC 2308 section 5
	maxAddrs    = 32              // as many as a dial tries
	maxChain    = 8               // queries for the names of one chain
)

// question is what a server is asked.
type question struct {
	name string // in lower case and without the last dot
	kind dnsmessage.Type
}

// answer is what became of a question: addresses, or why there are none.
type answer struct {
	addrs []netip.Addr
	next  string        // the alias at which the servers' answer ends: to be asked about
	err   error         // a *net.DNSError
	ttl   time.Duration // how long that holds; zero: not beyond those who wait for it
}

// Why an answer is of no use.
var (
	errLame   = errors.New("the server does not look names up")
	errCircle = errors.New("the aliases of the name form a circle")
)

// alias and owned are the records of one name.
type (
	alias struct {
		target string
		ttl    uint32
	}
	owned struct {
		addrs []netip.Addr
		ttl   uint32 // the shortest
	}
)

// records is what an answer has about the question.
type records struct {
	aliases map[string]alias
	addrs   map[string]owned
	soa     bool   // the answer says how long nothing is there
	nothing uint32 // for so many seconds
}

// parseAnswer reads an answer that fits the question. An error says that it is no use,
// and that another server may know better. Only the records of the name and its aliases
// count.
func parseAnswer(b []byte, q question) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil {
		return answer{}, err
	}
	if h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		return answer{}, rcodeError(h.RCode)
	}
	r, err := readRecords(&p, q.kind)
	if err != nil {
		return answer{}, err
	}
	name, ttl, err := r.follow(q.name)
	if err != nil {
		return answer{}, err
	}
	nothing := uint32(0)
	if r.soa {
		nothing = min(ttl, r.nothing)
	}
	found := r.addrs[name]
	switch {
	case h.RCode == dnsmessage.RCodeNameError:
		return answer{err: notFound(q.name, noSuchName), ttl: clamp(nothing, maxNegative)}, nil
	case len(found.addrs) > 0:
		return answer{addrs: found.addrs, ttl: max(clamp(min(ttl, found.ttl), maxTTL), minTTL)}, nil
	case r.soa:
		return answer{err: notFound(q.name, noAddress), ttl: clamp(nothing, maxNegative)}, nil
	case name != q.name:
		return answer{next: name, ttl: max(clamp(ttl, maxTTL), minTTL)}, nil
	case !h.RecursionAvailable && !h.Authoritative:
		return answer{}, errLame
	}
	return answer{err: notFound(q.name, noAddress)}, nil
}

// clamp returns seconds as a duration of at most longest. Zero stays: nothing that has
// no SOA is remembered (RFC 2308 section 5).
func clamp(seconds uint32, longest time.Duration) time.Duration {
	return min(time.Duration(seconds)*time.Second, longest)
}

// forever is the longest time that a record can have; one beyond it means none (RFC 2181
// section 8).
const forever = 1<<31 - 1

func ttlOf(h dnsmessage.ResourceHeader) uint32 {
	if h.TTL > forever {
		return 0
	}
	return h.TTL
}

// rcodeError says why a server has no answer.
func rcodeError(c dnsmessage.RCode) error {
	switch c {
	case dnsmessage.RCodeFormatError:
		return errors.New("the server does not understand the query (FORMERR)")
	case dnsmessage.RCodeServerFailure:
		return errors.New("the server failed (SERVFAIL)")
	case dnsmessage.RCodeRefused:
		return errors.New("the server refused to answer (REFUSED)")
	}
	return fmt.Errorf("the server answered with code %d", uint16(c))
}

// readRecords reads the sections behind the question.
func readRecords(p *dnsmessage.Parser, kind dnsmessage.Type) (*records, error) {
	r := &records{aliases: make(map[string]alias), addrs: make(map[string]owned)}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, err
	}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err == nil {
			err = r.answer(p, h, kind)
		}
		if err != nil {
			return nil, err
		}
	}
	return r, r.authority(p)
}

// answer takes one record of the answer section.
func (r *records) answer(p *dnsmessage.Parser, h dnsmessage.ResourceHeader, kind dnsmessage.Type) error {
	name := text(h.Name)
	switch {
	case h.Class != dnsmessage.ClassINET:
		return p.SkipAnswer()
	case h.Type == dnsmessage.TypeCNAME:
		c, err := p.CNAMEResource()
		r.aliases[name] = alias{text(c.CNAME), ttlOf(h)}
		return err
	case h.Type == kind && kind == dnsmessage.TypeA:
		a, err := p.AResource()
		r.add(name, netip.AddrFrom4(a.A), ttlOf(h))
		return err
	case h.Type == kind && kind == dnsmessage.TypeAAAA:
		a, err := p.AAAAResource()
		r.add(name, netip.AddrFrom16(a.AAAA), ttlOf(h))
		return err
	}
	return p.SkipAnswer()
}

func text(n dnsmessage.Name) string { return strings.ToLower(strings.TrimSuffix(n.String(), ".")) }

func (r *records) add(name string, a netip.Addr, ttl uint32) {
	o, known := r.addrs[name]
	if !known {
		o.ttl = ttl
	}
	o.ttl = min(o.ttl, ttl)
	if len(o.addrs) < maxAddrs && !slices.Contains(o.addrs, a) {
		o.addrs = append(o.addrs, a)
	}
	r.addrs[name] = o
}

// authority looks for the SOA record, which says for how long there is nothing: the
// shorter one of its own time and its MINIMUM (RFC 2308 section 5).
func (r *records) authority(p *dnsmessage.Parser) error {
	for {
		h, err := p.AuthorityHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type != dnsmessage.TypeSOA || h.Class != dnsmessage.ClassINET {
			if err := p.SkipAuthority(); err != nil {
				return err
			}
			continue
		}
		s, err := p.SOAResource()
		if err != nil {
			return err
		}
		r.soa, r.nothing = true, min(ttlOf(h), s.MinTTL)
	}
}

// follow goes from a name over its aliases to the last one, and returns how many
// seconds all of them hold.
func (r *records) follow(name string) (string, uint32, error) {
	ttl := uint32(forever)
	for range len(r.aliases) + 1 {
		a, ok := r.aliases[name]
		if !ok {
			return name, ttl, nil
		}
		name, ttl = a.target, min(ttl, a.ttl)
	}
	return "", 0, errCircle
}
