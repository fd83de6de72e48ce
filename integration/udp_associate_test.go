//go:build linux

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
	"github.com/srcproxy/srcproxy/internal/socks"
)

// association is a client's end of a UDP association.
type association struct {
	control *net.TCPConn
	udp     *net.UDPConn
	relay   netip.AddrPort
}

// associate opens an association by the proxy at 127.0.0.1:1080.
func (r *rig) associate() *association {
	r.t.Helper()
	c := r.dial("127.0.0.1:1080")
	relay, err := handshake(c, []byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	if err != nil {
		r.t.Fatal(err)
	}
	u, err := r.Proxy.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = u.Close() }) // the test may have closed it
	return &association{c, u.(*net.UDPConn), relay}
}

func (a *association) send(dst netip.AddrPort, payload string) error {
	_, err := a.udp.WriteToUDPAddrPort(socks.AppendDatagram(nil, socks.Addr{Addr: dst}, []byte(payload)), a.relay)
	return err
}

// receive returns the next payload, and where it came from.
func (a *association) receive(within time.Duration) (string, netip.AddrPort, error) {
	if err := a.udp.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", netip.AddrPort{}, err
	}
	b := make([]byte, 1<<16)
	n, from, err := a.udp.ReadFromUDPAddrPort(b)
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	if from != a.relay {
		return "", from, fmt.Errorf("from %v, not from the relay %v", from, a.relay)
	}
	d, err := socks.ParseDatagram(b[:n])
	return string(d.Payload), d.Dst.Addr, err
}

// ask sends a datagram and returns the answer.
func (a *association) ask(dst netip.AddrPort, payload string, within time.Duration) (string, error) {
	if err := a.send(dst, payload); err != nil {
		return "", err
	}
	got, from, err := a.receive(within)
	if err == nil && from != dst {
		err = fmt.Errorf("answered by %v, not by %v", from, dst)
	}
	return got, err
}

// tellUDP answers each datagram with the address that it came from.
func tellUDP(t *testing.T, n *nstest.Namespace) {
	t.Helper()
	for _, wild := range []string{"0.0.0.0:7", "[::]:7"} {
		n.ServeUDP(t, wild, func(peer, _ netip.AddrPort, _ []byte) []byte { return []byte(peer.Addr().String()) })
	}
}

// TestAssociateSources sends to destinations under different rules on one association:
// each sees the source of its rule, on the wire, and the forbidden one sees nothing.
func TestAssociateSources(t *testing.T) {
	r := newRig(t)
	tellUDP(t, r.Server)
	leaks := r.Server.CountLeaks(t, "wan0")
	r.serve(mainConfig)
	a := r.associate()
	six := netip.MustParseAddr("2001:db8:2::9")
	for dst, want := range map[netip.Addr]netip.Addr{
		nstest.ServerV4(9):  wan4,
		nstest.ServerV4(25): mail4,
		six:                 wan6,
	} {
		if got, err := a.ask(at(dst, 7), "who am I", patience); err != nil || got != want.String() {
			t.Errorf("%v was asked from %q, %v, want %v", dst, got, err, want)
		}
		leaks.AllowTo(dst, netip.PrefixFrom(want, want.BitLen()))
	}
	for _, dst := range []netip.Addr{nstest.ServerV4(66), netip.MustParseAddr("2001:db8:2::25")} {
		if got, err := a.ask(at(dst, 7), "never", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v answered %q, %v", dst, got, err)
		}
	}
	if n, details := leaks.Leaks(t); n != 0 {
		t.Errorf("%d packets that no rule allows: %q", n, details)
	}
	refusals := 0
	lines, _ := r.log.with("flow")
	for _, l := range lines {
		if strings.Contains(fmt.Sprint(l), "datagram") {
			refusals++
		}
	}
	if refusals != 2 {
		t.Errorf("%d lines about refused datagrams, want 2: %v", refusals, lines)
	}
}

