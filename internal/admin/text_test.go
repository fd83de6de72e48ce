package admin

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/internal/egress"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// inBubble runs a test at midnight of 2000-01-01, UTC.
func inBubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	synctest.Test(t, test)
}

func wantText(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s\ngot:\n%s", diff, got)
	}
}

func TestStatusText(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := (&fake{state: Running}).Status()
		s.count(nil, nil)
		wantText(t, s.Text(explain.Style{}), `srcproxy v1.0.0, pid 812, running for 3h12m, /etc/srcproxy/config.toml
  reloads      none
  sources      none
  connections  2 of 5000
  udp flows    0 of 100000
  descriptors  19 of 20000

LISTENER   KIND    ADDRESS                      STATE   FLOWS
office     mixed   127.0.0.1:1080, [::1]:1080   up          0
trunk      udp     127.0.0.1:5060               up          0
# Health: fine
`)
		if !s.Fine() {
			t.Error("it is not fine")
		}
		now := time.Now()
		s = (&fake{state: Draining}).Status()
		s.Config, s.UptimeSeconds = "", 50*3600
		s.Reloads, s.LastReload = 3, &Reload{At: now.Add(time.Hour), Error: "config.toml:3:5: what\n    is"}
		s.Listeners[1].State, s.Listeners[1].Since, s.Listeners[1].Reason = Waiting, now.Add(-time.Minute), "198.51.100.30 is not here"
		s.Connections.Used = 4500
		s.Attachments = []Attachment{
			{Name: "asterisk.service", Cgroups: []string{"/srcproxy.slice/srcproxy-asterisk.slice", "/system.slice/asterisk.service"}, Outside: "/system.slice/asterisk.service", Connects: 12, Datagrams: 3400},
			{Name: "/machine.slice", Refused: 3, Unlogged: 7, Marks: []string{`mark 7 of source "a" does not lead to 198.51.100.10`}},
			{Name: "/x.slice", Refusal: "this kernel lacks bpf_loop"},
		}
		sources := (&fake{}).Sources()
		for i := range sources {
			sources[i].Since = now.Add(-25 * time.Hour)
		}
		s.count([]*flows.Flow{{Info: flows.Info{Listener: "office"}}}, sources)
		wantText(t, s.Text(explain.Style{}), `srcproxy v1.0.0, pid 812, draining for 2d2h, the built-in configuration
  reloads      3, the last failed at 01:00:00
  sources      2 up, 1 down, 1 waiting
  connections  4500 of 5000
  udp flows    0 of 100000
  descriptors  19 of 20000

LISTENER   KIND    ADDRESS                      STATE        FLOWS
office     mixed   127.0.0.1:1080, [::1]:1080   up               1
trunk      udp     127.0.0.1:5060               WAITING 1m       0

ATTACHED           CGROUP                                                                    CONNECTS   DATAGRAMS   REFUSED
asterisk.service   /srcproxy.slice/srcproxy-asterisk.slice, /system.slice/asterisk.service         12        3400         0
/machine.slice     not there yet                                                                    0           0         3
/x.slice           nowhere                                                                          0           0         0
/machine.slice: 7 decisions were too many to be logged
# Health: the service is ending: it takes no new flows
# Health: the last reload failed at 01:00:00, and the configuration is the one before: config.toml:3:5: what
# Health: listener trunk is waiting since 1999-12-31 23:59:00: 198.51.100.30 is not here
# Health: asterisk.service runs in /system.slice/asterisk.service and not in its slice: after a restart its first packets may not be ruled; srcproxy attach prints the cure
# Health: /machine.slice: sockets that hold a port cannot connect: mark 7 of source "a" does not lead to 198.51.100.10
# Health: /x.slice goes without rules: this kernel lacks bpf_loop
# Health: lte is down since 1999-12-30 23:00:00: probe 203.0.113.1:443 timed out
# Health: mail is waiting since 1999-12-30 23:00:00: is not on this host
# Health: connections: 4500 of 5000 are used
`)
	})
}

func TestSourcesText(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		states := (&fake{}).Sources()
		for i := range states {
			states[i].Since = time.Now().Add(-125 * time.Second)
		}
		minute := flows.Traffic{Opened: 1092, In: 660_750_000, Out: 24_000_000}
		stats := []flows.SourceStats{
			{Name: "kernel", Live: 1, Span: time.Minute},
			{Name: "lte", Minute: flows.Traffic{Failed: 12}, Span: 10 * time.Second},
			{Name: "wan1", Live: 412, Minute: minute, Span: time.Minute},
		}
		ports := []egress.PortUse{
			{Source: "kernel", Used: 1, Network: "tcp", Flows: 1},
			{
				Source: "wan1", Used: 95, Network: "tcp", Addr: netip.MustParseAddr("198.51.100.10"),
				Dst: netip.MustParseAddrPort("203.0.113.1:80"), Flows: 90, Budget: 100,
			},
		}
		s := newSources(states, (&fake{}).Way, stats, use{ports, (&fake{}).Places}, (&fake{}).Pools())
		wantText(t, s.Text(explain.Style{}), `SOURCE   ADDRESS         STATE          CONNS   NEW/s          IN        OUT   FAILED/min    PORTS   EGRESS
wan1     198.51.100.10   up               412    18.2   88.1 Mb/s   3.2 Mb/s            0   90/100   eth0 via 198.51.100.1
lte      192.0.2.7       DOWN 2m5s          0       0           0          0         12.0        0   probe 203.0.113.1:443 timed out
mail     198.51.100.25   up                 0       0           0          0            0        0
         2001:db8::25    WAITING 2m5s                                                                is not on this host
kernel                                      1       0           0          0            0        1
# Health: wan1: 90 of the 100 ports of 198.51.100.10 to 203.0.113.1:80 (tcp) are used
# Health: lte is down since 1999-12-31 23:57:55: probe 203.0.113.1:443 timed out
# Health: lte: 9 of the 10 flows of its limit are there
# Health: mail is waiting since 1999-12-31 23:57:55: is not on this host
# Health: pool safe uses wan1
# Health: pool only has no source that is up
`)
		none := newSources(nil, nil, nil, use{}, nil)
		wantText(t, none.Text(explain.Style{}), "no sources are configured\n# Health: fine\n")
	})
}

