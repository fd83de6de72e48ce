//go:build linux

package integration

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// perlBind waits by BIND of Perl's IO::Socket::Socks for the peer to connect. It prints
// where that is to connect to, and then the line that it sends.
const perlBind = `use IO::Socket::Socks;
$| = 1;
my $s = IO::Socket::Socks->new(ProxyAddr => '127.0.0.1', ProxyPort => 1080, BindAddr => $ARGV[0],
	BindPort => 0, Timeout => 20) or die $SOCKS_ERROR;
my ($host, $port) = $s->dst;
print "$host:$port\n";
$s->accept or die $SOCKS_ERROR;
print scalar <$s>;`

// TestBindForeignClients: the peer of a BIND is to connect to the source of its rule, and
// a second address that comes first is not let in.
func TestBindForeignClients(t *testing.T) {
	r := newRig(t)
	r.serve(mainConfig)
	script, err := filepath.Abs("node/bind.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []struct {
		name string
		cmd  []string
		has  func() bool
	}{
		{"Perl IO::Socket::Socks", []string{"perl", "-e", perlBind}, func() bool {
			return exec.Command("perl", "-MIO::Socket::Socks", "-e", "1").Run() == nil
		}},
		{"Node socks", []string{"node", script, "socks5://127.0.0.1:1080"}, func() bool {
			_, err := os.Stat("node/node_modules")
			return err == nil
		}},
	} {
		for peer, want := range map[netip.Addr]netip.Addr{nstest.ServerV4(9): wan4, nstest.ServerV4(25): mail4} {
			t.Run(client.name+" "+peer.String(), func(t *testing.T) {
				if !client.has() {
					nstest.Skip(t, client.name+" is not installed")
				}
				cmd := slices.Concat(client.cmd, []string{peer.String()})
				bindOnce(t, r, r.command(cmd[0], cmd[1:]...), peer, want)
			})
		}
	}
}

func bindOnce(t *testing.T, r *rig, cmd *exec.Cmd, peer, want netip.Addr) {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, in := io.Pipe()
	cmd.Stdout = in
	p := r.Proxy.Start(t, cmd)
	go func() {
		<-p.Done()
		_ = in.Close() // ends the reads below
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the client did not say where it waits")
	}
	where, err := netip.ParseAddrPort(lines.Text())
	if err != nil || where.Addr() != want {
		t.Fatalf("the peer is sent to %q, %v, want a port of %v", lines.Text(), err, want)
	}
	stranger := connectBack(t, r, nstest.ServerV4(10), where)
	if n, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Errorf("a stranger got %d bytes", n)
	}
	if _, err := io.WriteString(connectBack(t, r, peer, where), "from the peer\n"); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || strings.TrimSpace(lines.Text()) != "from the peer" {
		t.Errorf("the client got %q", lines.Text())
	}
}

// connectBack connects from an address of the server.
func connectBack(t *testing.T, r *rig, from netip.Addr, to netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	c, err := r.Server.Dial(d, "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test is over
	return c
}
