package egress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/host"
)

// fakeHost is a host whose addresses the test sets. All are on eth0.
type fakeHost struct {
	mu      sync.Mutex
	now     *host.Snapshot
	changed chan struct{}
	routes  chan struct{}
}

func newFakeHost(addrs ...string) *fakeHost {
	h := &fakeHost{changed: make(chan struct{}), routes: make(chan struct{})}
	h.set(addrs...)
	return h
}

// set makes addrs the addresses. One with a slash is a local route; a flag may follow
// an address after a space.
func (h *fakeHost) set(addrs ...string) {
	flags := map[string]host.Flags{"": 0, "tentative": host.Tentative, "dadfailed": host.DADFailed | host.Tentative}
	var list []host.Address
	var routes []netip.Prefix
	for _, s := range addrs {
		if strings.Contains(s, "/") {
			routes = append(routes, netip.MustParsePrefix(s))
			continue
		}
		text, flag, _ := strings.Cut(s, " ")
		a := netip.MustParseAddr(text)
		list = append(list, host.Address{Addr: a, Prefix: netip.PrefixFrom(a, a.BitLen()), Link: "eth0", Flags: flags[flag]})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = host.NewSnapshot([]host.Link{{Index: 2, Name: "eth0", Up: true}}, list, routes)
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *fakeHost) Now() *host.Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *fakeHost) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *fakeHost) RoutesChanged() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.routes
}

// reroute tells that routes have changed.
func (h *fakeHost) reroute() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.routes)
	h.routes = make(chan struct{})
}

// lived runs f in a bubble with Sources that follow h. Unless it is nil, set gives them
// more of their fields before that.
func lived(t *testing.T, h *fakeHost, set func(*egress.Sources), f func(t *testing.T, s *egress.Sources, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := new(bytes.Buffer)
		h.changed, h.routes = make(chan struct{}), make(chan struct{}) // of the bubble
		s := &egress.Sources{Host: h, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: withoutTime}))}
		if set != nil {
			set(s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		defer running.Wait()
		defer cancel()
		f(t, s, log)
	})
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func single(name string, addrs ...string) egress.Source {
	s := &dialer.Source{Name: name}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
	}
	return egress.Source{Source: s}
}

func following(name, link string) egress.Source {
	return egress.Source{Source: &dialer.Source{Name: name, Interface: link}}
}

func prefixed(name, prefix string) egress.Source {
	return egress.Source{Source: &dialer.Source{Name: name, Prefix: netip.MustParsePrefix(prefix)}}
}

func ranged(name, first, last string) egress.Source {
	return egress.Source{Source: &dialer.Source{Name: name, First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}}
}

// states writes Status in short: "wan 198.51.100.10 up".
func states(s *egress.Sources) string {
	var out []string
	for _, x := range s.Status() {
		line := fmt.Sprintf("%s %s %s", x.Name, x.Addr, x.State)
		if x.Reason != "" {
			line += ": " + x.Reason
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestConditions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source egress.Source
		before []string // the addresses at first
		after  []string // and later
		want   string
	}{
		{"here", single("wan", "198.51.100.10"), nil, []string{"198.51.100.10"}, "wan 198.51.100.10 up"},
		{"never here", single("wan", "198.51.100.10"), nil, nil, "wan 198.51.100.10 waiting: 198.51.100.10 is not on this host"},
		{"gone", single("wan", "198.51.100.10"), []string{"198.51.100.10"}, nil, "wan 198.51.100.10 down: 198.51.100.10 is not on this host"},
		{
			"one family gone", single("wan", "198.51.100.10", "2001:db8::10"),
			[]string{"198.51.100.10", "2001:db8::10"},
			[]string{"198.51.100.10"},
			"wan 198.51.100.10 up\nwan 2001:db8::10 down: 2001:db8::10 is not on this host",
		},
		{
			"tentative", single("wan", "2001:db8::10"), nil,
			[]string{"2001:db8::10 tentative"},
			"wan 2001:db8::10 waiting: 2001:db8::10 (eth0) is still tentative: duplicate address detection is not over",
		},
		{
			"duplicate", single("wan", "2001:db8::10"),
			[]string{"2001:db8::10"},
			[]string{"2001:db8::10 dadfailed"},
			"wan 2001:db8::10 down: 2001:db8::10 (eth0) is on another host of the link, too: duplicate address detection failed",
		},
		{"prefix", prefixed("crawl", "2001:db8:64::/64"), nil, []string{"2001:db8:64::/64"}, "crawl 2001:db8:64::/64 up"},
		{
			"prefix without a route", prefixed("crawl", "2001:db8:64::/64"), nil,
			[]string{"2001:db8:64::1"},
			"crawl 2001:db8:64::/64 broken: 2001:db8:64::/64 has no local route, so that answers do not arrive (ip -6 route add local 2001:db8:64::/64 dev lo)",
		},
		{"some of a range", ranged("batch", "198.51.100.64", "198.51.100.95"), nil, []string{"198.51.100.95"}, "batch 198.51.100.64-198.51.100.95 up"},
		{
			"none of a range", ranged("batch", "198.51.100.64", "198.51.100.95"),
			[]string{"198.51.100.70"},
			[]string{"198.51.100.96"},
			"batch 198.51.100.64-198.51.100.95 down: no address of 198.51.100.64-198.51.100.95 is on this host",
		},
		{"link", following("dsl", "eth0"), nil, []string{"198.51.100.10"}, "dsl 198.51.100.10 up"},
		{"link of IPv6", following("dsl", "eth0"), nil, []string{"2001:db8::10"}, "dsl 2001:db8::10 up"},
		{"link of both", following("dsl", "eth0"), nil, []string{"198.51.100.10", "2001:db8::10"}, "dsl 198.51.100.10 up\ndsl 2001:db8::10 up"},
		{"link with another address", following("dsl", "eth0"), []string{"198.51.100.10"}, []string{"198.51.100.11"}, "dsl 198.51.100.11 up"},
		{
			"link that lost a family", following("dsl", "eth0"),
			[]string{"198.51.100.10", "2001:db8::10"},
			[]string{"198.51.100.10"},
			"dsl 198.51.100.10 up\ndsl 2001:db8::10 down: eth0 has no global IPv6 address that is neither temporary nor deprecated",
		},
		{"link without an address", following("dsl", "eth0"), nil, nil, "dsl eth0 waiting: eth0 has no global IPv4 address"},
		{"no such link", following("dsl", "ppp0"), nil, []string{"198.51.100.10"}, "dsl ppp0 waiting: ppp0 is not there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost(tt.before...)
			lived(t, h, nil, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
				s.Set([]egress.Source{tt.source})
				h.set(tt.after...)
				synctest.Wait()
				if got := states(s); got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
			})
		})
	}
}

