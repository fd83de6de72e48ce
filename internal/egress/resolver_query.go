package egress

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
)

// Sizes of messages.
const (
	// ednsSize is the largest answer by UDP that is asked for: what passes without
	// fragments nearly everywhere (https://www.dnsflagday.net/2020/).
	ednsSize = 1232
	maxUDP   = 4096 // and what is read, should a server not care
)

// query is one question on its way to one server.
type query struct {
	question
	id      uint16
	message []byte
}

// newQuery makes the message. The id is random; so is the local port, since each query
// has a socket of its own. Together they are what a forged answer has to guess (RFC 5452).
func newQuery(q question, edns bool) (*query, error) {
	var id [2]byte
	_, _ = rand.Read(id[:]) // it never fails
	out := &query{question: q, id: binary.BigEndian.Uint16(id[:])}
	name, err := dnsmessage.NewName(q.name + ".")
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: out.id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}},
	}
	if edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(ednsSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	out.message, err = m.Pack()
	return out, err
}

// answeredBy reports whether b is an answer to q, and its header. A server that could
// not read the question may leave it out.
func (q *query) answeredBy(b []byte) (dnsmessage.Header, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.ID != q.id || !h.Response {
		return h, false
	}
	asked, err := p.Question()
	if err != nil {
		return h, errors.Is(err, dnsmessage.ErrSectionDone) && h.RCode == dnsmessage.RCodeFormatError
	}
	return h, asked.Type == q.kind && asked.Class == dnsmessage.ClassINET && strings.EqualFold(asked.Name.String(), q.name+".")
}

// exchange asks one server, and again by TCP where the answer was cut off.
func (u *upstream) exchange(ctx context.Context, server netip.AddrPort, question question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	q, err := newQuery(question, true)
	if err != nil {
		return answer{}, err
	}
	b, h, err := u.roundTrip(ctx, "udp", server, q)
	if err == nil && h.RCode == dnsmessage.RCodeFormatError { // it knows no EDNS, RFC 6891 section 7
		if q, err = newQuery(question, false); err != nil {
			return answer{}, err
		}
		b, h, err = u.roundTrip(ctx, "udp", server, q)
	}
	if err == nil && h.Truncated {
		b, _, err = u.roundTrip(ctx, "tcp", server, q)
	}
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(b, question)
}

// roundTrip sends q and returns the message that answers it.
func (u *upstream) roundTrip(ctx context.Context, network string, server netip.AddrPort, q *query) ([]byte, dnsmessage.Header, error) {
	c, err := u.dial(ctx, network, server)
	if err != nil {
		return nil, dnsmessage.Header{}, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, dnsmessage.Header{}, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // a closed one has ended
	defer stop()
	if network == "tcp" {
		return q.overTCP(c)
	}
	return q.overUDP(c)
}

// dial connects to a server, a UDP socket as well: so the kernel drops what comes from
// anywhere else.
func (u *upstream) dial(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	if server.Addr().IsLoopback() {
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}
	c, _, err := u.dialer.DialFlow(ctx, dialer.Flow{Network: network, Dst: server})
	return c, err
}

// overUDP reads until an answer fits: what does not may be forged, and the true one
// comes yet.
func (q *query) overUDP(c net.Conn) ([]byte, dnsmessage.Header, error) {
	if _, err := c.Write(q.message); err != nil {
		return nil, dnsmessage.Header{}, err
	}
	b := make([]byte, maxUDP)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, dnsmessage.Header{}, err
		}
		if h, ok := q.answeredBy(b[:n]); ok {
			return b[:n], h, nil
		}
	}
}

// overTCP sends and reads one message behind its length (RFC 1035 section 4.2.2).
func (q *query) overTCP(c net.Conn) ([]byte, dnsmessage.Header, error) {
	var none dnsmessage.Header
	out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(q.message)), uint16(len(q.message)))
	if _, err := c.Write(append(out, q.message...)); err != nil {
		return nil, none, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, none, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, none, err
	}
	h, ok := q.answeredBy(b)
	if !ok {
		return nil, none, errors.New("the answer is to another question")
	}
	return b, h, nil
}

// isTimeout reports whether a server did not answer in time.
func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}