func TestRulesText(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRules((&fake{}).Rules(), []flows.RuleStats{{Name: "rule 2", Hits: 12, Denied: 12, Last: time.Now()}}, nil)
		wantText(t, r.Text(explain.Style{}), `#   RULE                     USE    HITS   DENIED   LAST HIT   AT
1   mail keeps its address   mail      0        0   -          config.toml:16
2   rule 2                   deny     12       12   00:00:00   config.toml:20
-   default                  wan1      0        0   -          config.toml:1
`)
		r = newRules((&fake{}).Rules(), nil, map[string]uint64{"rule 2": 5, "default": 1200})
		wantText(t, r.Text(explain.Style{}), `#   RULE                     USE    HITS   DENIED   LAST HIT   ATTACHED   AT
1   mail keeps its address   mail      0        0   -                     config.toml:16
2   rule 2                   deny      0        0   -                 5   config.toml:20
-   default                  wan1      0        0   -              1200   config.toml:1
`)
	})
}

func TestConnsText(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var r flows.Registry
		f := r.Open(info("mail", "mail", 1000), nil)
		f.Down.Add(88_100_000)
		f.Up.Add(950)
		i := info("", "", 5060)
		i.Network, i.User, i.Session, i.Name = "udp", "", "", ""
		i.Dst = i.Src
		r.Open(i, nil)
		<-time.After(90 * time.Second)
		var c Conns
		for _, f := range r.All() {
			c.Conns = append(c.Conns, newConn(f))
		}
		wantText(t, c.Text(explain.Style{}), `ID   CLIENT           LISTENER   USER    PROTO   DST                   NAME                RULE   SOURCE   SRC                        IN     OUT     AGE
 1   192.0.2.1:1000   office     ann-1   tcp     203.0.113.25:25       smtp.mail.example   mail   mail     198.51.100.25:41233   88.1 MB   950 B   1m30s
 2   192.0.2.1:5060   office             udp     198.51.100.25:41233                                       198.51.100.25:41233         0       0   1m30s
`)
		wantText(t, c.Conns[0].Closed(), "closed 1: tcp from 192.0.2.1:1000 to smtp.mail.example 203.0.113.25:25\n")
		wantText(t, new(Conns).Text(explain.Style{}), "no flow is live\n")
	})
}

func TestReloadedText(t *testing.T) {
	r := Reloaded{Config: "/etc/srcproxy/config.toml"}
	wantText(t, r.Text(explain.Style{}, true), "reloaded /etc/srcproxy/config.toml: nothing has changed\n")
	r.Changes = []Change{{What: "changed", Kind: "default", Position: "config.toml:1"}}
	wantText(t, r.Text(explain.Style{}, false), "reloaded /etc/srcproxy/config.toml: 1 change\n")
	r.Changes = append(r.Changes,
		Change{"added", "source", "lte", nil, "config.toml:9"},
		Change{"changed", "rule", "mail keeps its address", []string{"port", "to"}, "config.toml:16"},
		Change{"removed", "listener", "office", nil, "config.toml:30"},
	)
	wantText(t, r.Text(explain.Style{}, true), `reloaded /etc/srcproxy/config.toml: 4 changes
  changed   default                                        config.toml:1
  added     source     lte                                 config.toml:9
  changed   rule       mail keeps its address   port, to   config.toml:16
  removed   listener   office                              config.toml:30
`)
}

func TestFigures(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0", 0.4: "0", 1: "1 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_960: "1.0 MB",
		88_123_456: "88.1 MB", 5e9: "5.0 GB", 7e15: "7000.0 TB",
	} {
		if got := amount(n, "B"); got != want {
			t.Errorf("%v bytes: got %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 59400 * time.Millisecond: "59s", 59600 * time.Millisecond: "1m", 61 * time.Second: "1m1s",
		time.Hour: "1h", 25*time.Hour + 30*time.Minute: "1d1h", 26*time.Hour - time.Second: "1d1h",
	} {
		if got := length(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestColour(t *testing.T) {
	s := newSources((&fake{}).Sources()[1:2], nil, nil, use{}, nil)
	got := s.Text(explain.Style{Color: true})
	if want := "\x1b[31mDOWN "; !strings.Contains(got, want) || !strings.Contains(got, "\x1b[31m# Health: lte") {
		t.Errorf("got %q, want %q in it", got, want)
	}
}