// TestLog has one line for each change, and none for what is up at first.
func TestLog(t *testing.T) {
	h := newFakeHost("198.51.100.10")
	lived(t, h, nil, func(t *testing.T, s *egress.Sources, log *bytes.Buffer) {
		list := []egress.Source{single("wan", "198.51.100.10"), single("mail", "198.51.100.25")}
		s.Set(list)
		s.Set(list)
		h.set("198.51.100.10", "192.0.2.1")
		synctest.Wait()
		h.set("198.51.100.25")
		synctest.Wait()
		s.SetProbe("mail", netip.MustParseAddr("198.51.100.25"), errors.New("probe timed out"))
		s.SetProbe("mail", netip.MustParseAddr("198.51.100.25"), errors.New("probe was refused"))
		s.SetProbe("mail", netip.MustParseAddr("198.51.100.25"), nil)
		want := `level=WARN msg="source changed" source=mail addr=198.51.100.25 state=waiting err="198.51.100.25 is not on this host"
level=WARN msg="source changed" source=wan addr=198.51.100.10 state=down err="198.51.100.10 is not on this host"
level=INFO msg="source changed" source=mail addr=198.51.100.25 state=up
level=WARN msg="source changed" source=mail addr=198.51.100.25 state=down err="probe timed out"
level=INFO msg="source changed" source=mail addr=198.51.100.25 state=up
`
		if got := log.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

// TestLogOfLink tells of families that the link has, and of a new address.
func TestLogOfLink(t *testing.T) {
	h := newFakeHost()
	lived(t, h, nil, func(t *testing.T, s *egress.Sources, log *bytes.Buffer) {
		s.Set([]egress.Source{following("dsl", "eth0")})
		for _, a := range []string{"198.51.100.10", "198.51.100.11"} {
			h.set(a)
			synctest.Wait()
			s.SetProbe("dsl", netip.MustParseAddr(a), errors.New("probe timed out"))
		}
		h.set("198.51.100.11")
		synctest.Wait()
		h.set("2001:db8::10")
		synctest.Wait()
		want := `level=WARN msg="source changed" source=dsl addr=eth0 state=waiting err="eth0 has no global IPv4 address"
level=INFO msg="source changed" source=dsl addr=198.51.100.10 state=up
level=WARN msg="source changed" source=dsl addr=198.51.100.10 state=down err="probe timed out"
level=INFO msg="source changed" source=dsl addr=198.51.100.11 state=up
level=WARN msg="source changed" source=dsl addr=198.51.100.11 state=down err="probe timed out"
level=INFO msg="source changed" source=dsl addr=2001:db8::10 state=up
`
		if got := log.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

// TestProbe keeps a source from being used while its probe fails, and in its family
// alone.
func TestProbe(t *testing.T) {
	four, six := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	h := newFakeHost(four.String(), six.String())
	lived(t, h, nil, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		src := single("wan", four.String(), six.String())
		s.Set([]egress.Source{src})
		state := &egress.State{Host: h.Now(), Sources: s}
		failed := errors.New("probe timed out")
		changed := s.Changed()
		s.SetProbe("wan", six, failed)
		select {
		case <-changed:
		default:
			t.Error("the change was not told")
		}
		if err := state.Down(src.Source, six); !errors.Is(err, failed) {
			t.Errorf("IPv6: got %v, want %v", err, failed)
		}
		if err := state.Down(src.Source, four); err != nil {
			t.Errorf("IPv4: got %v, want nil", err)
		}
		s.SetProbe("wan", netip.MustParseAddr("2001:db8::99"), nil) // of an address that it had once
		if err := state.Down(src.Source, six); !errors.Is(err, failed) {
			t.Errorf("after the result of another address: got %v, want %v", err, failed)
		}
		s.Set([]egress.Source{src}) // a reload
		if err := state.Down(src.Source, six); !errors.Is(err, failed) {
			t.Errorf("after a reload: got %v, want %v", err, failed)
		}
		s.Set([]egress.Source{single("wan", four.String(), "2001:db8::11")})
		if err := state.Down(src.Source, six); err != nil {
			t.Errorf("after a reload with another address: got %v, want nil", err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = state.Down(src.Source, four) }); n != 0 {
			t.Errorf("Down: got %v allocations, want 0", n)
		}
	})
}

// TestSince keeps the moment of the change over reloads.
func TestSince(t *testing.T) {
	h := newFakeHost("198.51.100.10")
	lived(t, h, nil, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		list := []egress.Source{single("wan", "198.51.100.10")}
		s.Set(list)
		time.Sleep(time.Minute)
		h.set()
		synctest.Wait()
		fell := time.Now()
		time.Sleep(time.Minute)
		s.Set(list)
		if got := s.Status()[0]; got.State != egress.Down || !got.Since.Equal(fell) {
			t.Errorf("got %v since %v, want down since %v", got.State, got.Since, fell)
		}
	})
}

// TestEndFlows tells whose flows are to end, and when.
func TestEndFlows(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.10")
	free := single("free", "198.51.100.10")
	free.FreeBind = true
	held := single("held", "198.51.100.10")
	held.Hold = 5 * time.Second
	h := newFakeHost("198.51.100.10", "198.51.100.11")
	type end struct {
		source string
		after  time.Duration
	}
	var ended []end
	live := []string{"now", "free", "held", "kernel"}
	set := func(s *egress.Sources) {
		start := time.Now() // of the bubble
		s.EndFlows = func(lost func(string, netip.Addr) bool) {
			live = slices.DeleteFunc(live, func(name string) bool {
				if !lost(name, address) {
					return false
				}
				ended = append(ended, end{name, time.Since(start)})
				return true
			})
		}
	}
	lived(t, h, set, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		s.Set([]egress.Source{single("now", "198.51.100.10"), free, held})
		synctest.Wait()
		h.set("198.51.100.11")
		synctest.Wait()
		time.Sleep(3 * time.Second)
		h.set("198.51.100.10") // back in time
		time.Sleep(3 * time.Second)
		h.set("198.51.100.11")
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []end{{"now", 0}, {"kernel", 0}, {"held", 11 * time.Second}}
		if !slices.Equal(ended, want) {
			t.Errorf("got %v, want %v", ended, want)
		}
	})
}

// TestWhile ends what waits on an address with it.
func TestWhile(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.10")
	h := newFakeHost("198.51.100.10")
	lived(t, h, nil, func(t *testing.T, s *egress.Sources, _ *bytes.Buffer) {
		s.Set([]egress.Source{single("wan", "198.51.100.10")})
		ctx, cancel := s.While(t.Context(), "wan", address)
		defer cancel()
		other, cancelOther := s.While(t.Context(), "wan", address)
		cancelOther()
		if ctx.Err() != nil || context.Cause(other) == egress.ErrLost {
			t.Fatalf("before: %v, %v", context.Cause(ctx), context.Cause(other))
		}
		h.set()
		synctest.Wait()
		if err := context.Cause(ctx); err != egress.ErrLost {
			t.Errorf("got %v, want %v", err, egress.ErrLost)
		}
		late, cancelLate := s.While(t.Context(), "wan", address)
		defer cancelLate()
		if err := context.Cause(late); err != egress.ErrLost {
			t.Errorf("begun too late: got %v, want %v", err, egress.ErrLost)
		}
	})
}
