package ruleset

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Reason tells why a rule matches a query or does not.
type Reason struct {
	// Matched is true for the rule that decides.
	Matched bool
	// Condition is the first condition that failed: to, map, port, protocol, client, user, listener, service or local_port. For the
	// rule that decides it is the destination condition, map before to, and empty when there is none.
	Condition string
	// Detail is for people: `to "*.mail.example", port 25`, or `port 443 is not in 25, 465, 587-588`.
	Detail string
	// Match is the answer when Matched.
	Match Match
}

// Walk judges rule after rule and yields for each its index and the reason, up to and including the first that matches.
// It is meant for explanations: slow, obvious, and equal to Set.First.
func Walk(rules []Rule, q Query) iter.Seq2[int, Reason] {
	q.Dst, q.Client = addr(q.Dst), addr(q.Client)
	return func(yield func(int, Reason) bool) {
		for i := range rules {
			r := reason(&rules[i], i, &q)
			if !yield(i, r) || r.Matched {
				return
			}
		}
	}
}

// Slow answers as Set.First, by judging one rule after the other.
func Slow(rules []Rule, q Query) (Match, bool) { return slow(rules, q, false) }

// SlowByPrefix answers as Set.FirstByPrefix, by judging one rule after the other.
func SlowByPrefix(rules []Rule, q Query) (Match, bool) {
	q.Name = "" // then no name can match, and what is left is met by prefixes
	return slow(rules, q, true)
}

func slow(rules []Rule, q Query, byPrefix bool) (Match, bool) {
	q.Dst, q.Client = addr(q.Dst), addr(q.Client)
	for i := range rules {
		v := judge(&rules[i], i, &q)
		if v.failed == "" && (!byPrefix || v.match.By == ByPrefix) {
			return v.match, true
		}
	}
	return Match{}, false
}

// verdict is what judging one rule gives: the match, or the condition that failed.
type verdict struct {
	match   Match
	failed  string
	to, key Target // the element of To and the key of Map that matched
}

// judge holds one rule against q, condition by condition.
func judge(r *Rule, index int, q *Query) verdict {
	v := verdict{match: Match{Rule: index, Outcome: r.Outcome}}
	var ok bool
	if len(r.To) > 0 {
		if v.to, ok = best(slices.Values(r.To), q); !ok {
			return verdict{failed: "to"}
		}
		v.match.meet(v.to)
	}
	if r.Map != nil {
		if v.key, ok = best(maps.Keys(r.Map), q); !ok {
			return verdict{failed: "map"}
		}
		v.match.meet(v.key)
		v.match.Outcome = r.Map[v.key]
	}
	v.failed = failed(r, q)
	return v
}

// failed returns the first condition that is not about the destination and does not hold.
func failed(r *Rule, q *Query) string {
	inRange := func(port uint16) func(PortRange) bool {
		return func(p PortRange) bool { return p.Contains(port) }
	}
	switch {
	case len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, inRange(q.Port)):
		return "port"
	case r.Protocol != 0 && r.Protocol&q.Protocol == 0:
		return "protocol"
	case len(r.Client) > 0 && !slices.ContainsFunc(r.Client, func(p netip.Prefix) bool { return p.Contains(q.Client) }):
		return "client"
	case len(r.Users) > 0 && !slices.Contains(r.Users, q.User):
		return "user"
	case len(r.Listeners) > 0 && !slices.Contains(r.Listeners, q.Listener):
		return "listener"
	case len(r.Services) > 0 && !slices.Contains(r.Services, q.Service):
		return "service"
	case len(r.LocalPorts) > 0 && !slices.ContainsFunc(r.LocalPorts, inRange(q.LocalPort)):
		return "local_port"
	}
	return ""
}

// best returns the target that decides among those that match q.
func best(targets iter.Seq[Target], q *Query) (Target, bool) {
	var found Target
	var ok bool
	for t := range targets {
		if t.matches(q) && (!ok || t.compare(found) < 0) {
			found, ok = t, true
		}
	}
	return found, ok
}

