package ruleset

import (
	"errors"
	"net/netip"
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
func ParseTarget(s string) (Target, error) { return Target{}, errors.ErrUnsupported }

// CanonicalName returns s as names are compared: ASCII letters in lower case and without one trailing dot. It allocates
// only when a letter changes.
func CanonicalName(s string) string { return s }

// String returns t as ParseTarget reads it.
func (t Target) String() string { return t.Name }
