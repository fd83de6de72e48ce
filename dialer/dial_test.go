//go:build linux

package dialer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// The ways in which programs ask for a dialer.
var (
	_ func(context.Context, string, string) (net.Conn, error) = new(dialer.Dialer).DialContext
	_ func(string, string) (net.Conn, error)                  = new(dialer.Dialer).Dial
	_ dialer.Resolver                                         = net.DefaultResolver
)

// TestZeroDialer holds the zero Dialer against the zero net.Dialer.
func TestZeroDialer(t *testing.T) {
	server4, server6 := serve(t, "127.0.0.1:0"), serve(t, "[::1]:0")
	for _, address := range []string{
		server4.String(), server6.String(), "[::ffff:127.0.0.1]:" + port(server4), "localhost:" + port(server4),
		"127.0.0.1:1", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:4294967376", "127.0.0.1:nosuchservice",
	} {
		for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "sctp"} {
			var zero dialer.Dialer
			got, gotErr := zero.Dial(network, address)
			want, wantErr := new(net.Dialer).Dial(network, address)
			if (gotErr == nil) != (wantErr == nil) {
				t.Errorf("%s %s: error %v, net has %v", network, address, gotErr, wantErr)
			}
			for _, c := range []net.Conn{got, want} {
				if c != nil {
					_ = c.Close()
				}
			}
			if gotErr == nil && wantErr == nil && got.RemoteAddr().String() != want.RemoteAddr().String() {
				t.Errorf("%s %s: connected to %v, net to %v", network, address, got.RemoteAddr(), want.RemoteAddr())
			}
			if oe := (*net.OpError)(nil); gotErr != nil && (!errors.As(gotErr, &oe) || oe.Op != "dial" || oe.Net != network) {
				t.Errorf("%s %s: error %v is no *net.OpError of a dial", network, address, gotErr)
			}
		}
	}
}

func TestDialFromSource(t *testing.T) {
	server, other, server6 := serve(t, "127.0.0.1:0"), serve(t, "127.0.0.9:0"), serve(t, "[::1]:0")
	d := &dialer.Dialer{Table: newTable(t, from(mail),
		dialer.Rule{Name: "nine", To: to("127.0.0.9"), Use: from(wan2)},
		dialer.Rule{Name: "user", User: []string{"crawler"}, Use: from(wan1)},
	)}
	for _, tt := range []struct{ dst, user, want, rule string }{
		{server.String(), "", "127.0.0.4", "default"},
		{server6.String(), "", "::1", "default"},
		{"[::ffff:127.0.0.1]:" + port(server), "", "127.0.0.4", "default"},
		{other.String(), "crawler", "127.0.0.3", "nine"},
		{server.String(), "crawler", "127.0.0.2", "user"},
	} {
		f := tcp(tt.dst)
		f.User = tt.user
		saw, dec := dial(t, d, f)
		if saw.Addr() != netip.MustParseAddr(tt.want) || dec.Addr != saw.Addr() || dec.Rule != tt.rule {
			t.Errorf("%v as %q: the server saw %v, want %v; decision %+v", tt.dst, tt.user, saw, tt.want, dec)
		}
		c, err := d.DialContext(dialer.WithFlow(t.Context(), f), "tcp", tt.dst)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if saw := peer(t, c); saw.Addr() != netip.MustParseAddr(tt.want) {
			t.Errorf("DialContext %v: the server saw %v, want %v", tt.dst, saw, tt.want)
		}
		if _, ok := c.(*net.TCPConn); !ok {
			t.Errorf("the connection is a %T", c)
		}
	}
}

// TestWithFlow wants the destination of the call, not the one left in the context.
func TestWithFlow(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	var seen dialer.Flow
	d := &dialer.Dialer{
		Table:  newTable(t, from(wan1)),
		OnDial: func(f dialer.Flow, _ dialer.Decision, _ error) { seen = f },
	}
	old := named("old.example", "192.0.2.1:9")
	old.Network, old.User, old.Session, old.Listener, old.LocalPort = "udp", "u", "s", "l", 7
	old.Client, old.Asked = netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	c, err := d.DialContext(dialer.WithFlow(t.Context(), old), "tcp4", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := old
	want.Network, want.Name, want.Dst = "tcp4", "", server
	if seen != want {
		t.Errorf("the flow is %+v, want %+v", seen, want)
	}
}

func TestTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }))
	defer server.Close()
	d := &dialer.Dialer{Table: newTable(t, deny, dialer.Rule{User: []string{"a"}, Use: from(wan1)}, dialer.Rule{User: []string{"b"}, Use: from(wan2)})}
	for user, want := range map[string]string{"a": "127.0.0.2:", "b": "127.0.0.3:"} {
		transport := &http.Transport{DialContext: d.DialContext}
		defer transport.CloseIdleConnections()
		ctx := dialer.WithFlow(t.Context(), dialer.Flow{User: user})
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || !strings.HasPrefix(string(body), want) {
			t.Errorf("user %s: the server saw %s, want %s (%v)", user, body, want, err)
		}
	}
}

func TestGuard(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	errOwn := errors.New("an address of this host")
	var asked dialer.Flow
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Resolver: answers{"a.example": addrs("127.0.0.1")}}
	d.Guard = func(f dialer.Flow, dec dialer.Decision) error {
		asked = f
		if dec.Addr != wan1.Addrs[0] {
			t.Errorf("decision %+v", dec)
		}
		return errOwn
	}
	err := refused(t, d, tcp("a.example:"+port(server)))
	wantErr(t, err, errOwn)
	if r := (*dialer.RefusedError)(nil); !errors.As(err, &r) || r.Decision.Rule != "default" {
		t.Errorf("%v is no *RefusedError", err)
	}
	if asked.Dst != server || asked.Name != "a.example" {
		t.Errorf("asked about %+v", asked)
	}
	wantErr(t, d.Decide(tcp("192.0.2.1:80")).Err, errOwn)
}

