//go:build linux

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

const adminConfig = `
default = "deny"
[sources]
wan  = ["198.51.100.10", "2001:db8:1::10"]
mail = "198.51.100.25"
away = "198.51.100.77"
[pools]
safe = { of = ["away", "wan"], pick = "first-up" }
[[rules]]
name = "mail keeps its address"
port = 25
use  = "mail"
[[rules]]
to  = "203.0.113.66"
use = "deny"
[[rules]]
to  = "203.0.113.77"
use = "away"
[[rules]]
name = "the rest"
to   = ["203.0.113.0/24", "2001:db8:2::/64"]
use  = "safe"
[[listen]]
name  = "office"
mixed = "127.0.0.1:1080"
[[listen]]
name = "trunk"
udp  = "127.0.0.1:5300"
to   = "203.0.113.7:7"
use  = "mail"
`

// defaultSocket is where a service of root has its socket, in the /run of this test.
const defaultSocket = "/run/srcproxy/admin.sock"

// admin runs a command that asks the service, and returns its exit code.
func (r *rig) admin(args ...string) (nstest.Result, int) {
	r.t.Helper()
	got := r.program(args...)
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(got.Err, &exit):
		return got, exit.ExitCode()
	case got.Err != nil:
		r.t.Fatalf("%q: %v", args, got)
	}
	return got, 0
}

// asked runs a command with --json and returns its answer.
func asked[T any](t testing.TB, r *rig, args ...string) (v T) {
	t.Helper()
	got, _ := r.admin(append(args, "--json")...)
	if err := json.Unmarshal([]byte(got.Stdout), &v); err != nil {
		t.Fatalf("%q: %v: %v", args, err, got)
	}
	return v
}

