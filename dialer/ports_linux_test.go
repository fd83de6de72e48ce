package dialer_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// hold dials dst n times and keeps the connections open until the test ends. It returns
// how often the server saw each address and port.
func hold(t *testing.T, d *dialer.Dialer, dst string, n int) map[netip.AddrPort]int {
	t.Helper()
	saw := make(map[netip.AddrPort]int)
	for range n {
		p, _ := dial(t, d, tcp(dst))
		saw[p]++
	}
	return saw
}

// TestPortsForEachDestination has ten local ports, and ten connections to each of four
// destinations: it is the destination for which a port must be free, not the source.
func TestPortsForEachDestination(t *testing.T) {
	inNamespace(t, "40000 40009", func(t *testing.T) {
		d := &dialer.Dialer{Table: newTable(t, from(mail))}
		server6 := serve(t, "[::1]:8080").String()
		var servers []string
		for i := range 4 {
			servers = append(servers, serve(t, fmt.Sprintf("127.0.1.%d:8080", i+1)).String())
		}
		for _, dst := range append(servers, server6) {
			if saw := hold(t, d, dst, 10); len(saw) != 10 {
				t.Errorf("%s: %d different peers", dst, len(saw))
			}
		}
		for _, dst := range []string{servers[0], server6} {
			err := refused(t, d, tcp(dst))
			wantErr(t, err, dialer.ErrPorts)
			wantErr(t, err, syscall.EADDRNOTAVAIL)
			wantText(t, err, `"mail"`, dst, "net.ipv4.ip_local_port_range")
			if errors.Is(err, dialer.ErrSourceDown) {
				t.Errorf("%v says that the source is down", err)
			}
		}
	})
}

// TestSourcePorts limits the ports to three of ten.
func TestSourcePorts(t *testing.T) {
	inNamespace(t, "40000 40009", func(t *testing.T) {
		batch := &dialer.Source{Name: "batch", Addrs: addrs("127.0.0.2", "::1"), Ports: dialer.PortRange{Lo: 40003, Hi: 40005}}
		d := &dialer.Dialer{Table: newTable(t, from(batch))}
		for _, dst := range []string{serve(t, "127.0.1.1:8080").String(), serve(t, "127.0.1.2:8080").String(), serve(t, "[::1]:8080").String()} {
			for p := range hold(t, d, dst, 3) {
				if !batch.Ports.Contains(p.Port()) {
					t.Errorf("%s: the server saw port %d", dst, p.Port())
				}
			}
			err := refused(t, d, tcp(dst))
			wantErr(t, err, dialer.ErrPorts)
			wantText(t, err, "40003-40005", `"batch"`, dst)
		}
		for _, r := range []dialer.PortRange{{Lo: 39999, Hi: 40003}, {Lo: 40003, Hi: 40010}, {Lo: 20000, Hi: 20999}, {Lo: 0, Hi: 40001}} {
			outside := &dialer.Source{Name: "outside", Addrs: addrs("127.0.0.2"), Ports: r}
			err := refused(t, &dialer.Dialer{Table: newTable(t, from(outside))}, tcp("127.0.1.1:8080"))
			wantErr(t, err, dialer.ErrPorts)
			wantText(t, err, r.String(), "40000-40009", "sysctl -w")
		}
	})
}

// TestRetry goes on with the next member when, and only when, the pool says so and the
// failure was on this side.
func TestRetry(t *testing.T) {
	inNamespace(t, "40000 40001", func(t *testing.T) {
		server := serve(t, "127.0.1.1:8080").String()
		gone := &dialer.Source{Name: "gone", Addrs: addrs("192.0.2.1")}
		pool := &dialer.Pool{Name: "web", Of: []dialer.Member{{Source: gone}, {Source: wan1}, {Source: six}, {Source: wan2}}, Retry: true}
		attempts := 0
		d := &dialer.Dialer{Table: newTable(t, of(pool)), OnDial: func(dialer.Flow, dialer.Decision, error) { attempts++ }}
		seen := make(map[netip.Addr]int)
		for p := range hold(t, d, server, 4) {
			seen[p.Addr()]++
		}
		if seen[wan1.Addrs[0]] != 2 || seen[wan2.Addrs[0]] != 2 || attempts != 2*2+2*3 {
			t.Errorf("the server saw %v, after %d attempts", seen, attempts)
		}
		err := refused(t, d, tcp(server))
		wantErr(t, err, dialer.ErrPorts)
		wantText(t, err, `"gone"`, `"wan1"`, `"wan2"`, server)

		full := &dialer.Pool{Name: "full", Of: []dialer.Member{{Source: wan1}, {Source: wan2}}, Retry: true}
		err = refused(t, &dialer.Dialer{Table: newTable(t, of(full))}, tcp(server))
		wantErr(t, err, dialer.ErrPorts)
		if errors.Is(err, dialer.ErrSourceDown) {
			t.Errorf("%v says that a source is down", err)
		}

		without := &dialer.Pool{Name: "no", Of: full.Of}
		err = refused(t, &dialer.Dialer{Table: newTable(t, of(without))}, tcp(server))
		wantErr(t, err, dialer.ErrPorts)
		wantText(t, err, `"wan1"`)

		attempts = 0
		d.Table = newTable(t, of(full))
		wantErr(t, refused(t, d, tcp("127.0.1.1:1")), syscall.ECONNREFUSED)
		if attempts != 1 {
			t.Errorf("the far side refused, and %d members were tried", attempts)
		}
	})
}

// TestFixedPort leaves from one port to two destinations, and again to a destination
// towards which that port is still in TIME_WAIT.
func TestFixedPort(t *testing.T) {
	inNamespace(t, "40000 40009", func(t *testing.T) {
		one, two := serve(t, "127.0.1.1:8080").String(), serve(t, "127.0.1.2:8080").String()
		d := &dialer.Dialer{Table: newTable(t, deny, dialer.Rule{Name: "fixed", Use: from(wan1), SourcePort: 5060})}
		want := netip.MustParseAddrPort("127.0.0.2:5060")
		for range 3 {
			c, _, err := d.DialFlow(t.Context(), tcp(one))
			if err != nil {
				t.Fatal(err)
			}
			if saw := peer(t, c); saw != want {
				t.Errorf("the server saw %v", saw)
			}
			closeFirst(t, c.(*net.TCPConn))
		}
		for _, dst := range []string{one, two} {
			if saw, _ := dial(t, d, tcp(dst)); saw != want {
				t.Errorf("the server saw %v", saw)
			}
		}
		c, _, err := d.DialFlow(t.Context(), tcp(one))
		if err == nil {
			_ = c.Close()
		}
		wantErr(t, err, dialer.ErrPorts)
		wantErr(t, err, syscall.EADDRNOTAVAIL)
		wantText(t, err, "port 5060 is in use", one, `"wan1"`)
		opError(t, err, want.String(), one)
	})
}

// closeFirst closes c so that TIME_WAIT is on this side.
func closeFirst(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPortHeldBySomebodyElse finds the fixed port bound by a listener.
func TestPortHeldBySomebodyElse(t *testing.T) {
	server := serve(t, "127.0.0.1:0").String()
	holder := serve(t, "127.0.0.2:0")
	d := &dialer.Dialer{Table: newTable(t, deny, dialer.Rule{Use: from(wan1), SourcePort: holder.Port()})}
	err := refused(t, d, tcp(server))
	wantErr(t, err, dialer.ErrPorts)
	wantErr(t, err, syscall.EADDRINUSE)
	opError(t, err, holder.String(), server)
}