// TestAssociateEnds ends the TCP connection by FIN and by RST: within a second nothing
// that the client sends leaves any more.
func TestAssociateEnds(t *testing.T) {
	for name, linger := range map[string]int{"FIN": -1, "RST": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := r.Server.EchoUDP(t, "0.0.0.0:7")
			r.serve(mainConfig)
			a := r.associate()
			dst := at(nstest.ServerV4(9), 7)
			if _, err := a.ask(dst, "ping", patience); err != nil {
				t.Fatal(err)
			}
			before := r.descriptors()
			if err := a.control.SetLinger(linger); err != nil {
				t.Fatal(err)
			}
			if err := a.control.Close(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			eventually(t, "the sockets are closed", func() bool { return r.descriptors() <= before-3 })
			if d := time.Since(began); d > time.Second {
				t.Errorf("the association lived for %v", d)
			}
			s.Forget()
			for range 10 {
				_ = a.send(dst, "late") // may tell of an earlier one that was refused
			}
			if got, _, err := a.receive(100 * time.Millisecond); err == nil {
				t.Errorf("got %q after the end", got)
			}
			if n := len(s.Peers()); n != 0 {
				t.Errorf("%d datagrams left after the end", n)
			}
		})
	}
}

// TestAssociateNeedsOne sends a datagram to the proxy's port without an association.
func TestAssociateNeedsOne(t *testing.T) {
	r := newRig(t)
	s := r.Server.EchoUDP(t, "0.0.0.0:7")
	r.serve(mainConfig)
	a := r.associate()
	if err := a.control.Close(); err != nil {
		t.Fatal(err)
	}
	a.relay = netip.MustParseAddrPort("127.0.0.1:1080")
	if got, err := a.ask(at(nstest.ServerV4(9), 7), "ping", 200*time.Millisecond); err == nil {
		t.Errorf("got %q", got)
	}
	if n := len(s.Peers()); n != 0 {
		t.Errorf("%d datagrams left", n)
	}
}

const socksifyUDPConf = `logoutput: /dev/null
route { from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = 1080
	proxyprotocol: socks_v5
	protocol: tcp udp
	method: none
}
`

// perlAssociate sends to HOST PORT with Perl's IO::Socket::Socks and prints the answer.
const perlAssociate = `use IO::Socket::Socks;
use Socket;
my ($host, $port) = @ARGV;
my $s = IO::Socket::Socks->new(UdpAddr => '0.0.0.0', UdpPort => 0, ProxyAddr => '127.0.0.1', ProxyPort => 1080)
	or die $SOCKS_ERROR;
$s->send('who am I', 0, pack_sockaddr_in($port, inet_aton($host)));
alarm 10;
$s->recv(my $answer, 100);
print $answer;
`

