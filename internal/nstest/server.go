//go:build linux

package nstest

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
)

// Server is a recording server: it remembers who called. Its methods are safe
// for concurrent use. It ends with its test.
type Server struct {
	Addr netip.AddrPort // where it listens

	mu    sync.Mutex
	peers []netip.AddrPort
	conns map[net.Conn]struct{}
	all   sync.WaitGroup
}

// Peers are the addresses that called, in order: one for each TCP connection,
// one for each UDP datagram.
func (s *Server) Peers() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]netip.AddrPort(nil), s.peers...)
}

// Sources counts the calls by address.
func (s *Server) Sources() map[netip.Addr]int {
	m := make(map[netip.Addr]int)
	for _, p := range s.Peers() {
		m[p.Addr()]++
	}
	return m
}

// Forget drops the peers seen so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = nil
}

func (s *Server) saw(peer net.Addr) netip.AddrPort {
	p := unmapped(peer)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = append(s.peers, p)
	return p
}

// unmapped is the address of a TCP or UDP socket; other kinds are a mistake in
// the test.
func unmapped(a net.Addr) netip.AddrPort {
	p := a.(interface{ AddrPort() netip.AddrPort }).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// family is "4" or "6", what the address is of: a wildcard of one family does
// not listen for the other, as net.Listen would have it.
func family(address string) string {
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Is4() {
		return "4"
	}
	return "6"
}

// ServeTCP listens on a literal address and calls handle in a goroutine for
// each connection, which is closed when handle returns and when the test ends.
func (n *Namespace) ServeTCP(t testing.TB, address string, handle func(*net.TCPConn)) *Server {
	t.Helper()
	l, err := n.Listen("tcp"+family(address), address)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	s := &Server{Addr: unmapped(l.Addr()), conns: make(map[net.Conn]struct{})}
	s.all.Add(1)
	go s.accept(l, handle)
	t.Cleanup(func() {
		_ = l.Close() // a test may have closed it
		s.closeAll()
		s.all.Wait()
	})
	return s
}

func (s *Server) accept(l net.Listener, handle func(*net.TCPConn)) {
	defer s.all.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.saw(c.RemoteAddr())
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.all.Add(1)
		go s.serve(c.(*net.TCPConn), handle)
	}
}

func (s *Server) serve(c *net.TCPConn, handle func(*net.TCPConn)) {
	defer s.all.Done()
	handle(c)
	_ = c.Close() // handle may have closed it
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close() // its handler sees the error
	}
}

// Live is the number of connections that are open.
func (s *Server) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// EchoTCP answers each connection with what it gets, and its end with an end.
func (n *Namespace) EchoTCP(t testing.TB, address string) *Server {
	t.Helper()
	return n.ServeTCP(t, address, func(c *net.TCPConn) {
		if _, err := io.Copy(c, c); err == nil {
			_ = c.CloseWrite() // a reset in between is the peer's affair
		}
	})
}

// GreetTCP tells each connection the address it came from, and a line end, and
// then echoes.
func (n *Namespace) GreetTCP(t testing.TB, address string) *Server {
	t.Helper()
	return n.ServeTCP(t, address, func(c *net.TCPConn) {
		if _, err := io.WriteString(c, unmapped(c.RemoteAddr()).Addr().String()+"\n"); err != nil {
			return
		}
		if _, err := io.Copy(c, c); err == nil {
			_ = c.CloseWrite() // as above
		}
	})
}

// ServeHTTP serves h; nil answers every request with the peer's address.
func (n *Namespace) ServeHTTP(t testing.TB, address string, h http.Handler) *Server {
	t.Helper()
	if h == nil {
		h = http.HandlerFunc(PeerAddress)
	}
	l, err := n.Listen("tcp"+family(address), address)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	s := &Server{Addr: unmapped(l.Addr())}
	srv := &http.Server{Handler: h, ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.saw(c.RemoteAddr())
		}
	}}
	s.all.Go(func() {
		_ = srv.Serve(l) // always ErrServerClosed or the closed listener
	})
	t.Cleanup(func() {
		_ = srv.Close() // closes what tests left open
		s.all.Wait()
	})
	return s
}

// PeerAddress is the handler whose body is the address that the request came
// from.
func PeerAddress(w http.ResponseWriter, r *http.Request) {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, p.Addr().Unmap().String()) // the client may be gone
}
