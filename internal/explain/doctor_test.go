package explain_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

// wires is a Routing that looks at the main table and at no rule.
type wires struct{ policy host.Policy }

func (w *wires) Policy() (*host.Policy, error) { return &w.policy, nil }

func (w *wires) KernelChoice(host.RouteQuery) (host.Choice, error) {
	return host.Choice{}, errors.New("nobody asks")
}

// Arrives is what the kernel does where rp_filter is strict.
func (w *wires) Arrives(src, _ netip.Addr, link string) error {
	if a, err := w.Route(host.RouteQuery{Dst: src}); err == nil && a.Link == link {
		return nil
	}
	return host.ErrReversePath
}

func (w *wires) Route(q host.RouteQuery) (host.RouteAnswer, error) {
	best := -1
	for i, r := range w.policy.Routes {
		if r.Table == host.TableMain && r.Dst.Contains(q.Dst) && (q.Link == "" || q.Link == r.Link) &&
			(best < 0 || r.Dst.Bits() > w.policy.Routes[best].Dst.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return host.RouteAnswer{}, &host.RouteError{Query: q, Err: host.ErrNoRoute}
	}
	r := w.policy.Routes[best]
	return host.RouteAnswer{Type: r.Type, Link: r.Link, Gateway: r.Gateway, Table: r.Table, Route: r}, nil
}

// wired returns the routes of server, and of a second link wwan0 that has no default
// route of IPv6.
func wired() *wires {
	route := func(dst, via, link string, metric uint32) host.TableRoute {
		r := host.TableRoute{Type: host.RouteUnicast, Dst: netip.MustParsePrefix(dst), Link: link, Table: host.TableMain, Metric: metric}
		if via != "" {
			r.Gateway = netip.MustParseAddr(via)
		}
		return r
	}
	return &wires{host.Policy{Routes: []host.TableRoute{
		route("0.0.0.0/0", "198.51.100.1", "eth0", 0),
		route("0.0.0.0/0", "192.0.2.1", "wwan0", 500),
		route("203.0.113.64/26", "192.0.2.1", "wwan0", 0),
		route("198.51.100.0/24", "", "eth0", 0),
		route("192.0.2.0/24", "", "wwan0", 0),
		route("10.0.8.0/24", "", "lan0", 0),
		route("2001:db8::/64", "", "eth0", 0),
		route("2001:db8:7::/64", "", "wwan0", 0),
		route("fe80::/64", "", "wwan0", 0),
		route("::/0", "2001:db8::1", "eth0", 0),
	}}}
}

// patient is server with a second provider and a LAN.
func patient() *host.Snapshot {
	s := server()
	links := append([]host.Link(nil), s.Links()...)
	links = append(links, host.Link{Index: 7, Name: "wwan0", Up: true}, host.Link{Index: 8, Name: "lan0", Kind: "bridge", Up: true})
	addrs := append([]host.Address(nil), s.Addresses()...)
	for _, a := range [][2]string{{"192.0.2.7/24", "wwan0"}, {"192.0.2.8/24", "wwan0"}, {"2001:db8:7::7/64", "wwan0"}, {"10.0.8.1/24", "lan0"}} {
		p := netip.MustParsePrefix(a[0])
		addrs = append(addrs, host.Address{Addr: p.Addr(), Prefix: p.Masked(), Link: a[1]})
	}
	p := netip.MustParsePrefix("2001:db8::13/64")
	addrs = append(addrs, host.Address{Addr: p.Addr(), Prefix: p.Masked(), Link: "eth0", Flags: host.Deprecated})
	return host.NewSnapshot(links, addrs, []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8:64::/64"), netip.MustParsePrefix("2001:db8:0:0:f::/80"), netip.MustParsePrefix("203.0.113.192/26"),
	})
}

// examine has a doctor look at the patient.
func examine(t *testing.T, text string, f host.Facts) *explain.Diagnosis {
	t.Helper()
	return examineBeside(t, 9, text, f)
}

