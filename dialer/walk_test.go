package dialer_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestWalkAgreesWithLookup asks random tables for random flows: the last rule of Walk is
// the one that matched if there is one, and then it is Lookup's.
func TestWalkAgreesWithLookup(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	decided := make(map[string]int)
	for n := range 150 {
		rules := make([]dialer.Rule, 1+r.IntN(12))
		for i := range rules {
			rules[i] = randomRule(r)
		}
		table := newTable(t, from(mail), rules...)
		for range 50 {
			f := randomFlow(r)
			rule, index := walk(t, table, f)
			d := table.Lookup(f)
			if d.Rule != rule || d.Index != index {
				t.Fatalf("seed %d, table %d: Lookup says %q at %d, Walk %q at %d\n%+v\n%+v", seed, n, d.Rule, d.Index, rule, index, f, rules)
			}
			decided[outcome(d)]++
		}
	}
	for _, o := range []string{"default", "rule 1", "rule 2", "rule 9", "denied"} {
		if decided[o] < 10 {
			t.Errorf("%d flows ended with %s: too few to tell anything", decided[o], o)
		}
	}
}

func outcome(d dialer.Decision) string {
	if d.Err != nil && d.Source == nil && strings.HasPrefix(d.Err.Error(), "denied") {
		return "denied"
	}
	return d.Rule
}

// walk returns the rule that Walk ends with, after checking its form.
func walk(t *testing.T, table *dialer.Table, f dialer.Flow) (string, int) {
	t.Helper()
	want, matched := 0, false
	var last dialer.Reason
	for i, reason := range table.Walk(f) {
		if i != want || matched || reason.Rule != fmt.Sprintf("rule %d", i+1) {
			t.Fatalf("place %d after %d, matched before: %v, %+v", i, want-1, matched, reason)
		}
		want, matched, last = want+1, reason.Matched, reason
	}
	if !matched {
		return "default", -1
	}
	return last.Rule, want - 1
}

func some[E any](r *rand.Rand, list []E) []E {
	if r.IntN(3) > 0 {
		return nil
	}
	return []E{list[r.IntN(len(list))], list[r.IntN(len(list))]}
}

var (
	someTargets = to("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32", "64:ff9b::/96", "::/0", "a.example", "*.example", ".b.example", "x.b.example")
	somePorts   = []dialer.PortRange{{Lo: 25, Hi: 25}, {Lo: 80, Hi: 443}, {Lo: 1, Hi: 65535}}
	someUsers   = []string{"u", "v"}
	someUses    = []dialer.Use{from(wan1), from(mail), deny, kernel}
)

func randomRule(r *rand.Rand) dialer.Rule {
	rule := dialer.Rule{
		To:        some(r, someTargets),
		Ports:     some(r, somePorts),
		Client:    some(r, prefixes("192.0.2.0/24", "192.0.2.0/25")),
		User:      some(r, someUsers),
		Listener:  some(r, someUsers),
		LocalPort: some(r, somePorts),
		Protocol:  []string{"", "", "tcp", "udp"}[r.IntN(4)],
		Use:       someUses[r.IntN(len(someUses))],
	}
	if r.IntN(3) == 0 {
		rule.Use, rule.Map = dialer.Use{}, make(map[dialer.Match]dialer.Use)
		for range 1 + r.IntN(4) {
			rule.Map[someTargets[r.IntN(len(someTargets))]] = someUses[r.IntN(len(someUses))]
		}
	}
	return rule
}

func randomFlow(r *rand.Rand) dialer.Flow {
	dsts := addrs("10.1.2.3", "10.1.9.9", "10.9.9.9", "203.0.113.1", "::ffff:10.1.2.3", "2001:db8::1", "64:ff9b::a01:203")
	dsts = append(dsts, netip.Addr{})
	return dialer.Flow{
		Network:   []string{"tcp", "udp4"}[r.IntN(2)],
		Dst:       netip.AddrPortFrom(dsts[r.IntN(len(dsts))], []uint16{25, 80, 8080}[r.IntN(3)]),
		Name:      []string{"", "a.example", "X.B.Example.", "b.example", "c.test"}[r.IntN(5)],
		Client:    netip.AddrPortFrom(append(addrs("192.0.2.1", "::ffff:192.0.2.200"), netip.Addr{})[r.IntN(3)], 1),
		User:      []string{"", "u", "v"}[r.IntN(3)],
		Listener:  []string{"", "u"}[r.IntN(2)],
		LocalPort: []uint16{0, 25, 5060}[r.IntN(3)],
	}
}

func TestWalkTexts(t *testing.T) {
	table := newTable(t, deny,
		dialer.Rule{Name: "mail", To: to("*.mail.example", "203.0.113.25"), Ports: []dialer.PortRange{{Lo: 25, Hi: 25}}, Use: from(mail)},
		dialer.Rule{User: []string{"crawler"}, Use: from(wan1)},
		dialer.Rule{Name: "all", Use: from(wan1)},
		dialer.Rule{Name: "never", Use: from(wan2)},
	)
	var got []string
	for i, r := range table.Walk(tcp("203.0.113.25:80")) {
		got = append(got, fmt.Sprint(i, " ", r.Rule, " ", r.Matched))
		if r.Text == "" && !r.Matched {
			t.Errorf("%s says nothing", r.Rule)
		}
		if i == 0 && !strings.Contains(r.Text, "80") {
			t.Errorf("the port is the reason, not %q", r.Text)
		}
	}
	if s := strings.Join(got, ", "); s != "0 mail false, 1 rule 2 false, 2 all true" {
		t.Error(s)
	}
	for range table.Walk(tcp("203.0.113.25:80")) {
		break // must not be called again
	}
}
