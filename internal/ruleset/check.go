package ruleset

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// check reports the first thing in rules that could never match as meant.
func check(rules []Rule) error {
	if len(rules) > math.MaxInt32 {
		return errors.New("too many rules")
	}
	for i := range rules {
		if err := checkRule(&rules[i]); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return nil
}

func checkRule(r *Rule) error {
	if r.Protocol&^(TCP|UDP) != 0 {
		return fmt.Errorf("protocol: %#x is unknown", uint8(r.Protocol))
	}
	if r.Map != nil && len(r.Map) == 0 {
		return errors.New("map: has no key")
	}
	for t := range r.Map {
		if err := checkTarget(t); err != nil {
			return fmt.Errorf("map: %w", err)
		}
	}
	return errors.Join(
		checkEach("to", r.To, checkTarget),
		checkEach("port", r.Ports, checkRange),
		checkEach("client", r.Client, checkPrefix),
		checkEach("user", r.Users, checkText),
		checkEach("listener", r.Listeners, checkText),
		checkEach("service", r.Services, checkText),
		checkEach("local_port", r.LocalPorts, checkRange))
}

func checkEach[E any](condition string, list []E, check func(E) error) error {
	for _, e := range list {
		if err := check(e); err != nil {
			return fmt.Errorf("%s: %w", condition, err)
		}
	}
	return nil
}

func checkTarget(t Target) error {
	if t.Prefix.IsValid() {
		if t.Name != "" || t.Scope != Exact {
			return fmt.Errorf("target %s: is a prefix and a name", t.Prefix)
		}
		return checkPrefix(t.Prefix)
	}
	if t.Scope > Both {
		return fmt.Errorf("target %q: scope %d is unknown", t.Name, t.Scope)
	}
	if err := checkName(t.Name); err != nil {
		return fmt.Errorf("target %q: %w", t.Name, err)
	}
	return nil
}

func checkPrefix(p netip.Prefix) error {
	if !p.IsValid() {
		return errors.New("prefix is not valid")
	}
	if p != unmapPrefix(p).Masked() {
		return fmt.Errorf("prefix %s: write %s", p, unmapPrefix(p).Masked())
	}
	return nil
}

func checkRange(r PortRange) error {
	if r.Hi == 0 || r.Lo > r.Hi {
		return fmt.Errorf("range %s: holds no port", r)
	}
	return nil
}

func checkText(s string) error {
	if s == "" {
		return errors.New("name is empty")
	}
	return nil
}