// sourceNamed returns the source of that name.
func sourceNamed(t *testing.T, r *rig, name string) admin.Source {
	t.Helper()
	for _, s := range asked[admin.Sources](t, r, "sources").Sources {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no source %q", name)
	return admin.Source{}
}

// TestAdmin sends traffic of all kinds, and compares what the tables say with what the
// server saw.
func TestAdmin(t *testing.T) {
	r := newRig(t)
	echo := r.Server.EchoTCP(t, "0.0.0.0:7")
	smtp := r.Server.EchoTCP(t, "0.0.0.0:25")
	udp := r.Server.EchoUDP(t, "0.0.0.0:7")
	r.serve(adminConfig)
	const size = 1 << 20
	var open []*net.TCPConn
	for _, dst := range []netip.AddrPort{at(nstest.ServerV4(1), echo.Addr.Port()), at(nstest.ServerV4(1), smtp.Addr.Port()), at(nstest.ServerV4(2), smtp.Addr.Port())} {
		c, err := r.through("127.0.0.1:1080", dst)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = c.Write(make([]byte, size)) }() // the read below sees when it fails
		if _, err := io.CopyN(io.Discard, c, size); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	u, err := r.Proxy.Dial(net.Dialer{}, "udp", "127.0.0.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	echoed(t, u, "hello")
	for _, dst := range []string{"203.0.113.66:7", "203.0.113.77:7", "192.0.2.99:7"} {
		if c, err := r.through("127.0.0.1:1080", netip.MustParseAddrPort(dst)); err == nil {
			c.Close()
			t.Fatalf("%s is reached", dst)
		}
	}

	var rules []string
	for _, x := range asked[admin.Rules](t, r, "rules").Rules {
		rules = append(rules, fmt.Sprintf("%d %s %s %d %d %v", x.Number, x.Name, x.Use, x.Hits, x.Denied, x.LastHit.IsZero()))
	}
	want := []string{
		"1 mail keeps its address mail 2 0 false", "2 rule 2 deny 1 1 false", "3 rule 3 away 1 0 false",
		"4 the rest safe 1 0 false", "0 default deny 1 1 false", "0 trunk mail 1 0 false",
	}
	if strings.Join(rules, "\n") != strings.Join(want, "\n") {
		t.Errorf("rules: got %q, want %q", rules, want)
	}

	if s := sourceNamed(t, r, "mail"); s.Connections != 3 || s.Total.Opened != 3 || s.Total.BytesIn != 2*size+5 || s.Total.BytesOut != 2*size+5 ||
		s.NewPerSecond <= 0 || s.InBitsPerSecond <= 0 || s.OutBitsPerSecond <= 0 {
		t.Errorf("source mail: %+v", s)
	}
	if s := sourceNamed(t, r, "away"); s.Connections != 0 || s.Total.Failed != 1 || s.FailedPerMinute != 1 || s.Addresses[0].State == "up" {
		t.Errorf("source away: %+v", s)
	}
	if s := sourceNamed(t, r, "wan"); len(s.Addresses) != 2 || s.Addresses[0].Egress != "wan0 via 198.51.100.254" || s.Addresses[1].Egress != "wan0 via 2001:db8:1::254" {
		t.Errorf("source wan: %+v", s)
	}
	got, code := r.admin("sources")
	if code != 1 || !strings.Contains(got.Stdout, "# Health: pool safe uses wan\n") || !strings.Contains(got.Stdout, "# Health: away is waiting since ") {
		t.Errorf("sources ends with %d: %v", code, got)
	}

	conns := asked[admin.Conns](t, r, "conns").Conns
	var peers []string
	for _, s := range []*nstest.Server{echo, smtp, udp} {
		for _, p := range s.Peers() {
			peers = append(peers, p.String())
		}
	}
	if len(conns) != 4 {
		t.Fatalf("conns: got %+v, want 4", conns)
	}
	for i, c := range conns {
		if c.Src.String() != peers[i] {
			t.Errorf("connection %d is said to leave from %v; the server saw %s", c.ID, c.Src, peers[i])
		}
		if i < 3 && (c.Client.String() != open[i].LocalAddr().String() || c.Network != "tcp" || c.BytesIn != size || c.BytesOut != size) {
			t.Errorf("connection %d: %+v", c.ID, c)
		}
	}
	if c := conns[3]; c.Network != "udp" || c.Listener != "trunk" || c.Client.String() != u.LocalAddr().String() || c.BytesIn != 5 {
		t.Errorf("the UDP flow: %+v", c)
	}

	st := asked[admin.Status](t, r, "status")
	if st.PID != r.proc.Pid() || st.State != "running" || st.Listeners[0].Flows != 3 || st.Listeners[1].Flows != 1 || st.Connections.Used != 3 || st.UDPFlows.Used != 1 || st.Descriptors.Used < 10 {
		t.Errorf("status: %+v", st)
	}
	r.wantClosed(t, conns, open, u, smtp)
}

// wantClosed closes flows by their numbers: both ends see it, and the others go on.
func (r *rig) wantClosed(t *testing.T, conns []admin.Conn, open []*net.TCPConn, u net.Conn, server *nstest.Server) {
	t.Helper()
	if server.Live() != 2 {
		t.Fatalf("the server has %d connections, want 2", server.Live())
	}
	if got, code := r.admin("conns", "--close", fmt.Sprint(conns[1].ID)); code != 0 || !strings.HasPrefix(got.Stdout, fmt.Sprintf("closed %d: tcp from %v", conns[1].ID, conns[1].Client)) {
		t.Errorf("close ends with %d: %v", code, got)
	}
	_ = open[1].SetReadDeadline(time.Now().Add(patience)) // of a connection that is open
	if n, err := open[1].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client of the flow that was closed reads %d bytes, %v", n, err)
	}
	eventually(t, "the server's end of it is closed, too", func() bool { return server.Live() == 1 })
	for _, i := range []int{0, 2} {
		if got := echoed(t, open[i], "still here"); got != "still here" {
			t.Errorf("flow %d: %q", i, got)
		}
	}
	if _, code := r.admin("conns", "--close", fmt.Sprint(conns[3].ID)); code != 0 {
		t.Errorf("close of the UDP flow ends with %d", code)
	}
	e := r.log.waitFor(t, 2, func(e entry) bool { return e.text("err") == "closed by the operator" }, "flow")
	if e[0].text("src") != conns[1].Src.String() || e[1].text("listener") != "trunk" {
		t.Errorf("got the lines %v", e)
	}
	if got := echoed(t, u, "again"); got != "again" { // a new flow
		t.Errorf("UDP after the close: %q", got)
	}
	if got, code := r.admin("conns", "--close", fmt.Sprint(conns[1].ID)); code != 1 || !strings.Contains(got.Stderr, "no longer") {
		t.Errorf("a second close ends with %d: %v", code, got)
	}
}

// TestAssociationHits: each destination of a UDP association is a hit of its rule, and
// so is each datagram that is refused, also those that the log leaves out.
func TestAssociationHits(t *testing.T) {
	r := newRig(t)
	tellUDP(t, r.Server)
	r.serve(adminConfig)
	a := r.associate()
	const refused = 50
	for _, dst := range []netip.AddrPort{at(nstest.ServerV4(1), 7), at(nstest.ServerV4(2), 7), at(nstest.ServerV4(1), 7)} {
		if got, err := a.ask(dst, "who am I", patience); err != nil || got != wan4.String() {
			t.Fatalf("%v was asked from %q, %v, want %v", dst, got, err, wan4)
		}
	}
	for range refused {
		if err := a.send(at(nstest.ServerV4(66), 7), "never"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the hits are counted", func() bool {
		rules := asked[admin.Rules](t, r, "rules").Rules
		return rules[1].Hits == refused && rules[1].Denied == refused && rules[3].Hits == 2
	})
	if s := sourceNamed(t, r, "wan"); s.Total.Opened != 2 {
		t.Errorf("source wan: %+v, want 2 that were opened", s.Total)
	}
	if conns := asked[admin.Conns](t, r, "conns").Conns; len(conns) != 1 || conns[0].Network != "udp" || conns[0].Listener != "office" || conns[0].BytesIn == 0 {
		t.Errorf("conns: %+v, want the association", conns)
	}
}

// TestAttachedHits: the rules count what they decide for programs in a cgroup.
func TestAttachedHits(t *testing.T) {
	tree := kernelTree(t)
	bpffs(t)
	r := newRig(t)
	servers := r.echoes(t)
	name, dir := scratchGroup(t, tree, "")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.serve(attachConfig(name, ""))
	p, a := r.askIn(t, dir)
	if got := fmt.Sprint(r.calledFrom(a, servers)); got != byRules {
		t.Fatalf("called from %s, want %s", got, byRules)
	}
	if got := a.to("tcp", netip.MustParseAddrPort("203.0.113.66:7")); got == "answered" {
		t.Fatal("what a rule denies is reached")
	}
	want := func(city, otherwise uint64) {
		t.Helper()
		for _, rule := range asked[admin.Rules](t, r, "rules").Rules {
			n := map[string]uint64{"forbidden city": city, "default": otherwise}[rule.Name]
			if rule.Attached != n || rule.Hits != 0 {
				t.Errorf("rule %q: %+v, want %d calls", rule.Name, rule, n)
			}
		}
	}
	want(1, 4)
	if _, code := r.admin("rules", "--reset"); code != 0 {
		t.Errorf("reset ends with %d", code)
	}
	want(0, 0)
	if got := a.to("tcp", netip.MustParseAddrPort("203.0.113.9:7")); got != "answered" {
		t.Fatal(got)
	}
	want(0, 1)
	p.Kill()
}
