package dialer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	wan1 = &dialer.Source{Name: "wan1", Addrs: addrs("127.0.0.2")}
	wan2 = &dialer.Source{Name: "wan2", Addrs: addrs("127.0.0.3")}
	mail = &dialer.Source{Name: "mail", Addrs: addrs("127.0.0.4", "::1")}
	six  = &dialer.Source{Name: "six", Addrs: addrs("::1")}
)

func from(s *dialer.Source) dialer.Use { return dialer.Use{Source: s} }

func of(p *dialer.Pool) dialer.Use { return dialer.Use{Pool: p} }

var (
	kernel = dialer.Use{Kernel: true}
	deny   = dialer.Use{}
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func to(list ...string) []dialer.Match {
	var out []dialer.Match
	for _, s := range list {
		m, err := dialer.ParseMatch(s)
		if err != nil {
			panic(err)
		}
		out = append(out, m)
	}
	return out
}

func key(s string) dialer.Match { return to(s)[0] }

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func newTable(t testing.TB, otherwise dialer.Use, rules ...dialer.Rule) *dialer.Table {
	t.Helper()
	table, err := dialer.NewTable(rules, otherwise)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// tcp is a flow to an address and port, or to a name and port.
func tcp(address string) dialer.Flow {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return dialer.Flow{Network: "tcp", Dst: ap}
	}
	name, port, ok := strings.Cut(address, ":")
	if !ok {
		panic(address)
	}
	return dialer.Flow{Network: "tcp", Name: name, Dst: netip.AddrPortFrom(netip.Addr{}, netip.MustParseAddrPort("0.0.0.0:"+port).Port())}
}

// named is a flow to an address that was asked for by name.
func named(name, address string) dialer.Flow {
	f := tcp(address)
	f.Name = name
	return f
}

// answers is a resolver that knows these names only.
type answers map[string][]netip.Addr

func (a answers) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if list, ok := a[host]; ok {
		return list, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// noResolver fails the test when it is asked.
type noResolver struct{ t *testing.T }

func (r noResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.t.Errorf("%q was resolved", host)
	return nil, errors.New("asked")
}

// serve accepts connections on address, which may have port 0, and tells each who it
// is: the address of the peer as the server sees it.
func serve(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { tellPeer(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends the loop
		running.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func tellPeer(c net.Conn) {
	defer c.Close()
	if _, err := io.WriteString(c, c.RemoteAddr().String()+"\n"); err == nil {
		_, _ = io.Copy(io.Discard, c) // until the client goes
	}
}

// peer returns what the server saw of c.
func peer(t testing.TB, c net.Conn) netip.AddrPort {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line))
}

func port(a netip.AddrPort) string { return fmt.Sprint(a.Port()) }

// dial dials f and returns the address that the server saw, and the decision.
func dial(t testing.TB, d *dialer.Dialer, f dialer.Flow) (netip.AddrPort, dialer.Decision) {
	t.Helper()
	c, dec, err := d.DialFlow(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return peer(t, c), dec
}

// refused dials f, which must fail, and returns the error.
func refused(t testing.TB, d *dialer.Dialer, f dialer.Flow) error {
	t.Helper()
	c, _, err := d.DialFlow(t.Context(), f)
	if err == nil {
		_ = c.Close()
		t.Fatalf("%v was dialled from %v", f, c.LocalAddr())
	}
	return err
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("error is %v, want %v", got, want)
	}
}

func wantText(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error is %v, want %q in it", err, part)
		}
	}
}
