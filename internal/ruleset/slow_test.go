package ruleset

import (
	"net/netip"
	"testing"
)

func TestWalk(t *testing.T) {
	rules := []Rule{
		{To: to(t, "*.mail.example", "203.0.113.25"), Ports: []PortRange{{25, 25}, {465, 465}, {587, 588}}},
		{To: to(t, "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5", "198.51.100.6", "198.51.100.7")},
		{Map: pairs(t, "10.0.0.0/8")},
		{Protocol: UDP},
		{Client: prefixes("10.0.8.0/24")},
		{Users: []string{"crawler"}},
		{Listeners: []string{"office"}},
		{Services: []string{"a.service"}},
		{LocalPorts: []PortRange{{5060, 5060}}},
		{},
		{},
	}
	all := everyQuery()
	all.Name, all.LocalPort, all.User, all.Client = "smtp.mail.example", 9, "ann", netip.MustParseAddr("10.0.9.1")
	tcp := Query{Name: "smtp.mail.example", Port: 25, Protocol: TCP}
	for _, tt := range []struct {
		name  string
		query Query
		want  []string
	}{
		{"destination and port fail", all, []string{
			"port: port 5060 is not in 25, 465, 587-588",
			"to: to smtp.mail.example (203.0.113.5) is not in 198.51.100.1, 198.51.100.2, 198.51.100.3, 198.51.100.4, 198.51.100.5 and 2 more",
			"map: map smtp.mail.example (203.0.113.5) is not in its 1 keys",
			": matches: protocol udp",
		}},
		{"unknown", Query{}, []string{
			"to: to is not known here", "to: to is not known here", "map: map is not known here", "protocol: protocol is not known here",
			"client: client is not known here", "user: user is not known here", "listener: listener is not known here",
			"service: service is not known here", "local_port: local_port is not known here", ": matches: has no condition",
		}},
		{"first", tcp, []string{`to: matches: to "*.mail.example", port 25`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			for i, r := range Walk(rules, tt.query) {
				if i != n || i >= len(tt.want) {
					t.Fatalf("rule %d after %d", i, n-1)
				}
				n++
				if got := r.text(); got != tt.want[i] {
					t.Errorf("rule %d: got %s, want %s", i, got, tt.want[i])
				}
			}
			if n != len(tt.want) {
				t.Errorf("got %d rules, want %d", n, len(tt.want))
			}
		})
	}
}

func (r Reason) text() string {
	if r.Matched {
		return r.Condition + ": matches: " + r.Detail
	}
	return r.Condition + ": " + r.Detail
}

func TestWalkMatch(t *testing.T) {
	rules := every(t)
	rules[0].Map = pairs(t, "203.0.0.0/16", "203.0.113.5")
	for _, r := range Walk(rules, everyQuery()) {
		want := Match{Outcome: 2, By: ByPrefix, Prefix: netip.MustParsePrefix("203.0.113.5/32")}
		detail := `to "203.0.113.0/24", map "203.0.113.5", port 5060, protocol udp, client 10.1.1.1, user "ann", listener "office", service "a.service", local_port 5060`
		if !r.Matched || r.Condition != "map" || r.Match != want || r.Detail != detail {
			t.Errorf("got %+v, want %+v with %s", r, want, detail)
		}
	}
}

// TestWalkStops leaves the loop early.
func TestWalkStops(t *testing.T) {
	n := 0
	for range Walk(make([]Rule, 3), Query{}) {
		n++
		break
	}
	for range Walk([]Rule{{Protocol: UDP}, {Protocol: UDP}}, Query{}) {
		n++
		break
	}
	if n != 2 {
		t.Errorf("got %d, want 2", n)
	}
}
