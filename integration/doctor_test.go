//go:build linux

package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// patient is a host at two providers, on which doctor is run.
type patient struct {
	*nstest.Providers
	config string
}

// twoProviders names the sources at both providers, the second with its gateways.
const twoProviders = `default = "first"
[sources]
first  = ["198.51.100.10", "2001:db8:1::10"]
second = { ip = ["192.0.2.7", "2001:db8:7::7"], gateway = ["192.0.2.1", "2001:db8:7::1"] }
[[rules]]
to  = ["203.0.113.128/25", "2001:db8:9::8000/113"]
use = "second"
[[listen]]
mixed = "127.0.0.1:1080"
[dns]
servers = ["203.0.113.53"]
`

func newPatient(t *testing.T, config string) *patient {
	t.Helper()
	nstest.Need(t, "ip", "sh")
	p := &patient{Providers: nstest.NewProviders(t), config: filepath.Join(t.TempDir(), "config.toml")}
	if err := os.WriteFile(p.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	// The LAN has no provider; answers to it have to stay there.
	nstest.Join(t, "lan0", p.Host, nstest.NewNamespace(t, "lan"))
	p.Host.AddAddr(t, "lan0", netip.MustParsePrefix("10.0.8.1/24"))
	p.Host.AddAddr(t, "lan0", netip.MustParsePrefix("2001:db8:8::1/64"))
	// Each IPv6 address has a route of its own, which comes when nobody else has it, also
	// the link-local ones: later it would look like the work of doctor.
	eventually(t, "the IPv6 addresses are usable", func() bool {
		own := p.Host.Run(t, exec.Command("ip", "-6", "-o", "addr", "show", "scope", "link"))
		tentative := p.Host.Run(t, exec.Command("ip", "-6", "-o", "addr", "show", "tentative"))
		return own.Err == nil && tentative.Err == nil && strings.Count(own.Stdout, "\n") == 3 && tentative.Stdout == ""
	})
	return p
}

// doctor runs the command and returns what it printed.
func (p *patient) doctor(t *testing.T, code int, args ...string) nstest.Result {
	t.Helper()
	cmd := exec.Command(nstest.Binary{}.Build(t), append([]string{"doctor", "-c", p.config}, args...)...)
	r := p.Host.Run(t, cmd)
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("doctor %q ended with %d, want %d: %v", args, got, code, r)
	}
	return r
}

// cures returns the commands that doctor printed.
func cures(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if c := strings.TrimSpace(line); strings.HasPrefix(c, "ip ") || strings.HasPrefix(c, "sysctl ") {
			out = append(out, c)
		}
	}
	return out
}

// reach connects from an address to one behind both providers, and tells whether the
// server of the second saw it come from there.
func (p *patient) reach(source netip.Addr, s *nstest.Server) error {
	to := netip.MustParseAddr("203.0.113.200")
	if source.Is6() {
		to = netip.MustParseAddr("2001:db8:9::8001")
	}
	before := s.Sources()[source]
	c, err := p.Host.Dial(net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: source.AsSlice()}}, "tcp", at(to, 81).String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return err
	}
	if n := s.Sources()[source] - before; n != 1 {
		return fmt.Errorf("the server was called %d times from %v", n, source)
	}
	return nil
}

// wantCured fails unless both families of the second source work, and nobody drops.
func (p *patient) wantCured(t *testing.T, four, six *nstest.Server) {
	t.Helper()
	dropped := p.Dropped(t, p.First)
	for _, err := range []error{p.reach(nstest.Wan2().V4.Addr(), four), p.reach(nstest.Wan2().V6.Addr(), six)} {
		if err != nil {
			t.Error(err)
		}
	}
	if n := p.Dropped(t, p.First) - dropped + p.Dropped(t, p.Second); n != 0 {
		t.Errorf("the providers dropped %d packets", n)
	}
	for _, lan := range [][2]string{{"10.0.8.9", "192.0.2.7"}, {"2001:db8:8::9", "2001:db8:7::7"}} {
		if way := p.Host.Run(t, exec.Command("ip", "route", "get", lan[0], "from", lan[1])); !strings.Contains(way.Stdout, "dev lan0") {
			t.Errorf("packets to the LAN leave by %v", way)
		}
	}
}

