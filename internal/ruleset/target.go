package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Scope tells which names a name pattern covers.
type Scope uint8

// The scopes, from the narrowest to the widest.
const (
	Exact Scope = iota // "a.example": the name itself
	Below              // "*.a.example": every name below it, at any depth, but not the name itself
	Both               // ".a.example": the name itself and every name below it
)

// Target is one element of Rule.To or one key of Rule.Map: an address prefix or a name pattern, never both. The zero
// Target is neither, and Compile refuses it.
type Target struct {
	Prefix netip.Prefix // when valid, the addresses: masked, and unmapped when IPv4
	Name   string       // else the name: in the form of CanonicalName, without the "*." or "." that Scope stands for
	Scope  Scope        // which names around Name are meant
}

// ParseTarget reads an address, a prefix or a name pattern: 192.0.2.1, 192.0.2.0/24, a.example, *.a.example, .a.example.
// IPv4-mapped IPv6 is unmapped. What looks like an address but is none (010.0.0.1, 0x7f.1) is an error, not a name, and so
// is a prefix with host bits, a zone, a bare "*" and a name that is not ASCII.
func ParseTarget(s string) (Target, error) {
	if strings.ContainsAny(s, "/:") {
		p, err := parsePrefix(s)
		return Target{Prefix: p}, err
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return Target{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if s == "*" {
		return Target{}, errors.New(`target "*": leave the condition out for any destination, or write 0.0.0.0/0 and ::/0 for any address`)
	}
	t := Target{Name: s}
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		t = Target{Name: rest, Scope: Below}
	} else if rest, ok := strings.CutPrefix(s, "."); ok {
		t = Target{Name: rest, Scope: Both}
	}
	t.Name = CanonicalName(t.Name)
	if err := checkName(t.Name); err != nil {
		return Target{}, fmt.Errorf("target %q: %w", s, err)
	}
	return t, nil
}

// parsePrefix reads a prefix, or an address as the prefix that holds only it.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("target %q: %w", s, err)
		}
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("target %q: an address here has no zone; write %s", s, a.WithZone(""))
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("target %q: %w", s, err)
	}
	p = unmapPrefix(p)
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("target %q: has bits beyond the prefix length; write %s for the network or %s for the address",
			s, p.Masked(), p.Addr())
	}
	return p, nil
}

// unmapPrefix returns a prefix of IPv4-mapped addresses as the IPv4 prefix that it means.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// checkName reports why name, in the form of CanonicalName, is not a host name: RFC 1123 section 2.1, with underscores
// since SRV targets and containers have them.
func checkName(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("a name has 1 to 253 characters")
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
		last = label
	}
	if numeric(last) {
		return errors.New("looks like an address but is none")
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 63 {
		return errors.New("the parts of a name have 1 to 63 characters")
	}
	for _, c := range label {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '*':
			return errors.New(`"*" may only stand at the front, followed by a dot`)
		case c >= 0x80:
			return errors.New("write an international name in its xn-- form")
		default:
			return fmt.Errorf("a name has no %q", c)
		}
	}
	return nil
}

// numeric reports whether C libraries would read a name that ends in label as an IPv4 address (inet_aton).
func numeric(label string) bool {
	hex := strings.HasPrefix(label, "0x")
	return strings.Trim(strings.TrimPrefix(label, "0x"), digits(hex)) == ""
}

func digits(hex bool) string {
	if hex {
		return "0123456789abcdef"
	}
	return "0123456789"
}

// CanonicalName returns s as names are compared: ASCII letters in lower case and without one trailing dot. It allocates
// only when a letter changes.
func CanonicalName(s string) string {
	s = strings.TrimSuffix(s, ".")
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return lower(s)
		}
	}
	return s
}

// lower leaves letters outside ASCII alone: strings.ToLower turns some of them into ASCII (the Kelvin sign into k), and
// two different names would become one.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// String returns t as ParseTarget reads it; an address that stands alone has no prefix length.
func (t Target) String() string {
	switch {
	case t.Prefix.IsValid() && t.Prefix.IsSingleIP():
		return t.Prefix.Addr().String()
	case t.Prefix.IsValid():
		return t.Prefix.String()
	case t.Scope == Below:
		return "*." + t.Name
	case t.Scope == Both:
		return "." + t.Name
	}
	return t.Name
}

// compare orders the targets of one rule by who decides when several match: the longest name, which an exact one always is,
// of the same name the narrower scope, then the longest prefix. Beyond that the order only has to be total.
func (t Target) compare(u Target) int {
	if t.Prefix.IsValid() || u.Prefix.IsValid() {
		return cmp.Or(cmp.Compare(u.Name, t.Name), cmp.Compare(u.Prefix.Bits(), t.Prefix.Bits()), t.Prefix.Compare(u.Prefix))
	}
	return cmp.Or(cmp.Compare(len(u.Name), len(t.Name)), cmp.Compare(t.Scope, u.Scope), cmp.Compare(t.Name, u.Name))
}
