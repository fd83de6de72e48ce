package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/internal/flows"
)

// TestUnknownIsJSON: what the API does not have is an error in JSON as all others, and
// tells the methods that there are.
func TestUnknownIsJSON(t *testing.T) {
	h := (&Server{Service: &fake{state: Running}, Flows: new(flows.Registry), Log: slog.New(slog.DiscardHandler)}).Handler()
	for _, tt := range []struct {
		method, path, allow, want string
		code                      int
	}{
		{"GET", "/api/v2/status", "", "there is no /api/v2/status", http.StatusNotFound},
		{"GET", "/", "", "there is no /", http.StatusNotFound},
		{"POST", "/api/v1/status", "GET, HEAD", "/api/v1/status is for GET, HEAD, not for POST", http.StatusMethodNotAllowed},
		{"GET", "/api/v1/reload", "POST", "/api/v1/reload is for POST, not for GET", http.StatusMethodNotAllowed},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, "http://"+Host+tt.path, http.NoBody))
		var f failure
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != tt.code || f.Error != tt.want ||
			w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: got %d %v %s, want %d %q", tt.method, tt.path, w.Code, w.Header(), w.Body, tt.code, tt.want)
		}
	}
}

func TestConns(t *testing.T) {
	r := newRig(t)
	var reason error
	first := r.flows.Open(info("mail", "mail", 1000), func(err error) { reason = err })
	second := r.flows.Open(flows.Info{Network: "udp", Listener: "office", User: "a\x1b[2J", Client: netip.MustParseAddrPort("192.0.2.1:1001")}, nil)
	first.Up.Add(10)
	first.Down.Add(2000)
	got, err := r.Conns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Conns {
		if c := &got.Conns[i]; c.AgeSeconds <= 0 || c.Started.IsZero() {
			t.Errorf("connection %d: age %v, started %v", c.ID, c.AgeSeconds, c.Started)
		}
		got.Conns[i].AgeSeconds = 0
		got.Conns[i].Started = first.Start
	}
	want := []Conn{
		{
			ID: 1, Network: "tcp", Client: first.Client, Listener: "office", User: "ann", Session: "1", Dst: first.Dst,
			Name: first.Name, Rule: "mail", Source: "mail", Src: first.Src, BytesIn: 2000, BytesOut: 10, Started: first.Start,
		},
		{ID: 2, Network: "udp", Client: second.Client, Listener: "office", User: "a\u241b[2J", Started: first.Start},
	}
	if diff := cmp.Diff(want, got.Conns, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	closed, err := r.CloseConn(t.Context(), 1)
	if err != nil || closed.ID != 1 || !errors.Is(reason, flows.ErrClosed) {
		t.Errorf("close: got %+v, %v, the owner got %v", closed, err, reason)
	}
	first.Done(nil)
	for _, id := range []uint64{0, 1, 3} {
		_, err := r.CloseConn(t.Context(), id)
		if e := (*APIError)(nil); !errors.As(err, &e) || e.Code != http.StatusNotFound {
			t.Errorf("close %d: got %v, want that it is not there", id, err)
		}
	}
}

// TestManyConns: the answer comes whole, and the service never holds all of it.
func TestManyConns(t *testing.T) {
	r := newRig(t)
	none, err := r.Conns(t.Context())
	if err != nil || none.Conns == nil || len(none.Conns) != 0 {
		t.Errorf("without flows: got %+v, %v, want an empty list", none, err)
	}
	const n = 20000
	for i := range n {
		r.flows.Open(info("mail", "mail", uint16(i)), nil)
	}
	got, err := r.Conns(t.Context())
	if err != nil || len(got.Conns) != n {
		t.Fatalf("got %d connections, %v, want %d", len(got.Conns), err, n)
	}
	for i, c := range got.Conns {
		if c.ID != uint64(i+1) || c.Client.Port() != uint16(i) {
			t.Fatalf("connection %d: got %+v", i, c)
		}
	}
	(&Server{Service: r.service, Flows: r.flows}).conns(discard{}, nil)
}

// discard is a response that nobody reads. It fails on a part that is too large.
type discard struct{}

func (discard) Header() http.Header { return make(http.Header) }
func (discard) WriteHeader(int)     {}

func (discard) Write(b []byte) (int, error) {
	if len(b) > 64<<10 {
		panic(fmt.Sprintf("%d bytes in one piece", len(b)))
	}
	return len(b), nil
}

func TestRuleCounts(t *testing.T) {
	r := newRig(t)
	r.flows.Denied = os.ErrPermission
	r.flows.Open(info("mail keeps its address", "mail", 1), nil)
	r.flows.Refuse(info("rule 2", "", 2), when, fmt.Errorf("no: %w", os.ErrPermission))
	r.flows.Refuse(info("gone", "", 3), when, nil)
	got, err := r.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := r.service.Rules()
	want[0].Hits, want[1].Hits, want[1].Denied = 1, 1, 1
	for i := range 2 {
		if got.Rules[i].LastHit.IsZero() {
			t.Errorf("rule %d has no last hit", i+1)
		}
		want[i].LastHit = got.Rules[i].LastHit
	}
	if diff := cmp.Diff(want, got.Rules); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got, err = r.ResetRules(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.service.Rules(), got.Rules); diff != "" {
		t.Errorf("after the reset, -want +got:\n%s", diff)
	}
}

// TestAttachedCounts: they only grow, and begin anew when the rules are loaded anew.
func TestAttachedCounts(t *testing.T) {
	r := newRig(t)
	for _, step := range []struct {
		attached uint64
		reset    bool
		want     uint64
	}{{7, false, 7}, {9, true, 0}, {12, false, 3}, {2, false, 2}, {4, true, 0}, {5, false, 1}} {
		r.service.attached = map[string]uint64{"rule 2": step.attached}
		ask := r.Rules
		if step.reset {
			ask = r.ResetRules
		}
		got, err := ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Rules[1].Attached != step.want || got.Rules[0].Attached != 0 {
			t.Errorf("%+v: got %+v", step, got.Rules)
		}
	}
}

func TestStatusAndSources(t *testing.T) {
	r := newRig(t)
	f := r.flows.Open(info("x", "wan1", 1), nil)
	f.Down.Add(5000)
	r.flows.Open(info("x", "kernel", 2), nil)
	r.flows.Refuse(info("x", "lte", 3), when, io.ErrUnexpectedEOF)
	st, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Listeners[0].Flows != 2 || st.Listeners[1].Flows != 0 || st.Sources != (SourceCounts{Up: 2, Down: 1, Waiting: 1}) || st.Fine() {
		t.Errorf("got %+v", st)
	}
	src, err := r.Sources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range src.Sources {
		names = append(names, fmt.Sprint(s.Name, len(s.Addresses)))
	}
	if got := strings.Join(names, " "); got != "wan11 lte1 mail2 kernel0" {
		t.Errorf("got the sources %s", got)
	}
	wan := src.Sources[0]
	if wan.Connections != 1 || wan.NewPerSecond != 0.2 || wan.InBitsPerSecond != 8000 || wan.Total != (Total{Opened: 1, BytesIn: 5000}) {
		t.Errorf("got %+v", wan)
	}
	if lte := src.Sources[1]; lte.FailedPerMinute != 1 || lte.Total.Failed != 1 {
		t.Errorf("got %+v", lte)
	}
	uses := make(map[string]string)
	for _, p := range src.Pools {
		uses[p.Name] = p.Uses
	}
	if diff := cmp.Diff(map[string]string{"web": "", "safe": "wan1", "only": "", "good": "wan1"}, uses); diff != "" {
		t.Errorf("pools, -want +got:\n%s", diff)
	}
}

func TestReload(t *testing.T) {
	r := newRig(t)
	got, err := r.Reload(t.Context())
	if err != nil || got.Reloads != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	text := "config.toml:3:5: what\n    is\n    ^"
	for _, tt := range []struct {
		err     error
		code    int
		refused bool
	}{{errors.New(text), http.StatusConflict, true}, {ErrDraining, http.StatusServiceUnavailable, false}} {
		r.service.reload = tt.err
		_, err := r.Reload(t.Context())
		if e := (*APIError)(nil); !errors.As(err, &e) || e.Code != tt.code || e.Refused() != tt.refused || e.Error() != tt.err.Error() {
			t.Errorf("got %#v, want %d, %q", err, tt.code, tt.err)
		}
	}
}

// TestConfiguration: a client says which configuration it means.
func TestConfiguration(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		path, sum, err string
	}{
		{"/etc/srcproxy/config.toml", "", ""},
		{"/etc/srcproxy/config.toml", "5eed", ""},
		{"/etc/srcproxy/config.toml", "dead", "the service has read /etc/srcproxy/config.toml when it said something else"},
		{"/home/ann/config.toml", "", "the service serves /etc/srcproxy/config.toml, and not /home/ann/config.toml"},
	} {
		r.Config, r.Sum = tt.path, tt.sum
		_, err := r.Reload(t.Context())
		if (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%s, %s: got %v, want %q", tt.path, tt.sum, err, tt.err)
		}
	}
	if r.service.reloads != 2 {
		t.Errorf("got %d reloads, want 2", r.service.reloads)
	}
}

