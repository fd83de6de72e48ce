//go:build linux

package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/internal/flows"
	"github.com/srcproxy/srcproxy/internal/nstest"
	"github.com/srcproxy/srcproxy/internal/udprelay"
)

const floodConfig = `
default = %q

[[listen]]
udp  = "127.0.0.1:5300"
to   = %q
idle = %q

[limits]
udp_flows = %d
`

// TestUDPPortScan has a scanner send from 100,000 ports to a forward, while a client
// asks all the time: it loses nothing, the oldest flows of the scanner make room for the
// newer ones, and in the end nothing is left of them.
func TestUDPPortScan(t *testing.T) {
	const ports, burst, most = 100000, 50, 5000
	r := newRig(t)
	dst := at(nstest.ServerV4(7), 7)
	s := r.Server.EchoUDP(t, dst.String())
	// Nothing but newer flows ends one before the scan is over, however slow this machine is.
	r.serve(fmt.Sprintf(floodConfig, wan4, dst, "5m", most))
	idle := r.descriptors()
	client, err := r.Proxy.Dial(net.Dialer{}, "udp", "127.0.0.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	echoed(t, client, "before")
	before, descriptors, answered := r.rss(), 0, 0
	scan := newScanner(t, r.Proxy)
	for i := 0; i < ports; i += burst {
		for k := range burst {
			scan.send(t, i+k, at(netip.MustParseAddr("127.0.0.1"), 5300))
		}
		if comesBack(client, fmt.Sprint("ask ", i)) {
			answered++
		}
		if i%5000 == 0 {
			descriptors = max(descriptors, r.descriptors())
		}
	}
	grown := r.rss() - before
	t.Logf("%d of %d answered, resident memory grew by %d KiB, %d descriptors", answered, ports/burst, grown>>10, descriptors)
	if answered < ports/burst*999/1000 {
		t.Errorf("%d of %d were answered, want 99.9 %%", answered, ports/burst)
	}
	if descriptors > idle+most+100 {
		t.Errorf("%d descriptors, want at most one for each of %d flows", descriptors, most)
	}
	if grown > 64<<20 && !nstest.Race() {
		t.Errorf("resident memory grew by %d MiB, want at most 64", grown>>20)
	}
	if e := r.reload(fmt.Sprintf(floodConfig, wan4, dst, "1s", most)); e.text("msg") != "reloaded" {
		t.Fatal(e)
	}
	r.wantAllEnded(s, ports+1, ports+1-most)
	// One is closed later than its flow has ended.
	eventually(t, "the descriptors are back", func() bool { return r.descriptors() <= idle+1 })
}

// wantAllEnded waits for the ends of all flows that the server has seen, and fails unless
// so many of them were evicted, and hardly any of the flows was refused.
func (r *rig) wantAllEnded(s *nstest.Server, asked, evicted int) {
	r.t.Helper()
	seen := make(map[netip.AddrPort]bool)
	for _, p := range s.Peers() {
		seen[p] = true
	}
	r.log.wait(r.t, asked, "flow")
	lines, _ := r.log.with("flow")
	byReason := make(map[string]int)
	for _, e := range lines {
		byReason[e.text("err")]++
	}
	r.t.Logf("%d flows by how they ended: %v", len(lines), byReason)
	if n := byReason[udprelay.ErrEvicted.Error()]; n < evicted || len(lines) != asked {
		r.t.Errorf("%d of %d flows were evicted, want %d of %d", n, len(lines), evicted, asked)
	}
	if byReason[flows.ErrSourceDown.Error()] != 0 {
		r.t.Error("flows ended as if the source had gone")
	}
}

// comesBack tells whether text comes back within a second, perhaps behind what came too
// late before.
func comesBack(c net.Conn, text string) bool {
	_ = c.SetDeadline(time.Now().Add(time.Second)) // of an open socket
	if _, err := c.Write([]byte(text)); err != nil {
		return false
	}
	b := make([]byte, 100)
	for {
		n, err := c.Read(b)
		if err != nil || string(b[:n]) == text {
			return err == nil
		}
	}
}

// scanner sends datagrams from ports that nobody has.
type scanner int

func newScanner(t *testing.T, n *nstest.Namespace) scanner {
	t.Helper()
	var fd int
	err := n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	})
	return scanner(fd)
}

// send sends a datagram from the i-th port: 50,000 of each address.
func (s scanner) send(t *testing.T, i int, to netip.AddrPort) {
	t.Helper()
	const headers, each = 28, 50000
	p := make([]byte, headers, headers+4)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel writes the length and the checksum
	from := [4]byte{127, 0, 1, byte(1 + i/each)}
	dst := to.Addr().As4()
	copy(p[12:], from[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[20:], uint16(1024+i%each))
	binary.BigEndian.PutUint16(p[22:], to.Port())
	p = append(p, "scan"...)
	binary.BigEndian.PutUint16(p[24:], uint16(len(p)-20)) // checksum 0: none
	err := unix.Sendto(int(s), p, 0, &unix.SockaddrInet4{Addr: dst})
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatal(err)
	}
}