// TestDoctorCuresWrongWay: doctor names the fault, and the commands that it prints, run as
// they are printed, cure it.
func TestDoctorCuresWrongWay(t *testing.T) {
	p := newPatient(t, twoProviders)
	four, six := p.Second.EchoTCP(t, "0.0.0.0:81"), p.Second.EchoTCP(t, "[::]:81")
	for _, a := range []netip.Addr{nstest.Wan2().V4.Addr(), nstest.Wan2().V6.Addr()} {
		before := p.Dropped(t, p.First)
		if err := p.reach(a, four); err == nil || p.Dropped(t, p.First) == before {
			t.Fatalf("from %v: %v, and the first provider dropped nothing", a, err)
		}
	}
	sick := p.doctor(t, 1)
	for _, want := range []string{
		"FAIL second packets from 192.0.2.7 leave by wan1 (via 198.51.100.1), and not by the gateway 192.0.2.1",
		"FAIL second packets from 2001:db8:7::7 leave by wan1 (via 2001:db8:1::1), and not by the gateway 2001:db8:7::1",
		"ok addresses first second are on this host",
	} {
		if words := strings.Join(strings.Fields(sick.Stdout), " "); !strings.Contains(words, want) {
			t.Errorf("no %q", want)
		}
	}
	t.Logf("before:\n%s", sick.Stdout)
	commands := cures(sick.Stdout)
	if len(commands) != 8 {
		t.Errorf("%d commands, want a default route, two networks and a rule for each family", len(commands))
	}
	for _, c := range commands {
		shell(t, p.Host, c)
	}
	well := p.doctor(t, 0)
	t.Logf("after:\n%s", well.Stdout)
	if strings.Contains(well.Stdout, "FAIL") || len(cures(well.Stdout)) != 0 {
		t.Errorf("not cured")
	}
	p.wantCured(t, four, six)
}

// allRouting is the routing of the host in the words of ip.
func (p *patient) allRouting(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, family := range []string{"-4", "-6"} {
		for _, what := range [][]string{{"rule"}, {"route", "show", "table", "all"}} {
			r := p.Host.Run(t, exec.Command("ip", append([]string{family}, what...)...))
			if r.Err != nil {
				t.Fatal(r)
			}
			b.WriteString(r.Stdout)
		}
	}
	return b.String()
}

// TestDoctorFixes does the same by --fix, and takes it back by --undo.
func TestDoctorFixes(t *testing.T) {
	p := newPatient(t, twoProviders)
	four, six := p.Second.EchoTCP(t, "0.0.0.0:81"), p.Second.EchoTCP(t, "[::]:81")
	before := p.allRouting(t)

	// Who only presses Enter, or has no terminal, has nothing changed.
	if r := p.doctor(t, 1, "--fix"); strings.Count(r.Stderr, "run it? [y/N]") != 2 || p.allRouting(t) != before {
		t.Fatalf("without an answer: %v", r)
	}
	p.doctor(t, 0, "--fix", "--yes")
	p.wantCured(t, four, six)
	p.doctor(t, 0)
	after := p.allRouting(t)
	if r := p.doctor(t, 0, "--print", "nmcli"); !strings.Contains(r.Stdout, `show wan2)" +ipv4.routing-rules "priority`) {
		t.Errorf("what was fixed is not printed: %v", r)
	}
	undone := p.doctor(t, 0, "--undo")
	if got := p.allRouting(t); got != before || after == before {
		t.Errorf("after --undo\n%s\nwant\n%s\nit said %v", got, before, undone)
	}
	p.doctor(t, 1)
	if r := p.doctor(t, 0, "--undo"); !strings.Contains(r.Stdout, "has changed nothing") {
		t.Errorf("a second --undo: %v", r)
	}
}