// TestAssociateForeignClients relays for clients that others wrote.
func TestAssociateForeignClients(t *testing.T) {
	r := newRig(t)
	tellUDP(t, r.Server)
	r.writeUsers(map[string]string{"ann": "secret"})
	r.serve(foreignConfig)
	t.Run("Node socks", func(t *testing.T) {
		nstest.Need(t, "node")
		program, err := filepath.Abs("node/associate.mjs")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("node/node_modules"); err != nil {
			nstest.Skip(t, "npm ci was not run in integration/node")
		}
		for _, proxy := range []string{"socks5://127.0.0.1:1080", "socks5://ann:secret@127.0.0.1:1081"} {
			got := r.run("node", program, proxy, "203.0.113.9:7", "203.0.113.25:7", "smtp.mail.example:7", "[2001:db8:2::9]:7")
			want := fmt.Sprintf("%v\n%v\n%v\n%v\n", wan4, mail4, mail4, wan6)
			if got.Err != nil || got.Stdout != want {
				t.Errorf("by %s got %v\nwant %s", proxy, got, want)
			}
		}
	})
	for dst, want := range map[string]netip.Addr{"203.0.113.9": wan4, "203.0.113.25": mail4} {
		t.Run("socksify nc "+dst, func(t *testing.T) {
			nstest.Need(t, "socksify", "nc.openbsd")
			r.write("conf", socksifyUDPConf)
			cmd := r.command("socksify", "nc.openbsd", "-u", "-w", "1", dst, "7")
			cmd.Env = append(cmd.Env, "SOCKS_AUTOADD_LANROUTES=no", "SOCKS_CONF=conf")
			cmd.Stdin = strings.NewReader("who am I")
			if got := r.Proxy.Run(t, cmd); got.Stdout != want.String() {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
		t.Run("Perl IO::Socket::Socks "+dst, func(t *testing.T) {
			if err := exec.Command("perl", "-MIO::Socket::Socks", "-e", "1").Run(); err != nil {
				nstest.Skip(t, "Perl's IO::Socket::Socks is not installed")
			}
			if got := r.run("perl", "-e", perlAssociate, dst, "7"); got.Err != nil || got.Stdout != want.String() {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

// TestAssociateManyDestinations has one client send to 65,536 destinations while another
// asks a thousand times: the memory stays bounded, and the other loses nothing.
func TestAssociateManyDestinations(t *testing.T) {
	r := newRig(t)
	tellUDP(t, r.Server)
	r.serve(mainConfig)
	flood, steady := r.associate(), r.associate()
	dst := at(nstest.ServerV4(9), 7)
	if _, err := steady.ask(dst, "ping", patience); err != nil {
		t.Fatal(err)
	}
	before := r.rss()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for i := range 65536 {
			_ = flood.send(at(nstest.ServerV4(1+i%50), uint16(10000+i/50)), "x") // a lost one is the flood's
		}
	})
	const asked = 1000
	answered := 0
	for range asked {
		if got, err := steady.ask(dst, "ping", time.Second); err == nil && got == wan4.String() {
			answered++
		}
	}
	sending.Wait()
	grown := r.rss() - before
	t.Logf("%d of %d answered, resident memory grew by %d KiB", answered, asked, grown>>10)
	if answered < asked*999/1000 {
		t.Errorf("%d of %d were answered, want 99.9 %%", answered, asked)
	}
	if grown > 64<<20 && !nstest.Race() {
		t.Errorf("resident memory grew by %d MiB, want at most 64", grown>>20)
	}
	// Its own socket may be full still.
	eventually(t, "the association of the flood works", func() bool {
		got, err := flood.ask(dst, "ping", 100*time.Millisecond)
		return err == nil && got == wan4.String()
	})
}

// TestVanishedAssociationSource deletes the source's address under associations that
// send all the time, again and again: not a packet leaves from it afterwards.
func TestVanishedAssociationSource(t *testing.T) {
	const live, seeds = 100, 10
	for _, test := range []struct {
		name   string
		source netip.Prefix
		dst    netip.Addr
	}{
		{"v4", netip.PrefixFrom(nstest.ProxyV4(30), 24), nstest.ServerV4(1)},
		{"v6", netip.PrefixFrom(nstest.ProxyV6(30), 64), nstest.ServerV6(1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.Server.EchoUDP(t, wildcard(test.dst, 7))
			leaks := r.Server.CountLeaks(t, "wan0")
			leaks.Allow(test.source.Addr())
			r.serve(fmt.Sprintf("default = %q\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n", test.source.Addr()))
			all := make([]*association, live)
			for i := range all {
				all[i] = r.associate()
			}
			dst := at(test.dst, 7)
			var sending sync.WaitGroup
			var sent atomic.Int64
			done := make(chan struct{})
			defer func() { close(done); sending.Wait() }()
			for _, a := range all {
				sending.Go(func() { a.flood(dst, &sent, done) })
			}
			for seed := range uint64(seeds) {
				random := rand.New(rand.NewPCG(seed, 3))
				eventually(t, "every association works", func() bool { return works(all, dst) })
				n := sent.Load() + 100 + random.Int64N(2000)
				eventually(t, "more is sent", func() bool { return sent.Load() >= n })
				r.Proxy.DelAddr(t, "wan0", test.source)
				before := leaks.Seen(t)
				n = sent.Load() + 2000
				eventually(t, "more is sent without the address", func() bool { return sent.Load() >= n })
				for p, n := range leaks.Seen(t) {
					if n != before[p] {
						t.Errorf("seed %d: %d packets %+v while the address was away", seed, n-before[p], p)
					}
				}
				r.Proxy.AddAddr(t, "wan0", test.source)
			}
			if n, details := leaks.Leaks(t); n != 0 {
				t.Errorf("%d packets from other addresses: %q", n, details)
			}
			t.Logf("%d datagrams of %d associations, the address deleted %d times", sent.Load(), live, seeds)
		})
	}
}

// flood sends until done.
func (a *association) flood(dst netip.AddrPort, sent *atomic.Int64, done <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			if a.send(dst, "flood") == nil {
				sent.Add(1)
			}
		}
	}
}

// works reports whether an answer came to each association just now.
func works(all []*association, dst netip.AddrPort) bool {
	for _, a := range all {
		for { // the answers of a moment ago
			if _, _, err := a.receive(time.Microsecond); err != nil {
				break
			}
		}
	}
	for _, a := range all {
		if _, from, err := a.receive(100 * time.Millisecond); err != nil || from != dst {
			return false
		}
	}
	return true
}
