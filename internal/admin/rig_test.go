package admin

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/flows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a service that answers as it is told.
type fake struct {
	mu      sync.Mutex
	state   string
	reload  error
	reloads int
	explain error
	asked   *Question

	attached map[string]uint64
}

var _ Service = (*fake)(nil)

var when = time.Date(2026, 1, 2, 14, 2, 11, 0, time.UTC)

func (f *fake) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{
		Version: "v1.0.0", PID: 812, Config: "/etc/srcproxy/config.toml", State: f.state,
		Started: when, UptimeSeconds: 11520,
		Listeners: []Listener{
			{Name: "office", Kind: "mixed", Addresses: []string{"127.0.0.1:1080", "[::1]:1080"}, State: Up},
			{Name: "trunk", Kind: "udp", Addresses: []string{"127.0.0.1:5060"}, State: Up},
		},
		Connections: Usage{2, 5000}, UDPFlows: Usage{0, 100000}, Descriptors: Usage{19, 20000},
	}
}

func (f *fake) Way(st *egress.Status) string {
	if st.Name == "wan1" {
		return "eth0 via 198.51.100.1"
	}
	return ""
}

func (f *fake) Attached() map[string]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.attached)
}

func (f *fake) Ports() []egress.PortUse { return nil }

func (f *fake) Places(source string) Usage {
	if source == "lte" {
		return Usage{9, 10}
	}
	return Usage{}
}

func (f *fake) Sources() []egress.Status {
	return []egress.Status{
		{Name: "wan1", Addr: "198.51.100.10", Since: when},
		{Name: "lte", Addr: "192.0.2.7", State: egress.Down, Since: when, Reason: "probe 203.0.113.1:443 timed out"},
		{Name: "mail", Addr: "198.51.100.25", Since: when},
		{Name: "mail", Addr: "2001:db8::25", State: egress.Waiting, Since: when, Reason: "is not on this host"},
	}
}

func (f *fake) Pools() []Pool {
	return []Pool{
		{Name: "web", Pick: "sticky", Of: []string{"wan1", "lte"}},
		{Name: "safe", Pick: "first-up", Of: []string{"lte", "wan1"}},
		{Name: "only", Pick: "first-up", Of: []string{"lte"}},
		{Name: "good", Pick: "first-up", Of: []string{"wan1", "lte"}},
	}
}

func (f *fake) Rules() []Rule {
	return []Rule{
		{Number: 1, Name: "mail keeps its address", Use: "mail", Position: "config.toml:16"},
		{Number: 2, Name: "rule 2", Use: "deny", Position: "config.toml:20"},
		{Name: "default", Use: "wan1", Position: "config.toml:1"},
	}
}

func (f *fake) Configuration() (path, sum string) { return "/etc/srcproxy/config.toml", "5eed" }

func (f *fake) Reload(context.Context) (Reloaded, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads++
	return Reloaded{Reloads: f.reloads, Config: "/etc/srcproxy/config.toml", Changes: []Change{}}, f.reload
}

func (f *fake) Explain(_ context.Context, q *Question) (*explain.Answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = q
	return &explain.Answer{Destination: "a.example:25"}, f.explain
}

// rig is a server on a socket of its own, with its clients.
type rig struct {
	*Client
	service *fake
	flows   *flows.Registry
}

func newRig(t *testing.T) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	r := &rig{Client: &Client{Paths: []string{path}}, service: &fake{state: Running}, flows: &flows.Registry{}}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Service: r.service, Flows: r.flows, Log: slog.New(slog.DiscardHandler)}
	s.Serve(l)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wantGone(t, path)
	})
	return r
}

// info is a flow of the proxy at office.
func info(rule, source string, n uint16) flows.Info {
	return flows.Info{
		Listener: "office", Network: "tcp", User: "ann", Session: "1", Rule: rule, Source: source,
		Client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), n),
		Dst:    netip.MustParseAddrPort("203.0.113.25:25"), Name: "smtp.mail.example",
		Src: netip.MustParseAddrPort("198.51.100.25:41233"),
	}
}
