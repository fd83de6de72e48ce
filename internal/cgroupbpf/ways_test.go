//go:build linux

package cgroupbpf

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/cgroup"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// heldConnect binds a datagram socket to a port and connects it.
const heldConnect = `
import errno, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 0))
try:
    s.connect(("127.9.0.1", 9))
    print("connected")
except OSError as e: print(errno.errorcode[e.errno])
`

// TestWays lets a socket that holds a port have a mark only where it leads to the source, in the network namespace that was
// looked at, and as long as somebody looks.
func TestWays(t *testing.T) {
	nstest.Need(t, "python3")
	p, err := Load(nil)
	if errors.Is(err, os.ErrPermission) {
		nstest.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	tree, err := cgroup.Mounted()
	if err != nil {
		nstest.Skip(t, err.Error())
	}
	own, err := tree.Own()
	if err != nil {
		t.Fatal(err)
	}
	g, err := cgroup.Create(own, "srcproxy-test-")
	if errors.Is(err, os.ErrPermission) {
		nstest.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(g.Remove(), g.Close()); err != nil {
			t.Error(err)
		}
	}()
	src := netip.MustParseAddr("127.0.0.2")
	near := dialer.Rule{
		To:  []dialer.Match{dialer.MatchPrefix(netip.MustParsePrefix("127.9.0.0/16"))},
		Use: dialer.Use{Source: &dialer.Source{Name: "a", Addrs: []netip.Addr{src}, Mark: 7}},
	}
	table, err := dialer.NewTable([]dialer.Rule{near}, dialer.Use{Kernel: true})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := Compile(table, Options{MarkWildcard: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Set(rules), p.Attach(g, nil)); err != nil {
		t.Fatal(err)
	}
	want := func(what, want string) {
		t.Helper()
		cmd := exec.Command("python3", "-c", heldConnect)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", what, got, err, want)
		}
	}
	way := func(mark uint32, src, dst string, leads bool) Way {
		return Way{Mark: mark, Src: netip.MustParseAddr(src), Dst: netip.MustParsePrefix(dst), Leads: leads}
	}
	set := func(list ...Way) {
		t.Helper()
		if err := p.SetWays(list); err != nil {
			t.Fatal(err)
		}
	}
	want("nothing said", "EPERM")
	set(way(7, "127.0.0.2", "0.0.0.0/0", true))
	want("everywhere", "connected")
	set(way(7, "127.0.0.2", "0.0.0.0/0", true), way(7, "127.0.0.2", "127.9.0.0/24", false))
	want("but not there", "EPERM")
	set(way(7, "127.0.0.2", "127.9.0.0/24", true))
	want("only there", "connected")
	set(way(7, "127.0.0.2", "127.9.1.0/24", true))
	want("only elsewhere", "EPERM")
	set(way(8, "127.0.0.2", "0.0.0.0/0", true), way(7, "127.0.0.3", "0.0.0.0/0", true))
	want("another mark or source", "EPERM")
	set(way(7, "127.0.0.2", "0.0.0.0/0", true))
	want("everywhere again", "connected")
	now, err := newSurvey()
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]hooksSurvey{
		"nobody has looked for long": {Netns: now.Netns, Until: now.Until - uint64(WaysHold)},
		"another namespace":          {Netns: now.Netns + 1, Until: now.Until},
	} {
		if err := p.maps.Surveys.Put(uint32(0), s); err != nil {
			t.Fatal(err)
		}
		want(what, "EPERM")
	}
	set(way(7, "127.0.0.2", "0.0.0.0/0", true))
	want("looked at again", "connected")
	set()
	want("nothing leads there", "EPERM")
}

// TestMarks tells where rules want marks: what a rule above, another source or the special ranges take is not meant.
func TestMarks(t *testing.T) {
	a, b := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	marked := &dialer.Source{Name: "marked", Addrs: []netip.Addr{a, b}, Mark: 7}
	plain := &dialer.Source{Name: "plain", Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.11")}}
	to := func(p string, u dialer.Use) dialer.Rule {
		return dialer.Rule{To: []dialer.Match{dialer.MatchPrefix(netip.MustParsePrefix(p))}, Use: u}
	}
	pool := dialer.Use{Pool: &dialer.Pool{Name: "pool", Of: []dialer.Member{{Source: plain}, {Source: marked}}}}
	for _, tt := range []struct {
		name      string
		rules     []dialer.Rule
		otherwise dialer.Use
		want      string
	}{
		{"default", nil, dialer.Use{Source: marked}, "0.0.0.0/0 ::/0"},
		{"another source", []dialer.Rule{to("203.0.113.0/24", dialer.Use{Source: plain})}, dialer.Use{Source: marked}, "0.0.0.0/0 ::/0 not 203.0.113.0/24"},
		{"a rule", []dialer.Rule{to("203.0.113.0/24", dialer.Use{Source: marked})}, dialer.Use{Kernel: true}, "203.0.113.0/24"},
		{"a pool", []dialer.Rule{to("203.0.113.0/24", pool)}, dialer.Use{Kernel: true}, "203.0.113.0/24"},
		{"nowhere", []dialer.Rule{to("203.0.113.0/24", dialer.Use{Source: plain})}, dialer.Use{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := dialer.NewTable(tt.rules, tt.otherwise)
			if err != nil {
				t.Fatal(err)
			}
			rules, err := Compile(table, Options{MarkWildcard: true})
			if err != nil {
				t.Fatal(err)
			}
			var used, unused []string
			for _, m := range rules.Marks(nil) {
				if m.Addr != a && m.Addr != b || m.Source != marked {
					t.Errorf("got the mark of %v", m.Addr)
				}
				for _, p := range slices.SortedFunc(maps.Keys(m.Within), func(x, y netip.Prefix) int { return strings.Compare(x.String(), y.String()) }) {
					switch {
					case m.Within[p]:
						used = append(used, p.String())
					case inSpecial(p) < 0 && p.Bits() > 0:
						unused = append(unused, "not "+p.String())
					}
				}
			}
			if got := strings.Join(append(used, unused...), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