// examineBeside is examine while that process serves the configuration.
func examineBeside(t *testing.T, service int, text string, f host.Facts) *explain.Diagnosis {
	t.Helper()
	cfg, _ := parse(t, text)
	settings := map[string]string{
		"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.eth0.rp_filter": "1", "net.ipv4.conf.wwan0.rp_filter": "1",
		"net.core.rmem_max": "212992", "net.ipv6.ip_nonlocal_bind": "0",
	}
	d := explain.Doctor{
		Config: cfg, Host: patient(), Facts: f, Routing: wired(), ReceiveBuffer: 4 << 20, Service: service,
		Setting: func(name string) (string, error) {
			if v, ok := settings[name]; ok {
				return v, nil
			}
			return "", errors.New("no such variable")
		},
		Holder: func(network string, a netip.AddrPort) (host.Holder, bool) {
			held := map[string]host.Holder{
				"tcp 127.0.0.1:1081": {PID: 812, Command: "nginx"},
				"tcp 127.0.0.1:1082": {UID: 33},
				"tcp 127.0.0.1:1080": {PID: 9, Command: "srcproxy"},
				"udp 192.0.2.7:5060": {PID: 77, Command: "asterisk"},
			}
			h, ok := held[network+" "+a.String()]
			return h, ok
		},
	}
	got, err := d.Examine()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// mixed is a listener at the end of a configuration.
const mixed = "[[listen]]\nmixed = \"127.0.0.1:1080\"\n"

func TestDoctor(t *testing.T) {
	stub := facts()
	stub.Nameservers = []netip.Addr{netip.MustParseAddr("127.0.0.53")}
	stub.Upstreams = []netip.Addr{netip.MustParseAddr("203.0.113.53")}
	for _, tt := range []struct {
		name, text string
		facts      host.Facts
		failed     bool
	}{
		{"fine", fine, facts(), false},
		{"no-source", "default = \"kernel\"\n" + mixed, facts(), false},
		{"absent", troubled, facts(), true},
		{"links", "default = \"none\"\n[sources]\nnone = { interface = \"ppp0\" }\nempty = { interface = \"lo\" }\nup = { interface = \"eth0\" }\n" + mixed, facts(), true},
		{"deprecated", "default = \"2001:db8::13\"\n" + mixed, facts(), false},
		{"on-link", "default = \"crawl\"\n[sources]\ncrawl = { ip = \"2001:db8:0:0:f::/80\" }\n" + mixed, facts(), false},
		{"astray", "default = \"lte\"\n[sources]\nlte = { ip = [\"192.0.2.7\", \"2001:db8:7::7\"] }\nsecond = \"192.0.2.8\"\nagain = \"192.0.2.7\"\nlent = { ip = \"203.0.113.192/26\", gateway = \"192.0.2.1\" }\n" + mixed, facts(), true},
		{"astray-six", "default = \"lte\"\n[sources]\nlte = { ip = \"2001:db8:7::7\", gateway = \"2001:db8:7::1\" }\n" + mixed, facts(), true},
		{"astray-follows", "default = \"lte\"\n[sources]\nlte = { interface = \"wwan0\" }\n" + mixed, facts(), true},
		{"to-some", "default = \"wan\"\n[sources]\nwan = \"198.51.100.10\"\nprobed = { ip = \"198.51.100.10\", probe = \"203.0.113.70:443\" }\n[[rules]]\n[rules.map]\n\"203.0.113.64/26\" = \"wan\"\n\"10.0.8.0/24\" = \"wan\"\n" + mixed, facts(), true},
		{"strict", "default = \"lte\"\n[sources]\nlte = { ip = \"192.0.2.7\", device = \"wwan0\" }\n" + mixed, facts(), true},
		{"ports", "default = \"a\"\n[sources]\na = { ip = \"198.51.100.10\", ports = \"20000-44999\" }\nb = { ip = \"198.51.100.64\", ports = \"50000-62000\" }\nc = { ip = \"198.51.100.64\", ports = \"40000-40099\", limit = 200 }\n" + mixed, facts(), true},
		{"limits", "default = \"deny\"\n" + mixed + "[limits]\nconnections = 5000\n", facts(), false},
		{"rights", "default = \"m\"\n[sources]\nm = { ip = \"198.51.100.10\", mark = 7 }\n[[listen]]\nmixed = \"127.0.0.1:80\"\n", facts(), false},
		{"stub", fine, stub, false},
		{"held", "default = \"wan\"\n[sources]\nwan = \"198.51.100.10\"\nvoip = { ip = \"192.0.2.7\", device = \"eth0\" }\n[[listen]]\nmixed = [\"127.0.0.1:1081\", \"127.0.0.1:1082\", \"127.0.0.1:1080\", \"198.51.100.77:1080\"]\nallow = \"127.0.0.0/8\"\n[[listen]]\nname = \"calls\"\nudp = \"127.0.0.1:5061\"\nto = \"203.0.113.5:5060\"\nuse = \"voip\"\nsource_port = 5060\n", facts(), true},
		{"nonlocal", "default = \"wan\"\n[sources]\nwan = [\"198.51.100.10\", \"2001:db8:64::7\"]\n[[attach]]\ncgroup = \"/machine.slice\"\n", facts(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := examine(t, tt.text, tt.facts)
			golden(t, "doctor-"+tt.name+".txt", d.Text(explain.Style{}))
			if got := d.Failed(); got != tt.failed {
				t.Errorf("failed: got %v, want %v", got, tt.failed)
			}
			for _, test := range d.Tests {
				shellReads(t, test.Cure)
			}
		})
	}
}

// TestDoctorKnowsService: the port of the process that serves this file is not in the way,
// that of another srcproxy is; where none answers, nobody knows.
func TestDoctorKnowsService(t *testing.T) {
	for service, want := range map[int]string{
		9: "ok    listeners    no other program has their ports",
		5: "FAIL  mixed 127.0.0.1:1080  tcp port 127.0.0.1:1080 is held by pid 9 (srcproxy)",
		0: "warn  mixed 127.0.0.1:1080  tcp port 127.0.0.1:1080 is held by pid 9 (srcproxy); unless that serves",
	} {
		if got := examineBeside(t, service, fine, facts()).Text(explain.Style{}); !strings.Contains(got, want) {
			t.Errorf("service %d: got\n%s\nwant %q", service, got, want)
		}
	}
}

// shellReads lets a shell parse commands and what takes them back.
func shellReads(t *testing.T, list []explain.Command) {
	t.Helper()
	for _, c := range list {
		for _, text := range []string{c.Run, c.Undo} {
			if out, err := exec.Command("sh", "-n", "-c", text).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", text, err, out)
			}
		}
	}
}

// TestPersist writes cures of every kind for each of the tools.
func TestPersist(t *testing.T) {
	d := examine(t, `default = "lte"
[sources]
lte   = { ip = ["192.0.2.7", "2001:db8:7::7"], gateway = ["192.0.2.99", "2001:db8:7::1"] }
away  = "198.51.100.99"
far   = { ip = "198.51.100.10", gateway = "203.0.113.1" }
crawl = "2001:db8:65::/64"
batch = { ip = "198.51.100.64-198.51.100.67", ports = "20000-44999" }
`+mixed, facts())
	var list []explain.Command
	for _, test := range d.Tests {
		list = append(list, test.Cure...)
	}
	list = append(list, list...) // as after a --fix that did not help
	for _, kind := range explain.Persisters() {
		text, err := explain.Persist(kind, list, patient())
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "persist-"+kind+".txt", text)
		if none, err := explain.Persist(kind, nil, patient()); err != nil || !strings.HasPrefix(none, "# There is nothing that doctor --fix has cured") {
			t.Errorf("%s of nothing: %q, %v", kind, none, err)
		}
	}
	if _, err := explain.Persist("sysv", list, patient()); err == nil {
		t.Error("something for sysv")
	}
}
