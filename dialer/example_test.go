//go:build linux

package dialer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/srcproxy/srcproxy/dialer"
)

// The examples use loopback addresses, so that they run everywhere.
var (
	exampleWan  = &dialer.Source{Name: "wan", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}
	exampleMail = &dialer.Source{Name: "mail", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.3")}}
)

// whoami is an HTTP server that answers with the address it was called from.
func whoami() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
	}))
}

// What the rules name is the address the server sees; what they do not name is refused,
// and never left to the kernel.
func ExampleDialer() {
	server := httptest.NewServer(nil)
	defer server.Close()

	private, err := dialer.ParseMatch("127.0.0.0/8")
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := dialer.NewTable([]dialer.Rule{
		{Name: "near", To: []dialer.Match{private}, Use: dialer.Use{Source: exampleMail}},
	}, dialer.Use{}) // the zero Use denies
	if err != nil {
		fmt.Println(err)
		return
	}

	d := dialer.Dialer{Table: table}
	conn, err := d.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.LocalAddr().(*net.TCPAddr).IP)

	_, err = d.Dial("tcp", "192.0.2.1:80")
	fmt.Println(err)
	// Output:
	// 127.0.0.3
	// dial tcp 192.0.2.1:80: default: denied: 192.0.2.1:80
}

// A transport keeps idle connections by where they go, and not by where they come from:
// the second request to a host would go out on the first one's connection, whatever the
// rules say of it. So each source has a transport of its own.
func ExampleDialer_DialContext() {
	server := whoami()
	defer server.Close()

	clients := make(map[string]*http.Client)
	for _, s := range []*dialer.Source{exampleWan, exampleMail} {
		table, err := dialer.NewTable(nil, dialer.Use{Source: s})
		if err != nil {
			fmt.Println(err)
			return
		}
		d := &dialer.Dialer{Table: table}
		transport := &http.Transport{DialContext: d.DialContext} // without Proxy: that would dial from elsewhere
		defer transport.CloseIdleConnections()
		clients[s.Name] = &http.Client{Transport: transport}
	}

	for _, name := range []string{"wan", "mail", "wan"} {
		answer, err := clients[name].Get(server.URL)
		if err != nil {
			fmt.Println(err)
			return
		}
		saw, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		fmt.Println(name, string(saw), err)
	}
	// Output:
	// wan 127.0.0.2 <nil>
	// mail 127.0.0.3 <nil>
	// wan 127.0.0.2 <nil>
}

// The context tells the rules who asks.
func ExampleWithFlow() {
	server := httptest.NewServer(nil)
	defer server.Close()

	table, err := dialer.NewTable([]dialer.Rule{
		{User: []string{"postmaster"}, Use: dialer.Use{Source: exampleMail}},
	}, dialer.Use{Source: exampleWan})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := dialer.Dialer{Table: table}
	for _, user := range []string{"postmaster", "somebody"} {
		ctx := dialer.WithFlow(context.Background(), dialer.Flow{User: user})
		conn, err := d.DialContext(ctx, "tcp", server.Listener.Addr().String())
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(user, conn.LocalAddr().(*net.TCPAddr).IP)
		_ = conn.Close()
	}
	// Output:
	// postmaster 127.0.0.3
	// somebody 127.0.0.2
}

// One UDP socket sends to two destinations, from a source for each.
func ExamplePacketConn() {
	near, err := dialer.ParseMatch("127.0.1.1")
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := dialer.NewTable([]dialer.Rule{
		{To: []dialer.Match{near}, Use: dialer.Use{Source: exampleMail}},
	}, dialer.Use{Source: exampleWan})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := dialer.Dialer{Table: table}
	conn, err := d.ListenPacket(context.Background(), "udp4")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	for _, address := range []string{"127.0.1.1:0", "127.0.1.2:0"} {
		server, err := net.ListenPacket("udp", address)
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := conn.WriteTo([]byte("hello"), server.LocalAddr()); err != nil {
			fmt.Println(err)
			return
		}
		b := make([]byte, 16)
		n, peer, err := server.ReadFrom(b)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s from %v\n", b[:n], peer.(*net.UDPAddr).IP)
		_ = server.Close()
	}
	// Output:
	// hello from 127.0.0.3
	// hello from 127.0.0.2
}

// Walk explains why a flow leaves from where it does.
func ExampleTable_Walk() {
	names, err := dialer.ParseMatch("*.mail.example")
	if err != nil {
		fmt.Println(err)
		return
	}
	table, err := dialer.NewTable([]dialer.Rule{
		{Name: "mail", To: []dialer.Match{names}, Ports: []dialer.PortRange{{Lo: 25, Hi: 25}}, Use: dialer.Use{Source: exampleMail}},
		{User: []string{"crawler"}, Use: dialer.Use{Source: exampleWan}},
		{Name: "rest", Use: dialer.Use{Source: exampleWan}},
	}, dialer.Use{})
	if err != nil {
		fmt.Println(err)
		return
	}
	f := dialer.Flow{Network: "tcp", Name: "mx.mail.example", Dst: netip.MustParseAddrPort("192.0.2.25:587")}
	for i, r := range table.Walk(f) {
		fmt.Printf("%d %s: %v, %s\n", i, r.Rule, r.Matched, r.Text)
	}
	fmt.Println(table.Lookup(f).Addr)
	// Output:
	// 0 mail: false, port 587 is not in 25
	// 1 rule 2: false, user is not known here
	// 2 rest: true, has no condition
	// 127.0.0.2
}

// A refusal is told apart by errors.Is, and names the rule.
func ExampleRefusedError() {
	table, err := dialer.NewTable([]dialer.Rule{
		{Name: "nothing private", To: []dialer.Match{dialer.MatchPrefix(netip.MustParsePrefix("10.0.0.0/8"))}},
	}, dialer.Use{Source: exampleWan})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := dialer.Dialer{Table: table}
	for _, address := range []string{"10.0.0.1:80", "[2001:db8::1]:80"} {
		_, err := d.Dial("tcp", address)
		if r := (*dialer.RefusedError)(nil); errors.As(err, &r) {
			fmt.Println(r.Decision.Rule)
			fmt.Println(errors.Is(err, dialer.ErrDenied), errors.Is(err, dialer.ErrNoSource))
			fmt.Println(err)
		}
	}
	// Output:
	// nothing private
	// true false
	// dial tcp 10.0.0.1:80: rule "nothing private": denied: 10.0.0.1:80
	// default
	// false true
	// dial tcp [2001:db8::1]:80: default: no source of this family: source "wan" has no IPv6 address
}