// TestDoctorTakesNoAddress: on the standby of a pair of hosts, --fix --yes leaves the
// address alone that the other one has, and --print does not bring it at the next boot.
func TestDoctorTakesNoAddress(t *testing.T) {
	p := newPatient(t, `default = "shared"
[sources]
shared = "198.51.100.11"
first  = "198.51.100.10"
many   = "198.51.100.32-198.51.100.35"
whole  = { ip = "198.51.100.64/28" }
[[listen]]
mixed = "127.0.0.1:1080"
[[listen]]
tcp = "198.51.100.12:25"
to  = "203.0.113.25:25"
[dns]
servers = ["203.0.113.53"]
`)
	local := func() string {
		return p.Host.Run(t, exec.Command("ip", "-4", "route", "show", "table", "local")).Stdout
	}
	before := local()
	r := p.doctor(t, 1, "--fix", "--yes") // the prefix has no local route: a failure, but not one to cure unasked
	if after := local(); after != before || r.Stderr != "" {
		t.Errorf("--fix --yes made local\n%s\nwhere there was\n%s\nit said %v", after, before, r)
	}
	for _, want := range []string{
		"warn shared 198.51.100.11 is on no interface of this host",
		"ip addr add 198.51.100.11/24 dev wan1",
		"warn many 4 of the 4 addresses",
		"FAIL whole replies to 198.51.100.64/28 do not reach this host where no other host on wan1 has one of its addresses",
	} {
		if words := strings.Join(strings.Fields(r.Stdout), " "); !strings.Contains(words, want) {
			t.Errorf("no %q: %v", want, r)
		}
	}
	for line := range strings.Lines(p.doctor(t, 0, "--print", "netplan").Stdout) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			t.Errorf("--print has %q", line)
		}
	}
}

// TestDoctorWithoutRoot says what it would run.
func TestDoctorWithoutRoot(t *testing.T) {
	nstest.Need(t, "setpriv")
	if os.Geteuid() != 0 {
		nstest.Skip(t, "only root can become another user")
	}
	p := newPatient(t, twoProviders)
	for dir := filepath.Dir(p.config); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := p.allRouting(t)
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", nstest.Binary{}.Build(t), "doctor", "--fix", "--yes", "-c", p.config)
	r := p.Host.Run(t, cmd)
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(r.Stderr, "as root this would be run:\n    ip route add default via 192.0.2.1 dev wan2") {
		t.Errorf("got %v", r)
	}
	if p.allRouting(t) != before {
		t.Error("the routing is another")
	}
}

// TestDoctorRoutesPrefix: a source out of a /64 gets its answers after the cure.
func TestDoctorRoutesPrefix(t *testing.T) {
	nstest.Need(t, "ip", "sh")
	r := newRig(t)
	shell(t, r.Server, "ip -6 route add 2001:db8:65::/64 via "+nstest.ProxyV6(1).String())
	s := r.Server.GreetTCP(t, wildcard(nstest.ServerV6(1), 4000))
	config := "default = \"crawl\"\n[sources]\ncrawl = { ip = \"2001:db8:65::/64\" }\n[[listen]]\nmixed = \"127.0.0.1:1080\"\n[dns]\nservers = [\"[2001:db8:2::5]:53\"]\n"
	path := r.write("config.toml", config)
	sick := r.program("doctor", "-c", path)
	commands := cures(sick.Stdout)
	if sick.Err == nil || len(commands) != 1 || commands[0] != "ip -6 route add local 2001:db8:65::/64 dev lo" {
		t.Fatalf("got %v", sick)
	}
	shell(t, r.Proxy, commands[0])
	if well := r.program("doctor", "-c", path); well.Err != nil {
		t.Errorf("after the cure: %v", well)
	}
	r.serve(config)
	if _, err := r.sourceOf(at(nstest.ServerV6(1), 4000)); err != nil {
		t.Fatal(err)
	}
	for a := range s.Sources() {
		if !netip.MustParsePrefix("2001:db8:65::/64").Contains(a) {
			t.Errorf("came from %v", a)
		}
	}
}

