//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

const (
	lostRounds = 50  // for each family
	lostFlows  = 100 // of each protocol
	// lostLimit is ten times what is aimed at: all flows have ended.
	lostLimit = 500 * time.Millisecond
)

// TestLostAddress takes an address away under 100 relays and 100 UDP flows. All end, new
// ones leave from the pool's next source, and when the address is back they leave from
// it again.
func TestLostAddress(t *testing.T) {
	var took []time.Duration
	for _, f := range []struct {
		name         string
		lost, next   netip.Prefix
		dst, forward netip.Addr
	}{
		{"v4", netip.PrefixFrom(nstest.ProxyV4(30), 24), netip.PrefixFrom(nstest.ProxyV4(31), 24), nstest.ServerV4(1), nstest.ServerV4(2)},
		{"v6", netip.PrefixFrom(nstest.ProxyV6(30), 64), netip.PrefixFrom(nstest.ProxyV6(31), 64), nstest.ServerV6(1), nstest.ServerV6(2)},
	} {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t)
			far := hold(t, r.Server, wildcard(f.dst, 4000))
			r.Server.ServeUDP(t, wildcard(f.forward, 7), func(peer, _ netip.AddrPort, _ []byte) []byte {
				return []byte(peer.Addr().String() + "\n")
			})
			leaks := r.Server.CountLeaks(t, "wan0")
			r.serve(fmt.Sprintf("default = \"both\"\n[pools]\nboth = { of = [%q, %q] }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[[listen]]\nudp = \"127.0.0.1:5300\"\nto = %q\n",
				f.lost.Addr(), f.next.Addr(), at(f.forward, 7)))
			for range lostRounds {
				took = append(took, r.lose(f.lost, f.next.Addr(), at(f.dst, 4000), at(f.forward, 7), far))
				if t.Failed() {
					return
				}
			}
			leaks.Allow(f.lost.Addr(), f.next.Addr())
			if n, details := leaks.Leaks(t); n != 0 {
				t.Errorf("%d packets from other addresses: %q", n, details)
			}
		})
	}
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	median, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("from the deletion of the address to the end of %d relays and %d UDP flows: median %v, p99 %v of %d", lostFlows, lostFlows, median, p99, len(took))
	if p99 > lostLimit {
		t.Errorf("p99: %v, want at most %v", p99, lostLimit)
	}
}

// lose is one round. It returns how long it took to end all flows.
func (r *rig) lose(lost netip.Prefix, next netip.Addr, dst, dstUDP netip.AddrPort, far *holding) time.Duration {
	t := r.t
	t.Helper()
	defer far.closeAll()
	tcp, udp := r.openLost(dst, lost.Addr())
	asked := udp[:3] // they stay open: flows of theirs live on, and no later client may get their ports
	t.Cleanup(func() { closeConns(asked) })
	defer closeConns(udp[len(asked):])
	relayed := r.associate()
	defer relayed.control.Close()
	relayed.wantSource(t, dstUDP, lost.Addr())
	before := r.log.lines()
	ended := watchEnds(tcp)
	start := time.Now()
	r.Proxy.DelAddr(t, "wan0", lost)
	last := ended.wait()
	for _, err := range ended.errs {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client saw %v, want a reset", err)
		}
	}
	lines := r.sourceDown(before, 2*lostFlows)
	for _, e := range lines {
		if at, err := time.Parse(time.RFC3339Nano, e.text("time")); err == nil && at.After(last) {
			last = at
		}
	}
	r.wantSource(dst, next)
	eventually(t, "the source is down", func() bool {
		return slices.ContainsFunc(r.log.from(before), func(e entry) bool { return e.text("state") == "down" })
	})
	relayed.wantSource(t, dstUDP, next) // with the first datagram
	for _, c := range asked {
		if source, err := askVia(c); err != nil || source != next {
			t.Errorf("UDP after the loss: from %v, %v, want %v", source, err, next)
		}
	}
	r.Proxy.AddAddr(t, "wan0", lost)
	eventually(t, "the address is used again", func() bool {
		source, err := r.sourceOf(dst)
		return err == nil && source == lost.Addr()
	})
	return last.Sub(start)
}

