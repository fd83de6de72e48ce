package egress_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

// asked is a query that came to a nameServer.
type asked struct {
	network string // "udp" or "tcp"
	dnsmessage.Message
	peer netip.AddrPort
	conn net.PacketConn // of UDP
}

func (a *asked) name() string { return strings.TrimSuffix(a.Questions[0].Name.String(), ".") }

// nameServer is a name server on loopback, by UDP and TCP.
type nameServer struct {
	addr netip.AddrPort

	mu     sync.Mutex
	answer func(q *asked) *dnsmessage.Message // nil: no answer
	got    []asked
}

// serveNames starts one that answers with what answer returns.
func serveNames(t testing.TB, answer func(q *asked) *dnsmessage.Message) *nameServer {
	t.Helper()
	s := &nameServer{answer: answer}
	l, u := listenBoth(t)
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	var all sync.WaitGroup
	all.Go(func() { s.serveUDP(u) })
	all.Go(func() { s.serveTCP(l, &all) })
	t.Cleanup(func() {
		l.Close()
		u.Close()
		all.Wait()
	})
	return s
}

// listenBoth listens on one port by TCP and UDP.
func listenBoth(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.53:0")
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, u
		}
		l.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

func (s *nameServer) serveUDP(u net.PacketConn) {
	b := make([]byte, 4096)
	for {
		n, peer, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		q := &asked{network: "udp", peer: peer.(*net.UDPAddr).AddrPort(), conn: u}
		if m := s.reply(q, b[:n]); m != nil {
			u.WriteTo(m, peer)
		}
	}
}

func (s *nameServer) serveTCP(l net.Listener, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			b := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if m := s.reply(&asked{network: "tcp"}, b); m != nil {
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
			}
		})
	}
}

func (s *nameServer) reply(q *asked, b []byte) []byte {
	if q.Unpack(b) != nil {
		return nil
	}
	s.mu.Lock()
	s.got = append(s.got, *q)
	answer := s.answer
	s.mu.Unlock()
	m := answer(q)
	if m == nil {
		return nil
	}
	packed, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return packed
}

// all returns what came.
func (s *nameServer) all() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// queries returns what came, as "udp A name", sorted.
func (s *nameServer) queries() []string {
	var out []string
	for _, q := range s.all() {
		out = append(out, q.network+" "+strings.TrimPrefix(q.Questions[0].Type.String(), "Type")+" "+q.name())
	}
	slices.Sort(out)
	return out
}

// reply is an answer to q with these records.
func reply(q *asked, records ...dnsmessage.Resource) *dnsmessage.Message {
	return &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true},
		Questions: q.Questions,
		Answers:   records,
	}
}

// code is an answer to q without records.
func code(q *asked, c dnsmessage.RCode) *dnsmessage.Message {
	m := reply(q)
	m.RCode = c
	return m
}

func header(name string, ttl uint32) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name + "."), Class: dnsmessage.ClassINET, TTL: ttl}
}

func record(name string, ttl uint32, addr string) dnsmessage.Resource {
	a := netip.MustParseAddr(addr)
	if a.Is4() {
		return dnsmessage.Resource{Header: header(name, ttl), Body: &dnsmessage.AResource{A: a.As4()}}
	}
	return dnsmessage.Resource{Header: header(name, ttl), Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}
}

func cname(name string, ttl uint32, target string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(name, ttl), Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target + ".")}}
}

func soa(zone string, ttl, least uint32) dnsmessage.Resource {
	name := dnsmessage.MustNewName(zone + ".")
	return dnsmessage.Resource{Header: header(zone, ttl), Body: &dnsmessage.SOAResource{NS: name, MBox: name, MinTTL: least}}
}

// zone answers from the addresses of names, and that there is no other.
func zone(ttl uint32, names map[string][]string) func(*asked) *dnsmessage.Message {
	return func(q *asked) *dnsmessage.Message {
		addrs, known := names[q.name()]
		if !known {
			return code(q, dnsmessage.RCodeNameError)
		}
		var records []dnsmessage.Resource
		for _, a := range addrs {
			is4 := netip.MustParseAddr(a).Is4()
			if is4 == (q.Questions[0].Type == dnsmessage.TypeA) {
				records = append(records, record(q.name(), ttl, a))
			}
		}
		return reply(q, records...)
	}
}

// newResolver returns one that asks the servers, with empty system files.
func newResolver(t testing.TB, dns egress.DNS, servers ...*nameServer) *egress.Resolver {
	t.Helper()
	for _, s := range servers {
		dns.Servers = append(dns.Servers, s.addr)
	}
	if dns.HostsFile == "" {
		dns.HostsFile = writeFile(t, "hosts", "")
	}
	if dns.Timeout == 0 {
		dns.Timeout = 5 * time.Second
	}
	return egress.NewResolver(&dialer.Dialer{}, dns, nil)
}

// writeFile returns the path of a new file.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantAddrs looks a name up and fails unless these are its addresses, in any order.
func wantAddrs(t *testing.T, r *egress.Resolver, network, name string, want ...string) {
	t.Helper()
	addrs, err := r.LookupNetIP(t.Context(), network, name)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range addrs {
		got = append(got, a.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", name, got, want)
	}
}

// wantFailure looks a name up and returns why that fails.
func wantFailure(t *testing.T, r *egress.Resolver, name string) *net.DNSError {
	t.Helper()
	addrs, err := r.LookupNetIP(t.Context(), "ip", name)
	var de *net.DNSError
	if !errors.As(err, &de) {
		t.Fatalf("%s: got %v, %v, want a *net.DNSError", name, addrs, err)
	}
	if de.Name != name {
		t.Errorf("the error is about %q, want %q", de.Name, name)
	}
	return de
}

// wantQueries fails unless the server has got these queries and no other.
func (s *nameServer) wantQueries(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := s.queries(); !slices.Equal(got, want) {
		t.Errorf("the server got %q, want %q", got, want)
	}
}
