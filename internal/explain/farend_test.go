package explain_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// farEnd is a topology whose server tells where each probe came from.
type farEnd struct {
	*nstest.Topology
	routes bool // the plan consists of routes
	mu     sync.Mutex
	seen   map[uint32]netip.AddrPort // by the number that a probe carries

	deadline time.Time // for all that is still on its way
}

var probePorts = []uint16{25, 80, 443, 588, 5060, 7000}

func newFarEnd(t *testing.T) *farEnd {
	t.Helper()
	f := &farEnd{Topology: nstest.NewTopology(t), seen: make(map[uint32]netip.AddrPort)}
	script(t, f.Server, `
ip route add local 198.18.0.0/15 dev lo
ip route add local 10.0.0.0/8 dev lo
ip -6 route add local 2001:db8:9::/48 dev lo
`)
	for _, any := range []string{"0.0.0.0", "[::]"} {
		for _, port := range probePorts {
			at := fmt.Sprintf("%s:%d", any, port)
			f.Server.ServeUDP(t, at, func(peer, _ netip.AddrPort, b []byte) []byte {
				f.saw(b, peer)
				return nil
			})
			f.Server.ServeTCP(t, at, func(c *net.TCPConn) {
				b := make([]byte, 4)
				if _, err := io.ReadFull(c, b); err == nil {
					f.saw(b, c.RemoteAddr().(*net.TCPAddr).AddrPort())
				}
			})
		}
	}
	return f
}

func (f *farEnd) saw(number []byte, peer netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[binary.BigEndian.Uint32(number)] = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// probe is one flow.
type probe struct {
	flow   dialer.Flow
	number uint32
	err    error
}

// compare sends random flows and judges where they came from.
func (f *farEnd) compare(t *testing.T, table *dialer.Table, r *rand.Rand) {
	const udp, tcp = 300, 60
	probes := make([]*probe, udp+tcp)
	for i := range probes {
		p := &probe{number: uint32(i)}
		p.flow = dialer.Flow{Network: "udp", Dst: netip.AddrPortFrom(randomDestination(r), probePorts[r.IntN(len(probePorts))])}
		if i >= udp {
			p.flow.Network = "tcp"
		}
		if r.IntN(3) == 0 {
			p.flow.LocalPort = 5060 + uint16(i) // each once, so that none is a flow that exists
		}
		probes[i] = p
	}
	probes[0].flow = dialer.Flow{Network: "udp", Dst: netip.MustParseAddrPort("203.0.113.5:7000"), LocalPort: 5060}
	var wg sync.WaitGroup
	for _, p := range probes {
		if p.flow.Network == "tcp" {
			wg.Go(func() {
				p.err = f.Proxy.Do(func() error { return f.connect(p, table.Lookup(p.flow).Err != nil) })
			})
			continue
		}
		p.err = f.Proxy.Do(func() error { return send(p) })
	}
	wg.Wait()
	f.deadline = time.Now().Add(10 * time.Second)
	denied := 0
	for _, p := range probes {
		if table.Lookup(p.flow).Err != nil {
			denied++
		}
		f.judge(t, table, p)
	}
	if denied > len(probes)*9/10 {
		t.Errorf("%d of %d flows are denied: that tests little", denied, len(probes))
	}
}

// send sends the number of p in a datagram from a socket without an address.
func send(p *probe) error {
	c, err := net.ListenUDP("udp"+familyOf(p.flow.Dst.Addr()), &net.UDPAddr{Port: int(p.flow.LocalPort)})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, p.number), p.flow.Dst)
	return err
}