func TestOnDial(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	type call struct {
		dst  netip.AddrPort
		addr netip.Addr
		err  error
	}
	var calls []call
	d := &dialer.Dialer{
		Table:         newTable(t, from(wan1), dialer.Rule{To: to("127.0.0.9"), Use: deny}),
		Resolver:      answers{"a.example": addrs("127.0.0.9", "127.0.0.8", "127.0.0.1", "127.0.0.7")},
		FallbackDelay: -1,
		OnDial:        func(f dialer.Flow, dec dialer.Decision, err error) { calls = append(calls, call{f.Dst, dec.Addr, err}) },
	}
	saw, _ := dial(t, d, tcp("a.example:"+port(server)))
	if saw.Addr() != wan1.Addrs[0] || len(calls) != 3 {
		t.Fatalf("the server saw %v, after %v", saw, calls)
	}
	wantErr(t, calls[0].err, dialer.ErrDenied)
	wantErr(t, calls[1].err, errRefused)
	if calls[2].err != nil || calls[2].dst != server || calls[2].addr != saw.Addr() {
		t.Errorf("%v", calls[2])
	}
}

// TestStateIsAsked dials with the first member down, and again when it is up.
func TestStateIsAsked(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	s := downs(wan1)
	d := dialerOf(t, s, &dialer.Pool{Name: "safe", Of: []dialer.Member{{Source: wan1}, {Source: wan2}}})
	if saw, _ := dial(t, d, tcp(server.String())); saw.Addr() != wan2.Addrs[0] {
		t.Errorf("first member down: the server saw %v", saw)
	}
	delete(s.down, wan1)
	if saw, _ := dial(t, d, tcp(server.String())); saw.Addr() != wan1.Addrs[0] {
		t.Errorf("all up: the server saw %v", saw)
	}
	s.down[wan1], s.down[wan2] = errNoCarrier, errNoCarrier
	err := refused(t, d, tcp(server.String()))
	wantErr(t, err, dialer.ErrSourceDown)
	wantErr(t, err, errNoCarrier)
}

func TestResolve(t *testing.T) {
	d := &dialer.Dialer{Resolver: answers{
		"both.example": addrs("192.0.2.1", "192.0.2.2", "2001:db8::1", "::ffff:192.0.2.1", "192.0.2.3"),
		"four.example": addrs("192.0.2.1"),
		"none.example": nil,
	}}
	for _, tt := range []struct {
		network string
		prefer4 bool
		want    []netip.Addr
	}{
		{"tcp", false, addrs("2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3")},
		{"tcp", true, addrs("192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3")},
		{"tcp4", false, addrs("192.0.2.1", "192.0.2.2", "192.0.2.3")},
		{"udp6", true, addrs("2001:db8::1")},
	} {
		d.PreferIPv4 = tt.prefer4
		f := tcp("both.example:80")
		f.Network = tt.network
		flows, _, err := d.Resolve(t.Context(), f)
		if err != nil || len(flows) != len(tt.want) {
			t.Fatalf("%s: %v, %v", tt.network, flows, err)
		}
		for i, f := range flows {
			if f.Dst != netip.AddrPortFrom(tt.want[i], 80) || f.Name != "both.example" {
				t.Errorf("%s: address %d is %v of %q, want %v", tt.network, i, f.Dst, f.Name, tt.want[i])
			}
		}
	}
	for _, name := range []string{"four.example", "none.example", "unknown.example"} {
		f := tcp(name + ":80")
		f.Network = "tcp6"
		_, _, err := d.Resolve(t.Context(), f)
		if de := (*net.DNSError)(nil); !errors.As(err, &de) || !de.IsNotFound || de.Name != name {
			t.Errorf("%s: error %v", name, err)
		}
	}
	many := make([]netip.Addr, 1000)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
	}
	d.Resolver = answers{"many.example": many}
	if flows, _, err := d.Resolve(t.Context(), tcp("many.example:80")); len(flows) != 32 || err != nil {
		t.Errorf("%d addresses of 1000 would be tried (%v)", len(flows), err)
	}
}

// TestResolveForgetsTheAddress resolves a flow that was resolved before.
func TestResolveForgetsTheAddress(t *testing.T) {
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Resolver: answers{"a.example": addrs("192.0.2.2")}}
	flows, _, err := d.Resolve(t.Context(), named("a.example", "192.0.2.1:80"))
	if err != nil || len(flows) != 1 || flows[0].Dst != netip.MustParseAddrPort("192.0.2.2:80") {
		t.Errorf("%v, %v", flows, err)
	}
}

// TestCancelled wants no packet once the context has ended.
func TestCancelled(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), Resolver: answers{"a.example": addrs("127.0.0.1", "127.0.0.2")}}
	d.Control = controlFails(t)
	for _, address := range []string{server.String(), "a.example:" + port(server)} {
		_, err := d.DialContext(ctx, "tcp", address)
		wantErr(t, err, context.Canceled)
		_, err = d.DialContext(past, "tcp", address)
		wantErr(t, err, context.DeadlineExceeded)
		if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
	}
}