// TestDoctorLoosensFilter: a strict rp_filter drops the answers to a source that is bound
// to its link, until the command of the cure is run.
func TestDoctorLoosensFilter(t *testing.T) {
	nstest.Need(t, "sysctl")
	p := newPatient(t, `default = "second"
[sources]
second = { ip = "192.0.2.7", device = "wan2" }
[[listen]]
mixed = "127.0.0.1:1080"
[dns]
servers = ["203.0.113.53"]
`)
	shell(t, p.Host, "ip route add default via 192.0.2.1 dev wan2 metric 500")
	for link, value := range map[string]string{"all": "0", "wan2": "1"} {
		p.Host.Sysctl(t, "net.ipv4.conf."+link+".rp_filter", value)
	}
	s := p.Second.EchoTCP(t, "0.0.0.0:81")
	dial := func() bool {
		_, code := explain(t, p.Host, "default = \"second\"\n[timeouts]\ndial = \"1s\"\n[sources]\nsecond = { ip = \"192.0.2.7\", device = \"wan2\" }\n", "203.0.113.9:81", "--dial")
		return code == 0
	}
	if dial() || len(s.Peers()) != 0 {
		t.Fatal("answers come in although rp_filter is strict")
	}
	sick := p.doctor(t, 1)
	commands := cures(sick.Stdout)
	if len(commands) != 1 || commands[0] != "sysctl -w net.ipv4.conf.wan2.rp_filter=2" {
		t.Fatalf("got %v", sick)
	}
	shell(t, p.Host, commands[0])
	p.doctor(t, 0)
	if !dial() {
		t.Error("no answers after the cure")
	}
	wantSources(t, s, nstest.Wan2().V4.Addr(), 1)
}

// TestDoctorSeesFilterOfAsymmetricWay: packets from an address leave by another link than
// the one that has it, as the configuration wants it; answers that come in by that are
// dropped, though the source has neither device nor mark.
func TestDoctorSeesFilterOfAsymmetricWay(t *testing.T) {
	nstest.Need(t, "sysctl")
	p := newPatient(t, `default = "second"
[sources]
second = { ip = "192.0.2.7", gateway = "198.51.100.1" }
[[listen]]
mixed = "127.0.0.1:1080"
[dns]
servers = ["203.0.113.53"]
`)
	shell(t, p.Host, "ip route add default via 192.0.2.1 dev wan2 metric 500")
	p.Host.Sysctl(t, "net.ipv4.conf.wan2.rp_filter", "0")
	p.Host.Sysctl(t, "net.ipv4.conf.all.rp_filter", "1")
	p.Second.Sysctl(t, "net.ipv4.conf.all.arp_announce", "2") // as a router that does not have the peer's address
	s := p.Host.EchoUDP(t, "0.0.0.0:9")
	peer := netip.MustParseAddr("203.0.113.9")
	send := func() {
		t.Helper()
		c, err := p.Second.Dial(net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(at(peer, 0))}, "udp", "192.0.2.7:9")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	send()
	eventually(t, "the packet is dropped", func() bool { return reverseDrops(t, p.Host) > 0 })
	sick := p.doctor(t, 0)
	commands := cures(sick.Stdout)
	if len(commands) != 1 || commands[0] != "sysctl -w net.ipv4.conf.wan2.rp_filter=2" || !strings.Contains(sick.Stdout, "warn  second") {
		t.Fatalf("got %v", sick)
	}
	shell(t, p.Host, commands[0])
	if well := p.doctor(t, 0); len(cures(well.Stdout)) != 0 {
		t.Errorf("after the cure: %v", well)
	}
	send()
	eventually(t, "the packet arrives", func() bool { return s.Sources()[peer] == 1 })
}

// reverseDrops returns how many packets rp_filter has dropped.
func reverseDrops(t *testing.T, n *nstest.Namespace) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(n.Run(t, exec.Command("cat", "/proc/net/netstat")).Stdout) {
		words := strings.Fields(line)
		if i := slices.Index(names, "IPReversePathFilter"); i >= 0 && words[0] == names[0] {
			count, err := strconv.Atoi(words[i])
			if err != nil {
				t.Fatal(err)
			}
			return count
		}
		names = words
	}
	t.Fatal("no count of dropped packets")
	return 0
}
