package explain_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m, nstest.Setup{}) }

// script runs commands line by line in a namespace.
func script(t *testing.T, n *nstest.Namespace, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if r := n.Run(t, exec.Command(words[0], words[1:]...)); r.Err != nil {
			t.Fatalf("%s: %v", line, r)
		}
	}
}

// providers gives a namespace two of them, and what goes wrong there.
const providers = `
ip link add wan1 type veth peer name p1
ip link add wan2 type veth peer name p2
ip link set wan1 up
ip link set p1 up
ip link set wan2 up
ip link set p2 up
ip addr add 198.51.100.10/24 dev wan1
ip addr add 192.0.2.7/24 dev wan2
ip addr add 192.0.2.8/24 dev wan2
ip addr add 198.51.100.98/32 dev lo
ip addr add 2001:db8:1::10/64 dev wan1 nodad
ip addr add 2001:db8:2::7/64 dev wan2 nodad
ip route add default via 198.51.100.1
ip route add default via 192.0.2.1 dev wan2 metric 500
ip route add unreachable 203.0.113.1
ip route add default via 198.51.100.1 table 105
ip -6 route add default via 2001:db8:1::1
ip -6 route add default via 2001:db8:2::1 dev wan2 table 107
ip rule add from 192.0.2.8 lookup 120 priority 900
ip route add default via 192.0.2.1 dev wan2 table 120
ip rule add to 203.0.113.77 lookup 105 priority 800
ip rule add fwmark 7 lookup 120 priority 901
`

const twoWays = `default = "wan1"
[sources]
wan1    = ["198.51.100.10", "2001:db8:1::10"]
wan2    = ["192.0.2.7", "2001:db8:2::7"]
ruled   = "192.0.2.8"
service = "198.51.100.98"
crawl   = { ip = "2001:db8:64::/64" }
bound   = "192.0.2.7"
lost    = "192.0.2.8"
marked  = "192.0.2.7"
[[rules]]
to  = ["203.0.113.2", "203.0.113.77", "2001:db8:99::2"]
use = "wan2"
[[rules]]
to  = "203.0.113.3"
use = "ruled"
[[rules]]
to  = "203.0.113.4"
use = "kernel"
[[rules]]
to  = "203.0.113.5"
use = "service"
[[rules]]
to  = "2001:db8:99::64"
use = "crawl"
[[rules]]
to  = "203.0.113.6"
use = "bound"
[[rules]]
to  = "203.0.113.7"
use = "marked"
[[rules]]
to  = "203.0.113.8"
use = "lost"
`

// settled reads the host when all its addresses are local: the kernel adds the route of
// an IPv6 address a moment after the address, also without duplicate address detection.
func settled() (*host.Snapshot, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		h, err := host.Read()
		missing := func(a host.Address) bool { return !h.Local(a.Addr) }
		if err != nil || !slices.ContainsFunc(h.Addresses(), missing) {
			return h, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("not all of %v are local after 10 s", h.Addresses())
		}
	}
}

// here explains what the configuration does in a namespace that the script has set up.
func here(t *testing.T, setUp string, f dialer.Flow, dial bool) *explain.Answer {
	t.Helper()
	nstest.Need(t, "ip")
	n := nstest.NewNamespace(t, "host")
	script(t, n, setUp)
	e := explainer(t, twoWays)
	e.Dialer.Resolver = hosts{"two.example": {"203.0.113.1", "203.0.113.2"}}
	e.Routing = explain.Kernel{}
	for _, s := range e.Config.Sources {
		switch s.Name {
		case "bound":
			s.Device = "wan2"
		case "lost":
			s.Device = "p2"
		case "marked":
			s.Mark = 7
		}
	}
	var a *explain.Answer
	if err := n.Do(func() (err error) {
		if e.Host, err = settled(); err != nil {
			return err
		}
		a = e.Explain(t.Context(), explain.Question{Flow: f, Dial: dial})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return a
}

// random is an address out of the prefix.
var random = regexp.MustCompile(`2001:db8:64:[0-9a-f:]*[0-9a-f]`)

func TestWays(t *testing.T) {
	for _, tt := range []struct {
		name, dst string
		reachable bool
	}{
		{"way-right", "203.0.113.9:80", true},
		{"way-wrong", "203.0.113.2:80", false},
		{"way-wrong-rule", "203.0.113.77:80", false},
		{"way-wrong-table", "[2001:db8:99::2]:80", false},
		{"way-by-rule", "203.0.113.3:80", true},
		{"way-kernel", "203.0.113.4:80", true},
		{"way-from-lo", "203.0.113.5:80", true},
		{"way-foreign", "[2001:db8:99::64]:80", false},
		{"way-device", "203.0.113.6:80", true},
		{"way-device-none", "203.0.113.8:80", false},
		{"way-mark", "203.0.113.7:80", true},
		{"way-none", "203.0.113.1:80", false},
		{"way-local", "198.51.100.10:80", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := here(t, providers, dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort(tt.dst)}, false)
			golden(t, tt.name+".txt", random.ReplaceAllString(a.Text(explain.Style{}), "2001:db8:64::RANDOM"))
			if got := a.Reachable(); got != tt.reachable {
				t.Errorf("reachable: got %v, want %v", got, tt.reachable)
			}
		})
	}
}

// TestNoGateway: where no route names the gateway there is no command to copy.
func TestNoGateway(t *testing.T) {
	a := here(t, providers+"ip -6 route flush table 107\n", dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("[2001:db8:99::2]:80")}, false)
	golden(t, "way-no-gateway.txt", a.Text(explain.Style{}))
}

// TestDialSkips: an address without a way is not dialled beside one that has.
func TestDialSkips(t *testing.T) {
	setUp := providers + "ip route add local 203.0.113.2 dev lo\n"
	a := here(t, setUp, dialer.Flow{Network: "tcp", Name: "two.example", Dst: netip.AddrPortFrom(netip.Addr{}, 1)}, true)
	var none, refused explain.Address
	for _, w := range a.Walks {
		for _, d := range w.Addresses {
			if d.Addr == netip.MustParseAddr("203.0.113.1") {
				none = d
			} else {
				refused = d
			}
		}
	}
	if none.Way == nil || none.Way.Refusal != host.ErrUnreachable.Error() || none.Dialled != nil {
		t.Errorf("got %+v, %+v", none, none.Way)
	}
	if refused.Dialled == nil || refused.Dialled.Err != "connect: connection refused" {
		t.Errorf("got %+v, %+v", refused, refused.Dialled)
	}
	if text := a.Text(explain.Style{}); !strings.Contains(text, "an unreachable route refuses it   skipped\n") {
		t.Errorf("got %s", text)
	}
	if b, err := json.Marshal(a); err != nil || !strings.Contains(string(b), `"way":{"type":"local","link":"lo","table":"local"}`) {
		t.Errorf("got %s, %v", b, err)
	}
}