// connect sends it by TCP. A SYN that is dropped is sent again for a long time: a denied
// one is given up soon.
func (f *farEnd) connect(p *probe, denied bool) error {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{Port: int(p.flow.LocalPort)}}
	if denied {
		d.Timeout = 50 * time.Millisecond
	}
	c, err := d.Dial("tcp"+familyOf(p.flow.Dst.Addr()), p.flow.Dst.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(binary.BigEndian.AppendUint32(nil, p.number)); err != nil {
		return err
	}
	_, err = io.ReadAll(c) // until the server has read it
	return err
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// judge compares what the far end saw of p with what the table says.
func (f *farEnd) judge(t *testing.T, table *dialer.Table, p *probe) {
	t.Helper()
	d := table.Lookup(p.flow)
	from := sourcesOf(d.Use, p.flow.Dst.Addr().Is4())
	if f.routes && len(from) > 0 {
		from = from[:1] // of a pool the first member
	}
	// An interface has whatever address is there now: that is for the kernel to say.
	denied := d.Err != nil && !(d.Use.Source != nil && d.Use.Source.Interface != "")
	if f.routes && len(from) > 0 && from[0] == nstest.RoutedPrefix() {
		denied = true // no route can have such a source
	}
	if denied {
		f.judgeDenied(t, p)
		return
	}
	peer := f.wait(p.number)
	if p.err != nil || !slices.ContainsFunc(from, func(q netip.Prefix) bool { return q.Contains(peer.Addr()) }) {
		t.Errorf("%s %v from port %d: came from %v, %v; %s uses %v", p.flow.Network, p.flow.Dst, p.flow.LocalPort, peer, p.err, d.Rule, d.Use)
	}
	if !f.routes && (d.Port != 0 && peer.Port() != d.Port || !d.Ports.IsZero() && !d.Ports.Contains(peer.Port())) {
		t.Errorf("%v: came from port %d, want %d, %v", p.flow.Dst, peer.Port(), d.Port, d.Ports)
	}
}

// judgeDenied: nothing came, and the program was told why.
func (f *farEnd) judgeDenied(t *testing.T, p *probe) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	want := unix.EPERM
	if f.routes {
		want = unix.EACCES
	}
	peer, arrived := f.seen[p.number]
	told := errors.Is(p.err, want) || p.flow.Network == "tcp" && !f.routes && p.err != nil // a SYN is dropped silently
	if arrived || !told {
		t.Errorf("%s %v from port %d: came from %v, %v, though denied", p.flow.Network, p.flow.Dst, p.flow.LocalPort, peer, p.err)
	}
}

// wait returns where a probe came from, or the zero AddrPort when it was not seen in time.
func (f *farEnd) wait(number uint32) netip.AddrPort {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		f.mu.Lock()
		peer, ok := f.seen[number]
		f.mu.Unlock()
		if ok || time.Now().After(f.deadline) {
			return peer
		}
	}
}

// sourcesOf returns the addresses from which a flow of u may come.
func sourcesOf(u dialer.Use, is4 bool) []netip.Prefix {
	var out []netip.Prefix
	add := func(a netip.Addr) {
		if a.Is4() == is4 {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	source := func(s *dialer.Source) {
		for _, a := range s.Addrs {
			add(a)
		}
		for a := s.First; a.IsValid() && a.Compare(s.Last) <= 0; a = a.Next() {
			add(a)
		}
		if s.Prefix.IsValid() {
			out = append(out, s.Prefix)
		}
	}
	switch {
	case u.Source != nil && u.Source.Interface == "":
		source(u.Source)
	case u.Pool != nil:
		for _, m := range u.Pool.Of {
			source(m.Source)
		}
	default: // what the kernel takes
		add(nstest.ProxyV4(1))
		add(nstest.ProxyV6(1))
	}
	return out
}

// randomDestination returns an address behind the far end, out of few, so that many
// prefixes contain it.
func randomDestination(r *rand.Rand) netip.Addr {
	b := byte(r.IntN(256))
	switch r.IntN(5) {
	case 0:
		return netip.AddrFrom4([4]byte{198, 18, byte(r.IntN(8)), b})
	case 1:
		a := netip.MustParseAddr("2001:db8:9::").As16()
		a[7], a[15] = byte(r.IntN(4)), b
		return netip.AddrFrom16(a)
	case 2:
		return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(4)), b})
	}
	return netip.AddrFrom4([4]byte{203, 0, 113, b})
}
