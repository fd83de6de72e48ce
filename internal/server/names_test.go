package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
)

// nameServer answers with what stands in it; for other names with its error.
type nameServer struct {
	mu    sync.Mutex
	addrs map[string][]string
	err   error
}

func (s *nameServer) set(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs[name] = addrs
}

func (s *nameServer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// LookupNetIP implements dialer.Resolver.
func (s *nameServer) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	var out []netip.Addr
	for _, text := range s.addrs[name] {
		if a := netip.MustParseAddr(text); a.Is4() == (network == "ip4") {
			out = append(out, a)
		}
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return out, nil
}

const namedConfig = `
default = "kernel"
[sources]
a = ["198.51.100.1", "2001:db8:1::1"]
b = "198.51.100.2"
[[rules]]
name = "names"
to   = ["a.example", "*.a.example", "203.0.113.99"]
use  = "a"
[[rules]]
name = "denied"
to   = "203.0.113.64/26"
use  = "deny"
[[rules]]
name = "map"
[rules.map]
"b.example" = "b"
"c.example" = "a"
"203.0.113.9" = "a"
[[attach]]
cgroup = "/x"
names  = "resolve"
`

// decides returns the rule that decides about an address, by the rules of n.
func decides(t *testing.T, n *resolved, dst string) string {
	t.Helper()
	table, err := n.config.Table()
	if err != nil {
		t.Fatal(err)
	}
	if table, err = dialer.NewTable(n.rules(n.config, table), n.config.Default); err != nil {
		t.Fatal(err)
	}
	d := table.Lookup(dialer.Flow{Network: "tcp", Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), 80)})
	return fmt.Sprintf("%s %v", d.Rule, d.Use)
}

func parseNamed(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := config.Parse("config.toml", []byte(namedConfig))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestNamesStandForAddresses(t *testing.T) {
	s := &nameServer{addrs: map[string][]string{
		"a.example": {"203.0.113.1", "2001:db8:2::1", "203.0.113.65", "127.0.0.1", "169.254.1.1"},
		"b.example": {"203.0.113.8", "203.0.113.9", "203.0.113.10"},
		"c.example": {"203.0.113.10"},
	}}
	n := newResolved(parseNamed(t), s, nil)
	if want := []string{"a.example", "b.example", "c.example"}; !slices.Equal(n.names, want) {
		t.Errorf("got the names %q, want %q", n.names, want)
	}
	if got := decides(t, n, "203.0.113.1"); got != "default kernel" {
		t.Errorf("before it is known: got %s", got)
	}
	if !n.look(t.Context()) || n.look(t.Context()) {
		t.Error("the first look has changed nothing, or the second has")
	}
	for dst, want := range map[string]string{
		"203.0.113.1":   "names a",
		"2001:db8:2::1": "names a",
		"203.0.113.99":  "names a",
		"203.0.113.65":  "denied deny", // by its address
		"127.0.0.1":     "default kernel",
		"169.254.1.1":   "default kernel",
		"203.0.113.2":   "default kernel",
		"203.0.113.8":   "map b",
		"203.0.113.9":   "map a", // a key itself
		"203.0.113.10":  "map b", // both have it
	} {
		if got := decides(t, n, dst); got != want {
			t.Errorf("%s: got %s, want %s", dst, got, want)
		}
	}
	next := newResolved(parseNamed(t), s, n)
	if got := decides(t, next, "203.0.113.1"); got != "names a" {
		t.Errorf("after a reload: got %s", got)
	}
}

// TestNamesChange: an address stays for namesHold after the last answer with it, and
// for ever while nobody answers.
func TestNamesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &nameServer{addrs: map[string][]string{"a.example": {"203.0.113.1"}}}
		n := newResolved(parseNamed(t), s, nil)
		changes := make(chan struct{}, 100)
		n.first(t.Context())
		n.start(t.Context(), func(*resolved) { changes <- struct{}{} })
		defer n.stop()
		known := func() string {
			synctest.Wait()
			return fmt.Sprint(n.of("a.example"), len(changes))
		}
		want := func(what, want string) {
			t.Helper()
			if got := known(); got != want {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		want("first", "[203.0.113.1] 0")
		s.set("a.example", "203.0.113.2")
		time.Sleep(namesEvery)
		want("another", "[203.0.113.1 203.0.113.2] 1")
		time.Sleep(namesHold + namesEvery)
		want("after the hold", "[203.0.113.2] 2")
		s.fail(errors.New("nobody answers"))
		time.Sleep(10 * namesHold)
		want("nobody answers", "[203.0.113.2] 2")
		s.fail(nil)
		s.set("a.example")
		time.Sleep(namesHold + 2*namesEvery)
		want("no such name", "[] 3")
	})
}