func (t Target) matches(q *Query) bool {
	if t.Prefix.IsValid() {
		return t.Prefix.Contains(q.Dst)
	}
	itself := q.Name == t.Name
	below := strings.HasSuffix(q.Name, "."+t.Name) && len(q.Name) > len(t.Name)+1
	switch t.Scope {
	case Exact:
		return itself
	case Below:
		return below
	}
	return itself || below
}

// meet records that t met a destination condition: one name makes the whole match one by name.
func (m *Match) meet(t Target) {
	switch {
	case !t.Prefix.IsValid():
		m.By, m.Prefix = ByName, netip.Prefix{}
	case m.By == ByAny, m.By == ByPrefix && t.Prefix.Bits() > m.Prefix.Bits():
		m.By, m.Prefix = ByPrefix, t.Prefix
	}
}

func reason(r *Rule, index int, q *Query) Reason {
	v := judge(r, index, q)
	if v.failed != "" {
		return Reason{Condition: v.failed, Detail: whyNot(r, v.failed, q)}
	}
	condition := ""
	switch {
	case r.Map != nil:
		condition = "map"
	case len(r.To) > 0:
		condition = "to"
	}
	return Reason{Matched: true, Condition: condition, Detail: why(r, v, q), Match: v.match}
}

// why lists what each condition of the rule that matched was met by.
func why(r *Rule, v verdict, q *Query) string {
	var parts []string
	say := func(has bool, format string, what any) {
		if has {
			parts = append(parts, fmt.Sprintf(format, what))
		}
	}
	say(len(r.To) > 0, "to %q", v.to.String())
	say(r.Map != nil, "map %q", v.key.String())
	say(len(r.Ports) > 0, "port %d", q.Port)
	say(r.Protocol != 0, "protocol %s", q.Protocol)
	say(len(r.Client) > 0, "client %s", q.Client)
	say(len(r.Users) > 0, "user %q", q.User)
	say(len(r.Listeners) > 0, "listener %q", q.Listener)
	say(len(r.Services) > 0, "service %q", q.Service)
	say(len(r.LocalPorts) > 0, "local_port %d", q.LocalPort)
	if parts == nil {
		return "has no condition"
	}
	return strings.Join(parts, ", ")
}

// whyNot tells what the query has instead of what the failed condition wants.
func whyNot(r *Rule, condition string, q *Query) string {
	has, want := "", ""
	switch condition {
	case "to":
		has, want = q.destination(), some(r.To)
	case "map":
		has, want = q.destination(), fmt.Sprintf("its %d keys", len(r.Map))
	case "port":
		has, want = known(q.Port != 0, strconv.Itoa(int(q.Port))), some(r.Ports)
	case "protocol":
		has, want = known(q.Protocol != 0, q.Protocol.String()), r.Protocol.String()
	case "client":
		has, want = known(q.Client.IsValid(), q.Client.String()), some(r.Client)
	case "user":
		has, want = known(q.User != "", strconv.Quote(q.User)), some(r.Users)
	case "listener":
		has, want = known(q.Listener != "", strconv.Quote(q.Listener)), some(r.Listeners)
	case "service":
		has, want = known(q.Service != "", strconv.Quote(q.Service)), some(r.Services)
	case "local_port":
		has, want = known(q.LocalPort != 0, strconv.Itoa(int(q.LocalPort))), some(r.LocalPorts)
	}
	if has == "" {
		return condition + " is not known here"
	}
	return fmt.Sprintf("%s %s is not in %s", condition, has, want)
}

func known(is bool, s string) string {
	if is {
		return s
	}
	return ""
}

// destination returns what is known of it: name, address, or both.
func (q *Query) destination() string {
	switch {
	case !q.Dst.IsValid():
		return q.Name
	case q.Name == "":
		return q.Dst.String()
	}
	return fmt.Sprintf("%s (%s)", q.Name, q.Dst)
}

// some lists the first elements and counts the rest.
func some[E any](list []E) string {
	const most = 5
	var b strings.Builder
	for i, e := range list[:min(len(list), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, e)
	}
	if len(list) > most {
		fmt.Fprintf(&b, " and %d more", len(list)-most)
	}
	return b.String()
}
