package egress_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/egress"
)

// probed runs probes of a source at 127.0.0.2 on a host that has no other address.
type probed struct {
	*egress.Probes
	source *dialer.Source
}

func newProbed(t *testing.T) *probed {
	t.Helper()
	h := newFakeHost("127.0.0.2")
	s := &egress.Sources{Host: h}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	p := &probed{
		Probes: &egress.Probes{Host: h.Now(), Sources: s},
		source: &dialer.Source{Name: "lte", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}},
	}
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	t.Cleanup(p.Close)
	return p
}

// set probes the source, every few milliseconds.
func (p *probed) set(kind egress.ProbeKind, targets ...string) {
	probe := &egress.Probe{Kind: kind, Targets: targets, Every: 10 * time.Millisecond, Timeout: 5 * time.Second, Rise: 1, Fall: 2}
	list := []egress.Source{{Source: p.source, Probe: probe}}
	p.Sources.Set(list)
	p.Set(list, egress.NewResolver(&dialer.Dialer{}, egress.DNS{}, nil))
}

// want waits until the source is in that state.
func (p *probed) want(t *testing.T, want string) {
	t.Helper()
	got := ""
	deadline := time.After(20 * time.Second)
	for {
		changed := p.Sources.Changed()
		if got = states(p.Sources); strings.HasPrefix(got, want) {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the source is %q, want %q", got, want)
		}
	}
}

// TestProbeTCP goes down and up with its target, and is tested from the source.
func TestProbeTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := l.Addr().String()
	var peers atomic.Value
	peers.Store("")
	accept := func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			peers.Store(c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}
	go accept(l)
	p := newProbed(t)
	p.set(egress.ProbeTCP, target)
	waitFor(t, func() bool { return peers.Load() == "127.0.0.2" })
	p.want(t, "lte 127.0.0.2 up")
	l.Close()
	p.want(t, "lte 127.0.0.2 down: probe "+target+": connect: connection refused")
	if l, err = net.Listen("tcp", target); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go accept(l)
	p.want(t, "lte 127.0.0.2 up")
}

// TestProbeHTTP takes 2xx and 3xx for well, and does not go where a redirection points.
func TestProbeHTTP(t *testing.T) {
	var status atomic.Int64
	status.Store(http.StatusFound)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" || !strings.HasPrefix(r.RemoteAddr, "127.0.0.2:") {
			t.Errorf("%s asked for %s", r.RemoteAddr, r.URL)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	defer s.Close()
	p := newProbed(t)
	p.set(egress.ProbeHTTP, s.URL+"/health")
	p.want(t, "lte 127.0.0.2 up")
	status.Store(http.StatusServiceUnavailable)
	p.want(t, "lte 127.0.0.2 down: probe "+s.URL+"/health: the answer is 503 Service Unavailable")
	status.Store(http.StatusOK)
	p.want(t, "lte 127.0.0.2 up")
	s.Close()
	p.want(t, "lte 127.0.0.2 down: probe "+s.URL+"/health: connect: connection refused")
}

// TestProbeDNS takes any answer about the name, but none that the server failed.
func TestProbeDNS(t *testing.T) {
	var rcode atomic.Int64
	rcode.Store(int64(dnsmessage.RCodeNameError))
	s := serveNames(t, func(q *asked) *dnsmessage.Message { return code(q, dnsmessage.RCode(rcode.Load())) })
	target := "www.example@" + s.addr.String()
	p := newProbed(t)
	p.set(egress.ProbeDNS, target)
	p.want(t, "lte 127.0.0.2 up")
	rcode.Store(int64(dnsmessage.RCodeServerFailure))
	p.want(t, "lte 127.0.0.2 down: probe "+target+": the server failed (SERVFAIL)")
	rcode.Store(int64(dnsmessage.RCodeNameError))
	p.want(t, "lte 127.0.0.2 up")
	if got := s.queries()[0]; got != "udp A www.example" {
		t.Errorf("asked %q", got)
	}
}

// TestProbeReload: a probe that stays keeps its state; one that goes or becomes another
// takes back what it found.
func TestProbeReload(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	alive := httptest.NewServer(http.NotFoundHandler())
	defer alive.Close()
	p := newProbed(t)
	down := fmt.Sprintf("lte 127.0.0.2 down: probe %s: ", dead)
	p.set(egress.ProbeTCP, dead)
	p.want(t, down)
	for range 3 {
		p.set(egress.ProbeTCP, dead)
		if got := states(p.Sources); !strings.HasPrefix(got, down) {
			t.Errorf("after a reload: %s, want it down still", got)
		}
	}
	p.set(egress.ProbeTCP, strings.TrimPrefix(alive.URL, "http://"))
	if got, want := states(p.Sources), "lte 127.0.0.2 up"; got != want {
		t.Errorf("with another target: %s, want %s", got, want)
	}
	p.set(egress.ProbeTCP, dead)
	p.want(t, down)
	p.Sources.Set([]egress.Source{{Source: p.source}})
	p.Set([]egress.Source{{Source: p.source}}, nil)
	if got, want := states(p.Sources), "lte 127.0.0.2 up"; got != want {
		t.Errorf("without a probe: %s, want %s", got, want)
	}
}

// TestProbeWithoutAddress makes no tests while the source's address is away.
func TestProbeWithoutAddress(t *testing.T) {
	s := serveNames(t, func(q *asked) *dnsmessage.Message { return reply(q) })
	p := newProbed(t)
	p.source = &dialer.Source{Name: "lte", Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.10")}}
	p.set(egress.ProbeDNS, "www.example@"+s.addr.String())
	p.want(t, "lte 198.51.100.10 waiting: 198.51.100.10 is not on this host")
	p.source = &dialer.Source{Name: "lte", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}
	p.set(egress.ProbeDNS, "www.example@"+s.addr.String())
	waitFor(t, func() bool { return len(s.queries()) > 0 })
	p.Close()
	p.Close()
	p.set(egress.ProbeDNS, "www.example@"+s.addr.String()) // starts nothing
}

// TestProbeWithoutDevice: a source whose link is not there cannot be used, and has no
// other way to be found out.
func TestProbeWithoutDevice(t *testing.T) {
	p := newProbed(t)
	p.source = &dialer.Source{Name: "lte", Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, Device: "none0"}
	for kind, target := range map[egress.ProbeKind]string{egress.ProbeTCP: "127.0.0.1:9", egress.ProbeICMP: "127.0.0.1"} {
		if kind == egress.ProbeICMP && egress.CanPing() != nil {
			continue
		}
		p.set(kind, target)
		p.want(t, "lte 127.0.0.2 down: probe "+target+": source is not usable: source \"lte\": device none0: ")
	}
}

// TestProbeICMP pings the loopback, which needs a right or a group.
func TestProbeICMP(t *testing.T) {
	if err := egress.CanPing(); err != nil && os.Geteuid() != 0 {
		t.Logf("only the reason is looked at: %v", err)
		if !strings.Contains(err.Error(), "net.ipv4.ping_group_range") {
			t.Errorf("got %v", err)
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	p := newProbed(t)
	p.set(egress.ProbeICMP, "127.0.0.1")
	p.want(t, "lte 127.0.0.2 up")
	p.set(egress.ProbeICMP, "255.255.255.255")
	p.want(t, "lte 127.0.0.2 down: probe 255.255.255.255: ")
}