// TestGuard sends what no client of ours does.
func TestGuard(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		name, request, want string
	}{
		{"ours", "GET /healthz HTTP/1.1\r\nHost: srcproxy\r\n\r\n", "200"},
		{"the name of a page", "POST /api/v1/reload HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"},
		{"an address", "POST /api/v1/reload HTTP/1.1\r\nHost: 127.0.0.1:9090\r\n\r\n", "421"},
		{"none", "POST /api/v1/reload HTTP/1.0\r\n\r\n", "421"},
		{"in the request line", "POST http://evil.example/api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\n\r\n", "421"},
		{"a page", "POST /api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\nOrigin: http://evil.example\r\n\r\n", "403"},
		{"an opaque page", "POST /api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\nOrigin: null\r\n\r\n", "403"},
		{"a reload by a link", "GET /api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\n\r\n", "405"},
		{"a close by a link", "GET /api/v1/conns/1 HTTP/1.1\r\nHost: srcproxy\r\n\r\n", "405"},
		{"no number", "DELETE /api/v1/conns/-1 HTTP/1.1\r\nHost: srcproxy\r\n\r\n", "400"},
		{"nothing", "GET / HTTP/1.1\r\nHost: srcproxy\r\n\r\n", "404"},
		{"large body", "POST /api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\nContent-Length: 104857600\r\n\r\n", "413"},
		{"body without a length", "POST /api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "413"},
		{"large header", "GET /healthz HTTP/1.1\r\nHost: srcproxy\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431"},
	} {
		c, err := net.Dial("unix", r.Paths[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, tt.request); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%s: %v", tt.name, err)
		}
		line := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(c, line); err != nil || !bytes.HasSuffix(line, []byte(" "+tt.want)) {
			t.Errorf("%s: got %q, %v, want %s", tt.name, line, err, tt.want)
		}
		c.Close()
	}
	if r.service.reloads != 0 {
		t.Errorf("got %d reloads, want none", r.service.reloads)
	}
	r.service.state = Draining
	resp, err := (&http.Transport{DialContext: r.dial, DisableKeepAlives: true}).RoundTrip(mustRequest(t, "GET", "http://srcproxy/healthz"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("health while draining: got %s", resp.Status)
	}
	resp.Body.Close()
}

func mustRequest(t *testing.T, method, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestNoService(t *testing.T) {
	dir := t.TempDir()
	none, stale := filepath.Join(dir, "none.sock"), filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	c := &Client{Paths: []string{none, stale}}
	_, err = c.Status(t.Context())
	want := "no service answers:\n    " + none + ": no such file or directory\n    " + stale +
		": connection refused\n    Start one: srcproxy serve -c FILE. Of one that runs, the log names the socket, and -c FILE finds it."
	if !errors.As(err, new(*NoServiceError)) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	c.Doubt = errors.New("config.toml:1:1: what")
	if _, err = c.Status(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "cannot be read:\nconfig.toml:1:1: what") {
		t.Errorf("got %v, want the doubt", err)
	}
	denied := &NoServiceError{Tried: []error{&tryError{"/run/srcproxy/admin.sock", syscall.EACCES}}}
	if !strings.Contains(denied.Error(), "try sudo") {
		t.Errorf("got %v", denied)
	}
	r := newRig(t)
	r.Paths = append([]string{none, stale}, r.Paths...)
	if _, err := r.Status(t.Context()); err != nil {
		t.Errorf("with a service behind the third: %v", err)
	}
}

// TestConcurrency asks all of it while flows come, go and are closed.
func TestConcurrency(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	var churn, asking sync.WaitGroup
	churn.Go(func() {
		for n := uint16(1); ctx.Err() == nil; n++ {
			f := r.flows.Open(info("mail keeps its address", "mail", n|1), func(error) {})
			f.Up.Add(1)
			r.flows.Sample()
			f.Done(nil)
		}
	})
	for range 4 {
		asking.Go(func() {
			for range 25 {
				errs := make([]error, 6)
				_, errs[0] = r.Status(ctx)
				_, errs[1] = r.Sources(ctx)
				_, errs[2] = r.ResetRules(ctx)
				_, errs[3] = r.Reload(ctx)
				var conns *Conns
				if conns, errs[4] = r.Conns(ctx); errs[4] == nil && len(conns.Conns) > 0 {
					_, err := r.CloseConn(ctx, conns.Conns[0].ID)
					if e := (*APIError)(nil); err != nil && !errors.As(err, &e) {
						errs[5] = err
					}
				}
				if err := errors.Join(errs...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
	cancel()
	churn.Wait()
}
