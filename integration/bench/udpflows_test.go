//go:build linux

package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// The crowd of TestManyFlows: each client has a flow to each target.
const (
	manyClients = 1000
	manyTargets = 100
	manyFlows   = manyClients * manyTargets
	firstPort   = 20000 // of the forwards, and of the targets
	maxSockets  = 1100
	maxPerFlow  = 1024 // bytes of resident memory
	tries       = 10   // of a datagram that the busy machine has dropped
)

// tuple is how a target knows a flow.
type tuple struct{ peer, target netip.AddrPort }

// crowd is all clients, played by one socket, and what the targets have seen.
type crowd struct {
	conn    *pktinfo.Conn
	answers chan [2]int // client and target
	sent    int

	mu    sync.Mutex
	flows map[tuple]int // to the client and target that the datagram names
	moved []string      // what is wrong about them
}

// TestManyFlows opens 100 000 flows through 100 forwards: each is answered, now and
// when all are open; no two have one 4-tuple; they share at most 1 100 sockets and take
// at most 1 KiB of memory each.
func TestManyFlows(t *testing.T) {
	top := nstest.NewTopology(t)
	c := &crowd{answers: make(chan [2]int, manyClients), flows: make(map[tuple]int, manyFlows)}
	var listeners strings.Builder
	for i := range manyTargets {
		target := netip.AddrPortFrom(nstest.ServerV4(1), uint16(firstPort+i))
		top.Server.ServeUDP(t, target.String(), c.record)
		fmt.Fprintf(&listeners, "[[listen]]\nudp = \"127.0.0.1:%d\"\nto = %q\n", firstPort+i, target)
	}
	listeners.WriteString("[timeouts]\nudp = \"30m\"\n")
	p := serveSrcproxy(t, top.Proxy, listeners.String())
	c.open(t, top.Proxy)
	before := resident(t, p.Pid())
	began := time.Now()
	c.ask(t)
	opened, after := time.Since(began), resident(t, p.Pid())
	c.ask(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.moved[:min(len(c.moved), 10)] {
		t.Error(m)
	}
	if len(c.flows) != manyFlows {
		t.Errorf("the targets have seen %d 4-tuples, want one for each of %d flows", len(c.flows), manyFlows)
	}
	n := udpSockets(t, p.Pid())
	if n > maxSockets || n <= manyTargets {
		t.Errorf("%d sockets, want at most %d", n, maxSockets)
	}
	each := (after - before) / manyFlows
	if each > maxPerFlow {
		t.Errorf("a flow takes %d bytes, want at most %d", each, maxPerFlow)
	}
	t.Logf("%d bytes for each of %d flows, %d sockets; opened in %v; %d datagrams were sent for %d answers",
		each, manyFlows, n, opened.Round(time.Millisecond), c.sent, 2*manyFlows)
}

// record notes from where a target was asked, and answers. A flow that a second
// datagram shows at another port, or a port that another flow has, is wrong.
func (c *crowd) record(peer, to netip.AddrPort, b []byte) []byte {
	if len(b) != 8 {
		return nil
	}
	id := int(binary.BigEndian.Uint64(b))
	c.mu.Lock()
	defer c.mu.Unlock()
	k := tuple{peer, to}
	have, ok := c.flows[k]
	switch {
	case peer.Addr() != source():
		c.moved = append(c.moved, fmt.Sprintf("flow %d left from %v, want %v", id, peer, source()))
	case ok && have != id:
		c.moved = append(c.moved, fmt.Sprintf("flows %d and %d are both %v", have, id, k))
	case int(to.Port()) != firstPort+id%manyTargets:
		c.moved = append(c.moved, fmt.Sprintf("flow %d came to %v", id, to))
	}
	c.flows[k] = id
	return b
}

// open opens the socket of the clients.
func (c *crowd) open(t *testing.T, n *nstest.Namespace) {
	t.Helper()
	err := n.Do(func() (err error) {
		lc := pktinfo.ListenConfig{ReadBuffer: loadBuffer, WriteBuffer: loadBuffer}
		c.conn, err = lc.Listen(t.Context(), "udp4", "0.0.0.0:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(c.read)
	t.Cleanup(func() {
		_ = c.conn.Close() // ends read
		running.Wait()
	})
}

// read gives the answers to ask. One that came to another client, or from another
// forward, is none.
func (c *crowd) read() {
	ms := make([]pktinfo.Message, burst)
	for i := range ms {
		ms[i].Buf = make([]byte, datagramSize)
	}
	for {
		n, err := c.conn.ReadBatch(ms)
		if err != nil {
			return
		}
		for _, m := range ms[:n] {
			if m.N != 8 {
				continue
			}
			id := int(binary.BigEndian.Uint64(m.Buf))
			client, target := id/manyTargets, id%manyTargets
			if m.Addr.Local == clientOf(client) && m.Addr.Peer.Port() == uint16(firstPort+target) {
				c.answers <- [2]int{client, target}
			}
		}
	}
}

// ask lets each client ask each target until it is answered.
func (c *crowd) ask(t *testing.T) {
	t.Helper()
	for target := range manyTargets {
		missing := make(map[int]bool, manyClients)
		for client := range manyClients {
			missing[client] = true
		}
		for range tries {
			c.send(t, target, missing)
			c.await(target, missing)
			if len(missing) == 0 {
				break
			}
		}
		if len(missing) > 0 {
			t.Fatalf("%d of %d clients hear nothing from target %d", len(missing), manyClients, target)
		}
	}
}

// send sends a datagram from each of the clients.
func (c *crowd) send(t *testing.T, target int, clients map[int]bool) {
	t.Helper()
	ms := make([]pktinfo.Message, 0, len(clients))
	forward := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(firstPort+target))
	for client := range clients {
		b := binary.BigEndian.AppendUint64(nil, uint64(client*manyTargets+target))
		ms = append(ms, pktinfo.Message{Buf: b, N: len(b), Addr: pktinfo.Addr{Peer: forward, Local: clientOf(client)}})
	}
	c.sent += len(ms)
	for len(ms) > 0 {
		n, err := c.conn.WriteBatch(ms)
		if err != nil {
			t.Fatal(err)
		}
		ms = ms[n:]
	}
}

// await takes the answers to missing until there are all, or none for a while.
func (c *crowd) await(target int, missing map[int]bool) {
	quiet := time.NewTimer(time.Second)
	defer quiet.Stop()
	for len(missing) > 0 {
		select {
		case a := <-c.answers:
			if a[1] == target {
				delete(missing, a[0])
			}
			quiet.Reset(time.Second)
		case <-quiet.C:
			return
		}
	}
}

// udpSockets counts the IPv4 UDP sockets that a process has, by their inodes in
// /proc/PID/net/udp (proc(5)).
func udpSockets(t *testing.T, pid int) (n int) {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", pid))
	if err != nil {
		t.Fatal(err)
	}
	inodes := make(map[string]bool)
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 9 {
			inodes["socket:["+fields[9]+"]"] = true
		}
	}
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil && inodes[to] {
			n++
		}
	}
	return n
}

// resident is the memory of a process in bytes (proc(5), VmRSS).
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscanf(after, "%d kB", &kib); err != nil {
		t.Fatalf("VmRSS: %v", err)
	}
	return kib << 10
}
