package admin

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/srcproxy/srcproxy/internal/explain"
)

// A Question is asked of Service.Explain. What the flow lacks and its listener has, as
// the target of a forward, is not added.
type Question explain.Question

// query writes q as parseQuestion reads it.
func (q *Question) query() url.Values {
	f := &q.Flow
	v := make(url.Values)
	set := func(key, value string, given bool) {
		if given {
			v.Set(key, value)
		}
	}
	set("network", f.Network, true)
	set("name", f.Name, f.Name != "")
	set("address", f.Dst.Addr().String(), f.Dst.Addr().IsValid())
	set("port", strconv.Itoa(int(f.Dst.Port())), f.Dst.Port() != 0)
	set("client", f.Client.Addr().String(), f.Client.Addr().IsValid())
	set("user", f.User, f.User != "")
	set("session", f.Session, f.Session != "")
	set("listener", f.Listener, f.Listener != "")
	set("local_port", strconv.Itoa(int(f.LocalPort)), f.LocalPort != 0)
	set("dial", "true", q.Dial)
	return v
}

// parseQuestion reads the query of a URL: name or address, and where they matter
// network, port, client, user, session, listener, local_port and dial.
func parseQuestion(v url.Values) (*Question, error) {
	p := questionParser{values: v}
	var q Question
	f := &q.Flow
	f.Network = p.word("network", "tcp", "tcp", "udp")
	f.Name = v.Get("name")
	f.Dst = netip.AddrPortFrom(p.addr("address"), p.port("port"))
	f.Client = netip.AddrPortFrom(p.addr("client"), 0)
	f.User, f.Session, f.Listener = v.Get("user"), v.Get("session"), v.Get("listener")
	f.LocalPort = p.port("local_port")
	q.Dial = p.word("dial", "false", "true", "false") == "true"
	switch {
	case p.err != nil:
		return nil, p.err
	case (f.Name == "") == !f.Dst.Addr().IsValid():
		return nil, fmt.Errorf("want one of name and address")
	case q.Dial && f.Dst.Port() == 0:
		return nil, fmt.Errorf("dial needs a port")
	}
	return &q, nil
}

// questionParser keeps the first error.
type questionParser struct {
	values url.Values
	err    error
}

func (p *questionParser) fault(key, want string) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %q: want %s", key, p.values.Get(key), want)
	}
}

func (p *questionParser) word(key, otherwise string, words ...string) string {
	s := p.values.Get(key)
	if s == "" {
		return otherwise
	}
	if slices.Contains(words, s) {
		return s
	}
	p.fault(key, fmt.Sprintf("one of %q", words))
	return otherwise
}

func (p *questionParser) addr(key string) netip.Addr {
	s := p.values.Get(key)
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.fault(key, "an address")
	}
	return a.Unmap()
}

func (p *questionParser) port(key string) uint16 {
	s := p.values.Get(key)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		p.fault(key, "a port")
	}
	return uint16(n)
}