// sourceDown waits for n lines of flows that have ended for want of their source, after
// the first lines of the log.
func (r *rig) sourceDown(lines, n int) []entry {
	r.t.Helper()
	var found []entry
	eventually(r.t, fmt.Sprintf("%d flows have ended", n), func() bool {
		if r.log.lines() < lines+n {
			return false
		}
		found = slices.DeleteFunc(r.log.from(lines), func(e entry) bool {
			return e.text("msg") != "flow" || !strings.Contains(e.text("err"), "source address went away")
		})
		return len(found) >= n
	})
	return found
}

// openLost opens the flows of a round, all from source.
func (r *rig) openLost(dst netip.AddrPort, source netip.Addr) (tcp, udp []net.Conn) {
	r.t.Helper()
	err := r.Proxy.Do(func() error {
		for range lostFlows {
			c, from, err := greeted(dst)
			if err != nil {
				return err
			}
			tcp = append(tcp, c)
			u, err := net.Dial("udp", "127.0.0.1:5300")
			if err != nil {
				return err
			}
			udp = append(udp, u)
			fromUDP, err := askVia(u)
			if err != nil {
				return err
			}
			if from != source || fromUDP != source {
				return fmt.Errorf("before the loss TCP leaves from %v and UDP from %v, want %v", from, fromUDP, source)
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return tcp, udp
}

// greeted connects through the proxy of the calling thread's namespace, and returns the
// source that the far end greets with.
func greeted(dst netip.AddrPort) (net.Conn, netip.Addr, error) {
	c, err := net.DialTimeout("tcp", "127.0.0.1:1080", patience)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	if _, err := handshake(c, connect5(dst)); err != nil {
		_ = c.Close() // the handshake's error is the one
		return nil, netip.Addr{}, err
	}
	source, err := readAddr(c)
	return c, source, err
}

// sourceOf is the source of a new flow to dst.
func (r *rig) sourceOf(dst netip.AddrPort) (source netip.Addr, err error) {
	err = r.Proxy.Do(func() error {
		c, from, err := greeted(dst)
		if err != nil {
			return err
		}
		source = from
		return c.Close()
	})
	return source, err
}

func (r *rig) wantSource(dst netip.AddrPort, want netip.Addr) {
	r.t.Helper()
	if source, err := r.sourceOf(dst); err != nil || source != want {
		r.t.Errorf("a new flow leaves from %v, %v, want %v", source, err, want)
	}
}

// wantSource sends one datagram, and wants its answer to name a.
func (c *association) wantSource(t testing.TB, dst netip.AddrPort, a netip.Addr) {
	t.Helper()
	if got, err := c.ask(dst, "who", patience); err != nil || got != a.String()+"\n" {
		t.Errorf("the association's datagram: %q, %v, want it to leave from %v", got, err, a)
	}
}

// askVia is a datagram and its answer, the source that the far end saw.
func askVia(c net.Conn) (netip.Addr, error) {
	if _, err := c.Write([]byte("who")); err != nil {
		return netip.Addr{}, err
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return netip.Addr{}, err
	}
	return readAddr(c)
}

func closeConns(list []net.Conn) {
	for _, c := range list {
		_ = c.Close() // the proxy may have closed it
	}
}

// ends are the ends of connections on which nothing comes any more.
type ends struct {
	all  sync.WaitGroup
	errs []error
	when []time.Time
}

func watchEnds(conns []net.Conn) *ends {
	e := &ends{errs: make([]error, len(conns)), when: make([]time.Time, len(conns))}
	for i, c := range conns {
		e.all.Go(func() {
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(patience)) // of an open connection
			_, e.errs[i] = c.Read(make([]byte, 1))
			e.when[i] = time.Now()
		})
	}
	return e
}

// wait returns when all have ended, and when the last one did.
func (e *ends) wait() time.Time {
	e.all.Wait()
	return slices.MaxFunc(e.when, time.Time.Compare)
}

// holding is the far end of flows that hear nothing of their end.
type holding struct {
	mu    sync.Mutex
	conns []net.Conn
}

// hold serves connections that are greeted by the address that they come from and then
// stay.
func hold(t *testing.T, n *nstest.Namespace, address string) *holding {
	t.Helper()
	h := new(holding)
	n.ServeTCP(t, address, func(c *net.TCPConn) {
		h.mu.Lock()
		h.conns = append(h.conns, c)
		h.mu.Unlock()
		if _, err := fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()); err == nil {
			_, _ = bufio.NewReader(c).ReadByte() // its end
		}
	})
	return h
}

func (h *holding) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	closeConns(h.conns)
	h.conns = nil
}
