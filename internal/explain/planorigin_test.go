package explain_test

import (
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/internal/explain"
)

// TestPlanNamesMembersLeftOut: a route has one source, so the plan says which members of a
// pool it takes and which it lacks, by family.
func TestPlanNamesMembersLeftOut(t *testing.T) {
	cfg, _ := parse(t, `default = "all"
[sources]
gone  = "198.51.100.99"
wan   = ["198.51.100.10", "2001:db8::10"]
lte   = "192.0.2.7"
six   = "2001:db8:7::7"
alone = "198.51.100.98"
[pools]
all  = { of = ["gone", "wan", "lte", "six"], pick = "round-robin" }
none = { of = ["gone", "alone"] }
[[rules]]
to  = "203.0.113.0/24"
use = "none"
`+mixed)
	routes := wired()
	for _, plan := range []*explain.Plan{explain.PlanIPRoute(cfg, patient(), &routes.policy), explain.PlanNetworkd(cfg, patient(), &routes.policy)} {
		var got []string
		for _, g := range plan.Gaps {
			got = append(got, g.Rule+": "+g.Text)
		}
		for _, want := range []string{
			"default: all: 198.51.100.99 is not on an interface, so its flows are refused",
			"default: all: a route has one source: for IPv4 always wan, and never lte",
			"default: all: a route has one source: for IPv6 always wan, and never six",
			"rule 1: none: none of its members has an IPv4 address that routes can have, so its flows are refused",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("%s: no %q among\n%q", plan.Kind, want, got)
			}
		}
	}
}
